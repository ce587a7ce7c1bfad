/*
 * The CPU compatibility modes that the host allows a guest
 *
 * A partition can run in the mode of an older processor.  If Linux in the
 * partition is a KVM host, its guests cannot have more than that mode, although
 * the PVR still identifies the newer processor.
 *
 * Copyright (c) 2026 QEMU contributors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "host-compat.h"

/* POWER9 and newer modes, oldest first; the PVRs must be ascending */
static const struct {
    uint64_t bit;
    uint32_t pvr;
} host_modes[] = {
    { PPC_HOST_COMPAT_POWER9,  0x0f000005 },
    { PPC_HOST_COMPAT_POWER10, 0x0f000006 },
    { PPC_HOST_COMPAT_POWER11, 0x0f000007 },
};

PPCHostCompat ppc_host_compat;

uint64_t ppc_host_compat_up_to(uint32_t pvr)
{
    uint64_t modes = 0;

    for (size_t i = 0; i < ARRAY_SIZE(host_modes); i++) {
        modes |= host_modes[i].bit;
        if (host_modes[i].pvr == pvr) {
            return modes;
        }
    }
    return 0;
}

bool ppc_host_compat_allows(uint32_t pvr)
{
    uint32_t mode = pvr ? pvr : ppc_host_compat.cpu_pvr;

    for (size_t i = 0; i < ARRAY_SIZE(host_modes); i++) {
        if (host_modes[i].pvr == mode && ppc_host_compat.modes) {
            return ppc_host_compat.modes & host_modes[i].bit;
        }
    }
    return true;
}

uint32_t ppc_host_compat_older(uint32_t pvr)
{
    uint32_t older = 0;

    for (size_t i = 0; i < ARRAY_SIZE(host_modes); i++) {
        if (host_modes[i].pvr < pvr &&
            ppc_host_compat_allows(host_modes[i].pvr)) {
            older = host_modes[i].pvr;
        }
    }
    return older;
}
