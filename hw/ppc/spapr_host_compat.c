/*
 * What the pseries machine does with the host's CPU compatibility modes
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/visitor.h"
#include "qapi/qapi-builtin-visit.h"
#include "qemu/error-report.h"
#include "qemu/log.h"
#include "exec/cpu-common.h"
#include "hw/ppc/spapr_host_compat.h"
#include "system/cpus.h"
#include "system/hw_accel.h"
#include "system/runstate.h"
#include "target/ppc/cpu-models.h"
#include "target/ppc/host-compat-check.h"
#include "trace.h"

/* As many records as CAS itself reads */
#define CAS_PVR_RECORDS 512

/*
 * The mode to use where @pvr cannot be had, or zero.  Without a set the next
 * older mode is a guess: the numbers from POWER8 up follow one another.
 */
static uint32_t mode_instead_of(uint32_t pvr)
{
    uint32_t mode = pvr ? pvr : ppc_host_compat()->cpu_pvr;
    uint32_t other = ppc_host_compat_older(mode);

    if (!other) {
        other = ppc_host_compat_older(UINT32_MAX);
    }
    if (!other && ppc_compat_name(mode - 1)) {
        other = mode - 1;
    }
    return other == mode ? 0 : other;
}

/* Add to *@errp what the host has and what to write instead of @pvr. */
static void append_remedy(Error *const *errp, uint32_t pvr)
{
    g_autofree char *names = ppc_host_compat_names();
    uint32_t instead = mode_instead_of(pvr);

    error_append_hint(errp, "CPU modes of this host: %s.\n", names);
    if (instead) {
        error_append_hint(errp, "Use -machine pseries,max-cpu-compat=%s.\n",
                          ppc_compat_name(instead));
    } else {
        error_append_hint(errp, "Use a host whose KVM supports this mode.\n");
    }
}

static bool vcpu_mode_unknown(void)
{
    CPUState *cs;

    CPU_FOREACH(cs) {
        if (POWERPC_CPU(cs)->compat_stale) {
            return true;
        }
    }
    return false;
}

/* KVM may have left a vCPU in a mode that nobody asked for: run none */
static void vm_state_change(void *opaque, bool running, RunState state)
{
    if (running && vcpu_mode_unknown()) {
        error_report("KVM has refused the CPU mode of this machine: reset it "
                     "(system_reset) before it can go on");
        vm_stop(RUN_STATE_INTERNAL_ERROR);
    }
}

void spapr_host_compat_init(SpaprMachineState *spapr, Error **errp)
{
    ERRP_GUARD();

    if (ppc_host_compat()->kvm_hv) {
        qemu_add_vm_change_state_handler(vm_state_change, NULL);
    }
    if (spapr->max_compat_pvr) {
        if (!ppc_host_compat_check(spapr->max_compat_pvr, errp)) {
            error_prepend(errp, "Cannot use max-cpu-compat=%s: ",
                          ppc_compat_name(spapr->max_compat_pvr));
            append_remedy(errp, spapr->max_compat_pvr);
        }
    } else if (ppc_host_compat_is_limited()) {
        spapr->max_compat_pvr = ppc_host_compat_older(UINT32_MAX);
        trace_spapr_host_compat_clamp(spapr->max_compat_pvr,
                                      ppc_compat_name(spapr->max_compat_pvr));
    }
}

static void get_modes(Object *obj, Visitor *v, const char *name,
                      void *opaque, Error **errp)
{
    strList *modes = NULL, **tail = &modes;
    uint32_t pvr = 0;

    while ((pvr = ppc_host_compat_newer(pvr))) {
        QAPI_LIST_APPEND(tail, g_strdup(ppc_compat_name(pvr)));
    }
    visit_type_strList(v, name, &modes, errp);
    qapi_free_strList(modes);
}

static char *get_source(Object *obj, Error **errp)
{
    return g_strdup(ppc_host_compat_source_name(ppc_host_compat()->source));
}

void spapr_host_compat_add_properties(Object *obj)
{
    object_property_add(obj, "host-compat-modes", "strList",
                        get_modes, NULL, NULL, NULL);
    object_property_set_description(obj, "host-compat-modes",
        "CPU compatibility modes that the host lets a guest have");
    object_property_add_str(obj, "host-compat-source", get_source, NULL);
    object_property_set_description(obj, "host-compat-source",
        "Where host-compat-modes comes from (kvm, device-tree, none)");
}

bool spapr_host_compat_reset(SpaprMachineState *spapr)
{
    bool first_reset = !spapr->fdt_blob;
    Error *err = NULL;
    CPUState *cs;

    if (ppc_init_compat_all(spapr->max_compat_pvr, &err) >= 0) {
        return true;
    }
    if (ppc_host_compat()->kvm_hv) {
        g_autofree char *mode =
            ppc_host_compat_mode_name(spapr->max_compat_pvr);

        error_prepend(&err, "Cannot put the machine's CPUs into mode %s "
                      "(max-cpu-compat): ", mode);
        append_remedy(&err, spapr->max_compat_pvr);
    }
    error_report_err(err);
    if (first_reset || !ppc_host_compat()->kvm_hv) {
        exit(EXIT_FAILURE);
    }
    /* Also where KVM was not even asked: a CPU half reset must not run */
    CPU_FOREACH(cs) {
        POWERPC_CPU(cs)->compat_stale = true;
    }
    /* The main loop stops the machine once it is through with the reset */
    qemu_system_vmstop_request_prepare();
    qemu_system_vmstop_request(RUN_STATE_INTERNAL_ERROR);
    return false;
}

