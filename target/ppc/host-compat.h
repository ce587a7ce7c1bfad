/*
 * The CPU compatibility modes that the host allows a guest
 *
 * Copyright (c) 2026 QEMU contributors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TARGET_PPC_HOST_COMPAT_H
#define TARGET_PPC_HOST_COMPAT_H

/*
 * The bits of Linux's KVM_PPC_COMPAT_CAP_*.  Modes older than POWER9 have none
 * and are left to KVM.
 */
#define PPC_HOST_COMPAT_POWER9      (1ULL << 62)
#define PPC_HOST_COMPAT_POWER10     (1ULL << 61)
#define PPC_HOST_COMPAT_POWER11     (1ULL << 60)

/**
 * PPCHostCompat: the host's CPU modes; all zero with TCG and KVM PR
 * @modes: mask of PPC_HOST_COMPAT_*, zero if not known
 * @cpu_pvr: logical PVR of the host CPU itself
 * @source: where @modes comes from
 * @kvm_hv: KVM HV runs the guest; if it refuses a mode, do not fall back to
 *          raw mode
 */
typedef struct PPCHostCompat {
    uint64_t modes;
    uint32_t cpu_pvr;
    const char *source;
    bool kvm_hv;
} PPCHostCompat;

extern PPCHostCompat ppc_host_compat;

/**
 * ppc_host_compat_up_to: a mode and all older ones
 * @pvr: logical PVR
 *
 * Returns: a mask, or zero if @pvr is not POWER9 mode or a newer one.
 */
uint64_t ppc_host_compat_up_to(uint32_t pvr);

/**
 * ppc_host_compat_allows: whether the host allows a guest a mode
 * @pvr: logical PVR, or zero for raw mode, the mode of the host CPU itself
 *
 * Returns: false only if the host's modes are known, and @pvr is POWER9 mode
 * or a newer one that is not among them.
 */
bool ppc_host_compat_allows(uint32_t pvr);

/**
 * ppc_host_compat_older: the newest allowed mode that is older than @pvr
 * @pvr: logical PVR; UINT32_MAX asks for the newest of all
 *
 * Returns: the logical PVR of POWER9 or newer, or zero if there is none.
 */
uint32_t ppc_host_compat_older(uint32_t pvr);

/**
 * ppc_host_compat_names: the host's modes, for use in messages
 *
 * Returns: a string such as "power9, power10", or "not known" or "not limited"
 * if there is no list of modes.  The caller must free it.
 */
char *ppc_host_compat_names(void);

/**
 * ppc_host_compat_check: refuse a mode that ppc_host_compat_allows() does not
 * @pvr: logical PVR, or zero for raw mode
 * @errp: names the mode and those that the host allows
 */
bool ppc_host_compat_check(uint32_t pvr, Error **errp);

/**
 * ppc_host_compat_hint: add to an error what to use instead of @pvr
 */
void ppc_host_compat_hint(Error *const *errp, uint32_t pvr);

/**
 * ppc_host_compat_limit: keep max-cpu-compat within the host's modes
 * @max_compat_pvr: if zero, and the host does not allow raw mode, it becomes
 *                  the host's newest mode
 * @errp: set if @max_compat_pvr is a mode that the host does not allow
 */
void ppc_host_compat_limit(uint32_t *max_compat_pvr, Error **errp);

#endif /* TARGET_PPC_HOST_COMPAT_H */
