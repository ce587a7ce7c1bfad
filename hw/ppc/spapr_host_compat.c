/*
 * What the pseries machine does when a CPU mode is refused
 *
 * Copyright (c) 2026 QEMU contributors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "hw/ppc/spapr_host_compat.h"
#include "host-compat.h"
#include "system/runstate.h"

static void vm_state_change(void *opaque, bool running, RunState state)
{
    CPUState *cs;

    CPU_FOREACH(cs) {
        if (running && POWERPC_CPU(cs)->compat_stale) {
            error_report("The machine cannot run, because a CPU mode was"
                         " refused at the last reset or load: reset it"
                         " (system_reset)");
            vm_stop(RUN_STATE_INTERNAL_ERROR);
            return;
        }
    }
}

void spapr_host_compat_init(void)
{
    if (ppc_host_compat.kvm_hv) {
        /* Last of all, so that each handler sees the start before the stop */
        qemu_add_vm_change_state_handler_prio(vm_state_change, NULL, INT_MAX);
    }
}

void spapr_host_compat_reset(SpaprMachineState *spapr)
{
    /* The first reset creates the device tree */
    bool first_reset = !spapr->fdt_blob;
    Error *err = NULL;
    CPUState *cs;

    if (ppc_init_compat_all(spapr->max_compat_pvr, &err) >= 0) {
        return;
    }
    if (ppc_host_compat.kvm_hv) {
        error_prepend(&err, "Cannot put the machine's CPUs into mode %s "
                      "(max-cpu-compat): ",
                      ppc_compat_name(spapr->max_compat_pvr));
        ppc_host_compat_hint(&err, spapr->max_compat_pvr);
    }
    error_report_err(err);
    if (first_reset || !ppc_host_compat.kvm_hv) {
        exit(EXIT_FAILURE);
    }
    /* Mark all: vCPUs after the refused one were not set either */
    CPU_FOREACH(cs) {
        POWERPC_CPU(cs)->compat_stale = true;
    }
    /* Not vm_stop(): after the reset, the main loop sets prelaunch */
    qemu_system_vmstop_request_prepare();
    qemu_system_vmstop_request(RUN_STATE_INTERNAL_ERROR);
}

void spapr_host_compat_cas_refused(uint32_t pvr, uint32_t before, Error *err)
{
    bool back = ppc_set_compat_all(before, NULL) >= 0;

    error_prepend(&err, "Cannot run the guest in CPU mode %s, which it has"
                  " negotiated (ibm,client-architecture-support): ",
                  ppc_compat_name(pvr));
    error_append_hint(&err, "The machine is stopped. Its CPUs are %s %s.\n",
                      back ? "back in mode"
                           : "unusable: KVM did not restore mode",
                      ppc_compat_name(before));
    ppc_host_compat_hint(&err, pvr);
    error_report_err(err);
    vm_stop(RUN_STATE_INTERNAL_ERROR);
}
