/*
 * Errors and hints for CPU modes that the host does not allow
 *
 * Copyright (c) 2026 QEMU contributors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "cpu.h"
#include "host-compat.h"
#include "trace.h"

char *ppc_host_compat_names(void)
{
    uint32_t pvr = UINT32_MAX;
    GString *names;

    if (!ppc_host_compat.modes) {
        return g_strdup(ppc_host_compat.kvm_hv ? "not known" : "not limited");
    }
    names = g_string_new(NULL);
    while ((pvr = ppc_host_compat_older(pvr))) {
        g_string_prepend(names, names->len ? ", " : "");
        g_string_prepend(names, ppc_compat_name(pvr));
    }
    return g_string_free(names, FALSE);
}

bool ppc_host_compat_check(uint32_t pvr, Error **errp)
{
    g_autofree char *names = NULL;

    if (ppc_host_compat_allows(pvr)) {
        return true;
    }
    names = ppc_host_compat_names();
    trace_ppc_host_compat_refused(pvr, ppc_compat_name(pvr), names);
    error_setg(errp, "this host does not allow CPU mode %s, only %s",
               ppc_compat_name(pvr), names);
    return false;
}

void ppc_host_compat_hint(Error *const *errp, uint32_t pvr)
{
    g_autofree char *names = ppc_host_compat_names();
    uint32_t instead = ppc_host_compat_older(pvr);

    if (!instead && ppc_host_compat.modes) {
        instead = ppc_host_compat_older(UINT32_MAX);
    }
    error_append_hint(errp, "CPU modes of this host: %s.\n", names);
    if (instead && instead != pvr) {
        error_append_hint(errp, "Add max-cpu-compat=%s to -machine.\n",
                          ppc_compat_name(instead));
    }
}

void ppc_host_compat_limit(uint32_t *max_compat_pvr, Error **errp)
{
    ERRP_GUARD();

    if (*max_compat_pvr) {
        if (!ppc_host_compat_check(*max_compat_pvr, NULL)) {
            error_setg(errp, "Cannot use max-cpu-compat=%s on this host",
                       ppc_compat_name(*max_compat_pvr));
            ppc_host_compat_hint(errp, *max_compat_pvr);
        }
    } else if (!ppc_host_compat_allows(0)) {
        *max_compat_pvr = ppc_host_compat_older(UINT32_MAX);
        trace_ppc_host_compat_limit(*max_compat_pvr,
                                    ppc_compat_name(*max_compat_pvr));
    }
}
