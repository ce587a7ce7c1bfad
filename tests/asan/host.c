/*
 * Run the code that queries the host's CPU modes, on hosts from standard input
 *
 * User-mode emulation cannot start a QEMU with AddressSanitizer, so build only
 * that code, for this machine.  Each line of standard input is a host:
 *
 *   DIRECTORY LOGICAL-PVR EXTENSION ERRNO BITS MAX-CPU-COMPAT
 *
 * The answer is its modes and what max-cpu-compat becomes, or "refused".
 *
 * Copyright (c) 2026 QEMU contributors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "target/ppc/host-compat.h"

struct Error {
    GString *text;
};

static struct {
    PowerPCCPUClass cpu;
    int extension, error;
    uint64_t bits;
} host;

KVMState *kvm_state;

void error_setg(Error **errp, const char *format, ...)
{
    va_list ap;

    if (errp) {
        g_assert(!*errp);
        *errp = g_new0(Error, 1);
        (*errp)->text = g_string_new(NULL);
        va_start(ap, format);
        g_string_vprintf((*errp)->text, format, ap);
        va_end(ap);
    }
}

void error_append_hint(Error *const *errp, const char *format, ...)
{
    va_list ap;

    va_start(ap, format);
    g_string_append_vprintf((*errp)->text, format, ap);
    va_end(ap);
}

void warn_report(const char *format, ...)
{
    va_list ap;

    va_start(ap, format);
    vfprintf(stderr, format, ap);
    va_end(ap);
    fputc('\n', stderr);
}

const char *ppc_compat_name(uint32_t pvr)
{
    static const char *const names[] = {
        "power6", "power7", "power8", "power9", "power10", "power11"
    };

    if (!pvr) {
        return "raw";
    }
    g_assert(pvr - 0x0f000002 < ARRAY_SIZE(names));
    return names[pvr - 0x0f000002];
}

PowerPCCPUClass *kvm_ppc_get_host_cpu_class(void)
{
    return &host.cpu;
}

int kvm_vm_check_extension(KVMState *state, unsigned int extension)
{
    return extension == KVM_CAP_PPC_COMPAT_CAPS ? host.extension : 0;
}

int kvm_vm_ioctl(KVMState *state, unsigned long request, ...)
{
    struct kvm_ppc_compat_caps *caps;
    va_list ap;

    va_start(ap, request);
    caps = va_arg(ap, void *);
    va_end(ap);
    g_assert(request == KVM_PPC_GET_COMPAT_CAPS);
    g_assert(caps->size == sizeof(*caps) && !caps->flags);
    if (host.error) {
        return -host.error;
    }
    caps->compat_capabilities = host.bits;
    return 0;
}

static void answer(uint32_t limit)
{
    Error *err = NULL;

    kvmppc_host_compat_init();
    ppc_host_compat_limit(&limit, &err);
    if (err) {
        puts("refused");
        g_string_free(err->text, TRUE);
        g_free(err);
    } else {
        printf("%" PRIx64 " %" PRIx32 "\n", ppc_host_compat.modes, limit);
    }
}

int main(void)
{
    char directory[256];
    uint32_t limit;

    setlinebuf(stdout);
    while (scanf("%255s %" SCNx32 " %d %d %" SCNx64 " %" SCNx32, directory,
                 &host.cpu.spapr_logical_pvr, &host.extension, &host.error,
                 &host.bits, &limit) == 6) {
        if (chdir(directory)) {
            perror(directory);
            return EXIT_FAILURE;
        }
        answer(limit);
    }
    return EXIT_SUCCESS;
}
