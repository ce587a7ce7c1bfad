/*
 * Get the host's CPU modes from KVM or from the host's device tree
 *
 * Copyright (c) 2026 QEMU contributors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/ioctl.h>
#include <linux/kvm.h>

#include "qemu/bswap.h"
#include "qemu/error-report.h"
#include "system/kvm.h"
#include "cpu.h"
#include "host-compat.h"
#include "kvm_ppc.h"
#include "trace.h"

#define HOST_CPUS "/proc/device-tree/cpus"

QEMU_BUILD_BUG_ON(PPC_HOST_COMPAT_POWER9 != KVM_PPC_COMPAT_CAP_POWER9);
QEMU_BUILD_BUG_ON(PPC_HOST_COMPAT_POWER10 != KVM_PPC_COMPAT_CAP_POWER10);
QEMU_BUILD_BUG_ON(PPC_HOST_COMPAT_POWER11 != KVM_PPC_COMPAT_CAP_POWER11);

/* Returns zero if KVM gives no usable answer. */
static uint64_t modes_from_kvm(uint32_t cpu_pvr)
{
    struct kvm_ppc_compat_caps caps = { .size = sizeof(caps) };
    uint64_t modes;
    int ret;

    if (!kvm_vm_check_extension(kvm_state, KVM_CAP_PPC_COMPAT_CAPS)) {
        return 0;
    }
    ret = kvm_vm_ioctl(kvm_state, KVM_PPC_GET_COMPAT_CAPS, &caps);
    if (ret == -ENOTTY || ret == -EINVAL) {
        /* This kernel or this host has no modes to report */
        return 0;
    }
    modes = caps.compat_capabilities & ppc_host_compat_up_to(cpu_pvr);
    if (!modes) {
        warn_report("KVM_PPC_GET_COMPAT_CAPS: %s (0x%016" PRIx64 "): reading"
                    " the host's CPU modes from its device tree",
                    ret < 0 ? strerror(-ret) : "no mode that this CPU has",
                    (uint64_t)caps.compat_capabilities);
    }
    return modes;
}

/* Leaves @value alone if the property is absent or is not @size bytes long. */
static void read_property(const char *node, const char *name,
                          void *value, size_t size)
{
    g_autofree char *path = g_build_filename(HOST_CPUS, node, name, NULL);
    g_autofree char *data = NULL;
    size_t length;

    if (g_file_get_contents(path, &data, &length, NULL) && length == size) {
        memcpy(value, data, size);
    }
}

/* Returns zero if the CPU nodes differ or have no logical PVR >= POWER9. */
static uint64_t modes_from_device_tree(void)
{
    g_autoptr(GDir) cpus = g_dir_open(HOST_CPUS, 0, NULL);
    const char *node;
    uint32_t first = 0;
    bool found = false;

    while (cpus && (node = g_dir_read_name(cpus))) {
        char type[sizeof("cpu")] = "";
        uint32_t version = 0;

        /* The directory can also contain caches */
        read_property(node, "device_type", type, sizeof(type));
        if (memcmp(type, "cpu", sizeof(type)) != 0) {
            continue;
        }
        read_property(node, "cpu-version", &version, sizeof(version));
        trace_kvm_host_cpu_version(node, be32_to_cpu(version));
        if (found && version != first) {
            warn_report("The CPUs in the host's device tree differ in"
                        " cpu-version: not limiting the guest's CPU mode");
            return 0;
        }
        first = version;
        found = true;
    }
    return ppc_host_compat_up_to(be32_to_cpu(first));
}

void kvmppc_host_compat_init(void)
{
    PowerPCCPUClass *cpu = kvm_ppc_get_host_cpu_class();
    PPCHostCompat *host = &ppc_host_compat;

    host->kvm_hv = true;
    host->cpu_pvr = cpu ? cpu->spapr_logical_pvr : 0;
    host->source = "kvm";
    host->modes = modes_from_kvm(host->cpu_pvr);
    if (!host->modes) {
        host->source = "device-tree";
        host->modes = modes_from_device_tree();
    }
    if (!host->modes) {
        host->source = "none";
    }
    trace_kvm_host_compat(host->source, host->modes);
}
