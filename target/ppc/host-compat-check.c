/*
 * Refusing, by name, a CPU mode that the host does not have
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "cpu.h"
#include "hw/qdev-core.h"
#include "host-compat-check.h"
#include "trace.h"

char *ppc_host_compat_mode_name(uint32_t pvr)
{
    const char *name = ppc_compat_name(pvr ? pvr : ppc_host_compat()->cpu_pvr);

    if (!name) {
        return pvr ? g_strdup_printf("0x%08" PRIx32, pvr) : g_strdup("raw");
    }
    return g_strdup_printf("%s%s", pvr ? "" : "raw ", name);
}

char *ppc_host_compat_names(void)
{
    GString *names = g_string_new(NULL);
    uint32_t pvr = 0;

    if (!ppc_host_compat()->modes) {
        g_string_assign(names, "not known");
    }
    while ((pvr = ppc_host_compat_newer(pvr))) {
        g_string_append_printf(names, "%s%s", names->len ? ", " : "",
                               ppc_compat_name(pvr));
    }
    return g_string_free(names, FALSE);
}

bool ppc_host_compat_check(uint32_t pvr, Error **errp)
{
    g_autofree char *asked = NULL;
    g_autofree char *names = NULL;

    if (ppc_host_compat_allows(pvr)) {
        return true;
    }
    asked = ppc_host_compat_mode_name(pvr);
    names = ppc_host_compat_names();
    trace_ppc_host_compat_refused(pvr, asked, names);
    error_setg(errp, "this host does not let a guest run as %s, only as one of"
               " its own modes (%s)", asked, names);
    return false;
}

bool ppc_host_compat_check_property(const char *name, uint32_t pvr,
                                    Error **errp)
{
    ERRP_GUARD();

    if (!phase_check(PHASE_MACHINE_INITIALIZED) ||
        ppc_host_compat_check(pvr, errp)) {
        return true;
    }
    error_prepend(errp, "Cannot set %s to \"%s\": ", name,
                  pvr ? ppc_compat_name(pvr) : "");
    return false;
}

int ppc_host_compat_load_check(uint32_t pvr)
{
    Error *err = NULL;

    if (ppc_host_compat_check(pvr, &err)) {
        return 0;
    }
    error_prepend(&err, "Cannot load the state of a vCPU: ");
    error_append_hint(&err, "Save or migrate the guest from a machine with"
                      " max-cpu-compat set to a mode that both hosts have.\n");
    error_report_err(err);
    return -EINVAL;
}

bool ppc_host_compat_is_family(const char *name)
{
    uint32_t newest = ppc_host_compat_older(UINT32_MAX);

    return ppc_host_compat_is_limited() &&
           strcasecmp(name, ppc_compat_name(newest)) == 0;
}
