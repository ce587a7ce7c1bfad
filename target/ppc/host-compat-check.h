/*
 * Refusing, by name, a CPU mode that the host does not have
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TARGET_PPC_HOST_COMPAT_CHECK_H
#define TARGET_PPC_HOST_COMPAT_CHECK_H

#include "target/ppc/host-compat.h"

/* The names of modes are in compat.c, which 32-bit targets do not have */
#ifdef TARGET_PPC64

/**
 * ppc_host_compat_mode_name: a mode, as users write it
 * @pvr: logical PVR, or zero for raw mode
 *
 * Returns: a new string, owned by the caller.
 */
char *ppc_host_compat_mode_name(uint32_t pvr);

/**
 * ppc_host_compat_names: the host's modes, oldest first
 *
 * Returns: a new string, owned by the caller, such as "power9, power10"; it
 * says so where the modes are not known.
 */
char *ppc_host_compat_names(void);

/**
 * ppc_host_compat_check: refuse by name a mode that the host does not have
 * @pvr: logical PVR, or zero for raw mode
 * @errp: what was asked and what the host has
 *
 * Returns: true where ppc_host_compat_allows() it.
 */
bool ppc_host_compat_check(uint32_t pvr, Error **errp);

/**
 * ppc_host_compat_check_property: the same for a machine property
 * @name: the property
 * @pvr: its new value, zero for the empty string
 * @errp: as above
 *
 * Before the machine is initialized everything goes: the accelerator may not
 * be up yet, and the machine fits the property to the host itself.
 *
 * Returns: true where the property may have the value.
 */
bool ppc_host_compat_check_property(const char *name, uint32_t pvr,
                                    Error **errp);

/**
 * ppc_host_compat_load_check: the same for a vCPU whose state was loaded
 * @pvr: the mode in the stream, zero for raw mode
 *
 * Reports what is wrong.
 *
 * Returns: zero, or -EINVAL where the host does not have the mode.
 */
int ppc_host_compat_load_check(uint32_t pvr);

/**
 * ppc_host_compat_is_family: is this the name of the CPU the host shows?
 * @name: a CPU family, such as "power10"
 *
 * Returns: true where the host is limited and @name is that of its newest
 * mode; case does not matter.
 */
bool ppc_host_compat_is_family(const char *name);

#else

static inline bool ppc_host_compat_is_family(const char *name)
{
    return false;
}

#endif /* TARGET_PPC64 */

#endif /* TARGET_PPC_HOST_COMPAT_CHECK_H */
