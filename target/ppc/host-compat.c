/*
 * The CPU compatibility modes that the host lets a guest have
 *
 * On POWER a partition can run in the mode of an older processor.  A Linux in
 * such a partition that is a KVM host cannot give its guests more than that,
 * although the PVR still reads as the newer processor.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "host-compat.h"

typedef struct HostMode {
    uint64_t bit;
    uint32_t pvr;
} HostMode;

/* Oldest first.  From POWER9 on, the order of logical PVRs is that of age. */
static const HostMode host_modes[] = {
    { PPC_HOST_COMPAT_POWER9,  0x0f000005 },
    { PPC_HOST_COMPAT_POWER10, 0x0f000006 },
    { PPC_HOST_COMPAT_POWER11, 0x0f000007 },
};

static PPCHostCompat host_compat;

const PPCHostCompat *ppc_host_compat(void)
{
    return &host_compat;
}

void ppc_host_compat_set(const PPCHostCompat *host)
{
    host_compat = *host;
    if (!host_compat.modes) {
        host_compat.source = PPC_HOST_COMPAT_NONE;
    }
}

uint64_t ppc_host_compat_from_bits(uint64_t bits, uint32_t cpu_pvr)
{
    uint64_t possible = 0;

    for (size_t i = 0; i < ARRAY_SIZE(host_modes); i++) {
        if (!cpu_pvr || host_modes[i].pvr <= cpu_pvr) {
            possible |= host_modes[i].bit;
        }
    }
    return bits & possible;
}

uint64_t ppc_host_compat_from_cpu_version(uint32_t version)
{
    uint64_t modes = 0;

    for (size_t i = 0; i < ARRAY_SIZE(host_modes); i++) {
        modes |= host_modes[i].bit;
        if (host_modes[i].pvr == version) {
            return modes;
        }
    }
    return 0;
}

static bool in_set(uint32_t pvr)
{
    for (size_t i = 0; i < ARRAY_SIZE(host_modes); i++) {
        if (host_modes[i].pvr == pvr) {
            return host_compat.modes & host_modes[i].bit;
        }
    }
    return false;
}

/* The low half is the age: power7+ differs from power7 in the upper one */
static bool older_than_list(uint32_t pvr)
{
    return (pvr & 0xffff) < (host_modes[0].pvr & 0xffff);
}

bool ppc_host_compat_allows(uint32_t pvr)
{
    uint32_t mode = pvr ? pvr : host_compat.cpu_pvr;

    return !host_compat.modes || older_than_list(mode) || in_set(mode);
}

bool ppc_host_compat_is_limited(void)
{
    return !ppc_host_compat_allows(0);
}

uint32_t ppc_host_compat_older(uint32_t pvr)
{
    for (size_t i = ARRAY_SIZE(host_modes); i > 0; i--) {
        if (host_modes[i - 1].pvr < pvr && in_set(host_modes[i - 1].pvr)) {
            return host_modes[i - 1].pvr;
        }
    }
    return 0;
}

uint32_t ppc_host_compat_newer(uint32_t pvr)
{
    for (size_t i = 0; i < ARRAY_SIZE(host_modes); i++) {
        if (host_modes[i].pvr > pvr && in_set(host_modes[i].pvr)) {
            return host_modes[i].pvr;
        }
    }
    return 0;
}

const char *ppc_host_compat_source_name(PPCHostCompatSource source)
{
    static const char *const names[] = {
        [PPC_HOST_COMPAT_NONE] = "none",
        [PPC_HOST_COMPAT_KVM] = "kvm",
        [PPC_HOST_COMPAT_DEVICE_TREE] = "device-tree",
    };

    return names[source];
}
