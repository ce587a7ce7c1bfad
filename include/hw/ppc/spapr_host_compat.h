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
 * spapr_host_compat_init: keep the machine from running after a mode was
 *                         refused, until a reset or a load sets one
 */
void spapr_host_compat_init(void);

/**
 * spapr_host_compat_reset: put all vCPUs into the mode of max-cpu-compat
 * @spapr: the machine; its vCPUs must already be reset
 *
 * If the mode is refused at the first reset, or without KVM HV, QEMU exits.
 * At a later reset, the machine stops before a vCPU can run.  The caller must
 * complete the reset, so that no state of the old guest remains.
 */
void spapr_host_compat_reset(SpaprMachineState *spapr);

/**
 * spapr_host_compat_cas_refused: KVM HV refuses the mode that CAS has chosen
 * @pvr: that mode
 * @before: the previous mode, which is restored on all vCPUs
 * @err: the reason; this function frees it
 *
 * Stops the machine, because Linux continues after CAS has failed.
 */
void spapr_host_compat_cas_refused(uint32_t pvr, uint32_t before, Error *err);

#endif /* HW_SPAPR_HOST_COMPAT_H */
