/*
 * What the pseries machine does when a CPU mode is refused
 *
 * Copyright (c) 2026 QEMU contributors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_SPAPR_HOST_COMPAT_H
#define HW_SPAPR_HOST_COMPAT_H

#include "hw/ppc/spapr.h"

/**
 * spapr_host_compat_init: keep vCPUs from running whose mode was refused,
 *                         until a reset or a load gives them one
 */
void spapr_host_compat_init(void);

/**
 * spapr_host_compat_reset: put all vCPUs into the mode of max-cpu-compat
 * @spapr: the machine, its vCPUs reset
 *
 * At the machine's first reset, and without KVM HV, a refusal ends QEMU.
 * Later it stops the machine, before a vCPU can run: the caller completes the
 * reset, so that nothing of the old guest is left.
 */
void spapr_host_compat_reset(SpaprMachineState *spapr);

/**
 * spapr_host_compat_cas_refused: KVM HV refuses the mode that CAS has chosen
 * @pvr: that mode
 * @before: the mode from before, which all vCPUs get back
 * @err: why; freed
 *
 * Stops the machine, because Linux goes on after a CAS that failed.
 */
void spapr_host_compat_cas_refused(uint32_t pvr, uint32_t before, Error *err);

#endif /* HW_SPAPR_HOST_COMPAT_H */
