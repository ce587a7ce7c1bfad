/*
 * What the pseries machine does with the host's CPU compatibility modes
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_SPAPR_HOST_COMPAT_H
#define HW_SPAPR_HOST_COMPAT_H

#include "hw/ppc/spapr.h"
#include "hw/ppc/spapr_cpu_core.h"

/**
 * spapr_host_compat_init: hold max-cpu-compat inside the host's modes
 * @spapr: the machine, before its capabilities get their defaults
 * @errp: max-cpu-compat names a mode that the host does not have
 *
 * On a limited host an unset max-cpu-compat becomes the host's newest mode.
 */
void spapr_host_compat_init(SpaprMachineState *spapr, Error **errp);

/**
 * spapr_host_compat_add_properties: let management ask for the host's modes
 * @obj: the machine, which gets the read-only properties host-compat-modes
 *       (names, oldest first) and host-compat-source
 */
void spapr_host_compat_add_properties(Object *obj);

/**
 * spapr_host_compat_reset: put every vCPU into the mode that a reset gives
 * @spapr: the machine, its vCPUs reset but without an entry point yet
 *
 * What KVM refuses ends QEMU at the machine's first reset.  Later it stops
 * the machine, which must not be given an entry point then.  Without KVM HV
 * a mode that the CPU cannot have ends QEMU always.
 *
 * Returns: true where every vCPU has the mode.
 */
bool spapr_host_compat_reset(SpaprMachineState *spapr);

/**
 * spapr_host_compat_cas: put every vCPU into the mode that CAS has chosen
 * @cpu: the calling vCPU
 * @pvr: logical PVR, zero for raw mode
 * @raw_listed: the guest lists its CPU's own PVR
 *
 * LoPAPR's ibm,client-architecture-support.  All vCPUs get the mode or none:
 * where KVM HV refuses, each is put back into the mode of @cpu, and the
 * machine stops, since Linux goes on after a CAS that failed.  KVM PR has no
 * modes: there raw mode does, where the guest lists it.
 *
 * Returns: true where CAS can go on, false for H_HARDWARE.
 */
bool spapr_host_compat_cas(PowerPCCPU *cpu, uint32_t pvr, bool raw_listed);

/**
 * spapr_host_compat_cas_no_mode: report that CAS found no mode to choose
 * @spapr: the machine
 * @list: guest real address of the PVR list (LoPAPR B.6.2.3)
 */
void spapr_host_compat_cas_no_mode(SpaprMachineState *spapr, hwaddr list);

/**
 * spapr_host_compat_plug: give a new core the mode of the running ones
 * @core: realized, not yet attached to its DRC
 * @errp: what KVM or the host refuses
 *
 * Returns: true on success.
 */
bool spapr_host_compat_plug(SpaprCpuCore *core, Error **errp);

/**
 * spapr_host_compat_l2_allows: may this partition give a guest this mode?
 * @spapr: the machine, itself the hypervisor's guest (L1)
 * @pvr: logical PVR for a guest of the nested PAPR API (L2)
 *
 * What a partition cannot have it cannot give.  Zero stands for the mode of
 * the CPU itself, which a partition with max-cpu-compat does not have.  Logs
 * a guest error where the answer is no.
 *
 * Returns: true where L1 may run L2 in this mode.
 */
bool spapr_host_compat_l2_allows(SpaprMachineState *spapr, uint32_t pvr);

#endif /* HW_SPAPR_HOST_COMPAT_H */
