/*
 * Asking KVM, or the host's device tree, for the host's compatibility modes
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/ioctl.h>
#include <linux/kvm.h>

#include "qemu/bswap.h"
#include "qemu/error-report.h"
#include "system/kvm.h"
#include "host-compat.h"
#include "trace.h"

#define HOST_CPUS "/proc/device-tree/cpus"

QEMU_BUILD_BUG_ON(PPC_HOST_COMPAT_POWER9 != KVM_PPC_COMPAT_CAP_POWER9);
QEMU_BUILD_BUG_ON(PPC_HOST_COMPAT_POWER10 != KVM_PPC_COMPAT_CAP_POWER10);
QEMU_BUILD_BUG_ON(PPC_HOST_COMPAT_POWER11 != KVM_PPC_COMPAT_CAP_POWER11);

/* An older kernel writes back its own size; smaller than the first is junk */
static bool can_ask_smaller(uint64_t theirs, uint64_t ours)
{
    return theirs < ours && theirs >= KVM_PPC_COMPAT_CAPS_SIZE_VER0;
}

/* -ENOTTY also stands for a kernel that has the ioctl but no use for it */
static int ask_kvm(uint64_t *bits)
{
    struct kvm_ppc_compat_caps caps = { .size = sizeof(caps) };
    int ret;

    if (!kvm_vm_check_extension(kvm_state, KVM_CAP_PPC_COMPAT_CAPS)) {
        return -ENOTTY;
    }
    ret = kvm_vm_ioctl(kvm_state, KVM_PPC_GET_COMPAT_CAPS, &caps);
    if (ret == -E2BIG && can_ask_smaller(caps.size, sizeof(caps))) {
        caps = (struct kvm_ppc_compat_caps) { .size = caps.size };
        ret = kvm_vm_ioctl(kvm_state, KVM_PPC_GET_COMPAT_CAPS, &caps);
    }
    if (ret == -EINVAL) {
        return -ENOTTY;
    }
    *bits = caps.compat_capabilities;
    return ret;
}

/* Returns zero where KVM gives no answer that can be used. */
static uint64_t modes_from_kvm(uint32_t cpu_pvr)
{
    uint64_t bits = 0;
    int ret = ask_kvm(&bits);
    uint64_t modes = ppc_host_compat_from_bits(bits, cpu_pvr);

    if (ret == -ENOTTY) {
        return 0;
    }
    if (ret < 0) {
        warn_report("KVM_PPC_GET_COMPAT_CAPS failed: %s; taking the host's CPU"
                    " modes from its device tree", strerror(-ret));
        return 0;
    }
    if (!modes) {
        warn_report("KVM_PPC_GET_COMPAT_CAPS names no CPU mode that this CPU"
                    " can have (0x%016" PRIx64 "); taking the host's CPU modes"
                    " from its device tree", bits);
    }
    return modes;
}

/* Returns false where the property is absent or is not @len bytes long. */
static bool read_property(const char *node, const char *name,
                          void *value, size_t len)
{
    g_autofree char *path = g_build_filename(HOST_CPUS, node, name, NULL);
    g_autofree char *text = NULL;
    size_t size;

    if (!g_file_get_contents(path, &text, &size, NULL) || size != len) {
        return false;
    }
    memcpy(value, text, len);
    return true;
}

/* Caches and thread groups can stand beside the CPU nodes */
static bool is_cpu(const char *node)
{
    char type[sizeof("cpu")];

    return read_property(node, "device_type", type, sizeof(type)) &&
           memcmp(type, "cpu", sizeof(type)) == 0;
}

/* Returns zero where the CPUs name no logical PVR that limits a guest. */
static uint64_t modes_from_device_tree(void)
{
    GDir *cpus = g_dir_open(HOST_CPUS, 0, NULL);
    const char *node;
    uint32_t version = 0;
    bool first = true, agree = true;

    while (cpus && agree && (node = g_dir_read_name(cpus))) {
        uint32_t be_version = 0;

        if (!is_cpu(node)) {
            continue;
        }
        read_property(node, "cpu-version", &be_version, sizeof(be_version));
        trace_kvm_host_cpu_version(node, be32_to_cpu(be_version));
        agree = first || version == be32_to_cpu(be_version);
        version = be32_to_cpu(be_version);
        first = false;
    }
    if (cpus) {
        g_dir_close(cpus);
    }
    if (!agree) {
        warn_report("The CPUs in the host's device tree differ in cpu-version:"
                    " not limiting the guest's CPU mode");
        return 0;
    }
    return ppc_host_compat_from_cpu_version(version);
}

void kvmppc_host_compat_init(uint32_t cpu_pvr)
{
    PPCHostCompat host = {
        .modes = modes_from_kvm(cpu_pvr),
        .cpu_pvr = cpu_pvr,
        .source = PPC_HOST_COMPAT_KVM,
        .kvm_hv = true,
    };

    if (!host.modes) {
        host.modes = modes_from_device_tree();
        host.source = PPC_HOST_COMPAT_DEVICE_TREE;
    }
    ppc_host_compat_set(&host);
    trace_kvm_host_compat(
        ppc_host_compat_source_name(ppc_host_compat()->source), host.modes);
}
