/*
 * Machine properties that show the CPU modes of the host
 *
 * Copyright (c) 2026 QEMU contributors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/visitor.h"
#include "qapi/qapi-builtin-visit.h"
#include "hw/ppc/spapr_host_compat.h"
#include "host-compat.h"

static void get_modes(Object *obj, Visitor *v, const char *name,
                      void *opaque, Error **errp)
{
    uint32_t pvr = UINT32_MAX;
    strList *modes = NULL;

    while (ppc_host_compat.modes && (pvr = ppc_host_compat_older(pvr))) {
        QAPI_LIST_PREPEND(modes, g_strdup(ppc_compat_name(pvr)));
    }
    visit_type_strList(v, name, &modes, errp);
    qapi_free_strList(modes);
}

static char *get_source(Object *obj, Error **errp)
{
    return g_strdup(ppc_host_compat.source ? ppc_host_compat.source : "none");
}

void spapr_host_compat_add_properties(ObjectClass *oc)
{
    object_class_property_add(oc, "host-compat-modes", "strList",
                              get_modes, NULL, NULL, NULL);
    object_class_property_set_description(oc, "host-compat-modes",
        "CPU compatibility modes that the host allows a guest");
    object_class_property_add_str(oc, "host-compat-source", get_source, NULL);
    object_class_property_set_description(oc, "host-compat-source",
        "Where host-compat-modes comes from (kvm, device-tree, none)");
}
