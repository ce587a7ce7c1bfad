/*
 * What host-compat.c, host-compat-check.c and kvm-host-compat.c use of QEMU
 *
 * The headers that they include are links to this one.
 *
 * Copyright (c) 2026 QEMU contributors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef SHIM_QEMU_H
#define SHIM_QEMU_H

#include <glib.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#define ARRAY_SIZE(array)           G_N_ELEMENTS(array)
#define QEMU_BUILD_BUG_ON(wrong)    G_STATIC_ASSERT(!(wrong))
#define be32_to_cpu(value)          GUINT32_FROM_BE(value)

typedef struct Error Error;

#define ERRP_GUARD()                g_assert(errp)

void error_setg(Error **errp, const char *format, ...) G_GNUC_PRINTF(2, 3);
void error_append_hint(Error *const *errp, const char *format, ...)
    G_GNUC_PRINTF(2, 3);
void warn_report(const char *format, ...) G_GNUC_PRINTF(1, 2);

typedef struct PowerPCCPUClass {
    uint32_t spapr_logical_pvr;
} PowerPCCPUClass;

const char *ppc_compat_name(uint32_t pvr);
PowerPCCPUClass *kvm_ppc_get_host_cpu_class(void);
void kvmppc_host_compat_init(void);

typedef struct KVMState KVMState;

extern KVMState *kvm_state;

int kvm_vm_check_extension(KVMState *state, unsigned int extension);
int kvm_vm_ioctl(KVMState *state, unsigned long request, ...);

#define KVM_CAP_PPC_COMPAT_CAPS     250
#define KVM_PPC_GET_COMPAT_CAPS     0xaeb8
#define KVM_PPC_COMPAT_CAP_POWER9   (1ULL << 62)
#define KVM_PPC_COMPAT_CAP_POWER10  (1ULL << 61)
#define KVM_PPC_COMPAT_CAP_POWER11  (1ULL << 60)

struct kvm_ppc_compat_caps {
    uint64_t size, flags, compat_capabilities;
};

#define trace_kvm_host_cpu_version(...)     ((void)0)
#define trace_kvm_host_compat(...)          ((void)0)
#define trace_ppc_host_compat_refused(...)  ((void)0)
#define trace_ppc_host_compat_limit(...)    ((void)0)

/* /proc/device-tree is below the current directory */
#define g_dir_open(path, ...)               g_dir_open((path) + 1, __VA_ARGS__)
#define g_file_get_contents(path, ...) \
    g_file_get_contents((path) + 1, __VA_ARGS__)

#endif /* SHIM_QEMU_H */