static void do_put_back(CPUState *cs, run_on_cpu_data pvr)
{
    PowerPCCPU *cpu = POWERPC_CPU(cs);

    /* Reach KVM also where this vCPU never left the mode */
    cpu->compat_stale = true;
    ppc_set_compat(cpu, pvr.host_ulong, NULL);
}

/* Put every vCPU back into @pvr; returns false where KVM refuses one. */
static bool put_back_all(uint32_t pvr)
{
    CPUState *cs;

    CPU_FOREACH(cs) {
        run_on_cpu(cs, do_put_back, RUN_ON_CPU_HOST_ULONG(pvr));
    }
    return !vcpu_mode_unknown();
}

bool spapr_host_compat_cas(PowerPCCPU *cpu, uint32_t pvr, bool raw_listed)
{
    g_autofree char *mode = ppc_host_compat_mode_name(pvr);
    g_autofree char *before = ppc_host_compat_mode_name(cpu->compat_pvr);
    uint32_t pvr_before = cpu->compat_pvr;
    Error *err = NULL;

    if (ppc_set_compat_all(pvr, &err) >= 0) {
        return true;
    }
    if (!ppc_host_compat()->kvm_hv && raw_listed) {
        error_free(err);
        return true;
    }
    if (ppc_host_compat()->kvm_hv) {
        bool back = put_back_all(pvr_before);

        error_prepend(&err, "Cannot run the guest as %s, which it has chosen"
                      " (ibm,client-architecture-support): ", mode);
        error_append_hint(&err, "The machine is stopped, its CPUs %s %s.\n",
                          back ? "as before in mode" :
                          "unusable: KVM does not take back mode", before);
        append_remedy(&err, pvr);
        vm_stop(RUN_STATE_INTERNAL_ERROR);
    }
    error_report_err(err);
    return false;
}

/* A list ends at a record that matches no CPU (LoPAPR B.6.2.3) */
static bool read_record(hwaddr at, uint32_t *mask, uint32_t *pvr)
{
    uint32_t record[2];

    cpu_physical_memory_read(at, record, sizeof(record));
    *mask = be32_to_cpu(record[0]);
    *pvr = be32_to_cpu(record[1]);
    return !(~*mask & *pvr);
}

static char *offered_modes(hwaddr list)
{
    GPtrArray *names = g_ptr_array_new_with_free_func(g_free);
    unsigned int others = 0;
    uint32_t mask, pvr;
    char *text;

    for (int i = 0; i < CAS_PVR_RECORDS; i++) {
        const char *name;

        if (!read_record(list + i * 2 * sizeof(uint32_t), &mask, &pvr)) {
            break;
        }
        name = mask == UINT32_MAX ? ppc_compat_name(pvr) : NULL;
        if (!name) {
            others++;
        } else if (!g_ptr_array_find_with_equal_func(names, name,
                                                     g_str_equal, NULL)) {
            g_ptr_array_add(names, g_strdup(name));
        }
    }
    if (others || !names->len) {
        g_ptr_array_add(names, g_strdup_printf("%u other PVRs", others));
    }
    g_ptr_array_add(names, NULL);
    text = g_strjoinv(", ", (char **)names->pdata);
    g_ptr_array_free(names, TRUE);
    return text;
}

void spapr_host_compat_cas_no_mode(SpaprMachineState *spapr, hwaddr list)
{
    g_autofree char *offered = offered_modes(list);
    g_autofree char *names = ppc_host_compat_names();

    error_report("Couldn't negotiate a suitable PVR during CAS: the guest "
                 "offers %s; max-cpu-compat is \"%s\"; CPU modes of this host: "
                 "%s", offered, spapr->max_compat_pvr ?
                 ppc_compat_name(spapr->max_compat_pvr) : "", names);
}

bool spapr_host_compat_plug(SpaprCpuCore *core, Error **errp)
{
    ERRP_GUARD();
    uint32_t pvr = POWERPC_CPU(first_cpu)->compat_pvr;

    for (int i = 0; i < CPU_CORE(core)->nr_threads; i++) {
        if (ppc_set_compat(core->threads[i], pvr, errp) < 0) {
            g_autofree char *mode = ppc_host_compat_mode_name(pvr);
            g_autofree char *names = ppc_host_compat_names();

            error_prepend(errp, "Cannot plug CPU core %d as %s, the mode of "
                          "the machine's other CPUs: ",
                          CPU_CORE(core)->core_id, mode);
            error_append_hint(errp, "CPU modes of this host: %s.\n", names);
            return false;
        }
    }
    return true;
}

bool spapr_host_compat_l2_allows(SpaprMachineState *spapr, uint32_t pvr)
{
    bool allowed = pvr ? ppc_check_compat(POWERPC_CPU(first_cpu), pvr,
                                          CPU_POWERPC_LOGICAL_3_00,
                                          spapr->max_compat_pvr)
                       : !spapr->max_compat_pvr;

    if (!allowed) {
        qemu_log_mask(LOG_GUEST_ERROR, "L1 may not run L2 with logical PVR "
                      "0x%08" PRIx32 ", its max-cpu-compat is \"%s\"\n", pvr,
                      spapr->max_compat_pvr ?
                      ppc_compat_name(spapr->max_compat_pvr) : "");
    }
    return allowed;
}
