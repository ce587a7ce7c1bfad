/*
 * The libc functions that the simulated /dev/kvm replaces, and the table of the
 * ioctls that it handles.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>
#include "kvmsim.h"

#define MAX_FD 65536
#define ANY UINT64_MAX

static struct {
    FileKind kind;
    Vcpu *vcpu;
} files[MAX_FD];

pthread_mutex_t sim_lock = PTHREAD_MUTEX_INITIALIZER;
uint32_t host_pvr;

static FILE *trace;
static __thread char note[256];

void sim_note(const char *format, ...)
{
    size_t used = strlen(note);
    va_list ap;

    if (trace) {
        va_start(ap, format);
        vsnprintf(note + used, sizeof(note) - used, format, ap);
        va_end(ap);
    }
}

bool sim_trace_to(const char *path)
{
    trace = fopen(path, "we");
    if (trace) {
        setvbuf(trace, NULL, _IOLBF, 0);
    }
    return trace;
}

void sim_trace(const char *format, ...)
{
    va_list ap;

    if (trace) {
        va_start(ap, format);
        vfprintf(trace, format, ap);
        va_end(ap);
        fputc('\n', trace);
    }
}

static int new_file(FileKind kind)
{
    /* a memfd, so that mmap() of a vCPU works without a replacement */
    int fd = memfd_create("kvmsim", MFD_CLOEXEC);

    if (fd < 0 || fd >= MAX_FD || ftruncate(fd, RUN_SIZE)) {
        fprintf(stderr, "kvmsim: cannot make a file: %s\n", strerror(errno));
        exit(EXIT_FAILURE);
    }
    files[fd].kind = kind;
    return fd;
}

static long create_vm(Vcpu *vcpu, void *arg)
{
    long type = (long)arg;      /* 0: any, 1: HV, 2: PR */

    sim_note(" type %ld", type);
    if (type && type != (kernel.pr ? 2 : 1)) {
        return -EINVAL;
    }
    return new_file(VM);
}

static long create_vcpu(Vcpu *vcpu, void *arg)
{
    int fd = new_file(VCPU);
    void *run = mmap(NULL, RUN_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

    sim_note(" id %ld", (long)arg);
    if (run == MAP_FAILED) {
        return -errno;
    }
    files[fd].vcpu = vcpu_new((long)arg, run);
    return fd;
}

/* The guest never adds an entry to its hash table, so the file is empty. */
static long htab_fd(Vcpu *vcpu, void *arg)
{
    return memfd_create("kvmsim-htab", MFD_CLOEXEC);
}

/*
 * The ioctls; the first matching row is used, so specific rows come first.
 * SUBJECT limits a row to one register or extension, with its own counter.
 * CONSTANT always answers VALUE: 0 if the ioctl has no visible effect on a
 * simulated guest, and -ENOTTY if the kernel does not have it.
 */
static struct {
    FileKind on;
    uint32_t request;
    uint64_t subject;
    Handler *answer;
    const char *name;
    long value;                 /* without ANSWER */
    unsigned long count;
} calls[] = {
#define ROW(on, request, answer) { on, request, ANY, answer, #request, 0, 0 }
#define CONSTANT(on, request, value) \
    { on, request, ANY, NULL, #request, value, 0 }
#define SUBJECT(on, request, subject, answer, name) \
    { on, request, subject, answer, #request ":" name, 0, 0 }
    SUBJECT(VCPU, KVM_SET_ONE_REG, KVM_REG_PPC_ARCH_COMPAT, vcpu_set_compat,
            "ARCH_COMPAT"),
    SUBJECT(VCPU, KVM_SET_ONE_REG, KVM_REG_PPC_TB_OFFSET, vcpu_set_reg,
            "TB_OFFSET"),
    SUBJECT(VM, KVM_CHECK_EXTENSION, KVM_CAP_PPC_COMPAT_CAPS,
            vm_check_extension, "PPC_COMPAT_CAPS"),
    SUBJECT(SYSTEM, KVM_CHECK_EXTENSION, KVM_CAP_PPC_COMPAT_CAPS,
            vm_check_extension, "PPC_COMPAT_CAPS"),
    CONSTANT(SYSTEM, KVM_GET_API_VERSION, KVM_API_VERSION),
    CONSTANT(SYSTEM, KVM_GET_VCPU_MMAP_SIZE, RUN_SIZE),
    ROW(SYSTEM, KVM_CREATE_VM, create_vm),
    ROW(SYSTEM, KVM_CHECK_EXTENSION, vm_check_extension),
    ROW(VM, KVM_CHECK_EXTENSION, vm_check_extension),
    ROW(VM, KVM_CREATE_VCPU, create_vcpu),
    ROW(VM, KVM_ENABLE_CAP, vm_enable_cap),
    ROW(VM, KVM_SET_USER_MEMORY_REGION, vm_memory_region),
    /* a simulated guest writes no memory, so that no page is ever dirty */
    CONSTANT(VM, KVM_GET_DIRTY_LOG, 0),
    ROW(VM, KVM_PPC_GET_SMMU_INFO, vm_smmu_info),
    ROW(VM, KVM_PPC_GET_RMMU_INFO, vm_rmmu_info),
    ROW(VM, KVM_PPC_GET_CPU_CHAR, vm_cpu_char),
    ROW(VM, KVM_PPC_GET_PVINFO, vm_pvinfo),
    ROW(VM, KVM_PPC_ALLOCATE_HTAB, vm_allocate_htab),
    ROW(VM, KVM_PPC_GET_COMPAT_CAPS, vm_compat_caps),
    ROW(VM, KVM_PPC_GET_HTAB_FD, htab_fd),
    CONSTANT(VM, KVM_PPC_CONFIGURE_V3_MMU, 0),
    CONSTANT(VM, KVM_IOEVENTFD, 0),
    CONSTANT(VM, KVM_PPC_SVM_OFF, -ENOTTY),
    CONSTANT(VCPU, KVM_GET_STATS_FD, -ENOTTY),
    ROW(VCPU, KVM_RUN, vcpu_run),
    ROW(VCPU, KVM_ENABLE_CAP, vcpu_enable_cap),
    ROW(VCPU, KVM_GET_REGS, vcpu_get_regs),
    ROW(VCPU, KVM_SET_REGS, vcpu_set_regs),
    ROW(VCPU, KVM_GET_SREGS, vcpu_get_sregs),
    ROW(VCPU, KVM_SET_SREGS, vcpu_set_sregs),
    ROW(VCPU, KVM_GET_ONE_REG, vcpu_get_reg),
    ROW(VCPU, KVM_SET_ONE_REG, vcpu_set_reg),
    CONSTANT(VCPU, KVM_SET_SIGNAL_MASK, 0),
    CONSTANT(VCPU, KVM_INTERRUPT, 0),
#undef ROW
#undef CONSTANT
#undef SUBJECT
};

void sim_counts(FILE *out)
{
    for (size_t i = 0; i < COUNT(calls); i++) {
        if (calls[i].count) {
            fprintf(out, "%s=%lu ", calls[i].name, calls[i].count);
            calls[i].count = 0;
        }
    }
}

static uint64_t subject_of(uint32_t request, const void *arg)
{
    const struct kvm_one_reg *reg = arg;

    switch (request) {
    case KVM_SET_ONE_REG:
        return reg->id;
    case KVM_CHECK_EXTENSION:
        return (uint64_t)arg;
    default:
        return ANY;
    }
}

/* The name of a file in the trace: vm, vcpu 3 */
static const char *who(int fd)
{
    static const char *kinds[] = { "", "kvm", "vm", "vcpu" };
    static char name[32];
    const Vcpu *vcpu = files[fd].vcpu;

    snprintf(name, sizeof(name), vcpu ? "%s %d" : "%s", kinds[files[fd].kind],
             vcpu ? vcpu->id : 0);
    return name;
}

static void trace_call(int fd, const char *call, long ret)
{
    if (trace && ret < 0) {
        sim_trace("%s %s%s: %s", who(fd), call, note, strerrorname_np(-ret));
    } else if (trace) {
        sim_trace("%s %s%s = %ld", who(fd), call, note, ret);
    }
}

static long answer(int fd, uint32_t request, void *arg)
{
    uint64_t subject = subject_of(request, arg);
    FileKind kind = files[fd].kind;
    long ret;

    for (size_t i = 0; i < COUNT(calls); i++) {
        if (calls[i].on != kind || calls[i].request != request ||
            (calls[i].subject != ANY && calls[i].subject != subject)) {
            continue;
        }
        calls[i].count++;
        note[0] = '\0';
        ret = calls[i].answer ? calls[i].answer(files[fd].vcpu, arg)
                              : calls[i].value;
        trace_call(fd, calls[i].name, ret);
        return ret;
    }
    sim_trace("%s ioctl 0x%08x: NOT MODELED", who(fd), request);
    control_event("unmodeled %s ioctl 0x%08x", who(fd), request);
    return -ENOTTY;
}

/* Replace mfpvr by lis in QEMU's code: the PVR's low half is then zero */
static int set_pvr(struct dl_phdr_info *program, size_t size, void *arg)
{
    const uint32_t mfpvr = 0x7c1f42a6, lis = 0x3c000000, target = 0x1f << 21;

    for (size_t i = 0; i < program->dlpi_phnum; i++) {
        const ElfW(Phdr) *part = &program->dlpi_phdr[i];
        uint32_t *code = (void *)(program->dlpi_addr + part->p_vaddr);
        uint32_t *end = code + part->p_memsz / sizeof(*code);

        if (part->p_type != PT_LOAD || !(part->p_flags & PF_X)) {
            continue;
        }
        mprotect((void *)((uintptr_t)code & -HOST_PAGE_SIZE),
                 part->p_memsz + HOST_PAGE_SIZE,
                 PROT_READ | PROT_WRITE | PROT_EXEC);
        for (; code < end; code++) {
            if ((*code & ~target) == mfpvr) {
                *code = lis | (*code & target) | host_pvr >> 16;
            }
        }
    }
    return 1;       /* the first one is QEMU itself, the next ones are not */
}

static void __attribute__((constructor)) start(void)
{
    const char *other = getenv("KVMSIM_PVR");

    if (other) {
        host_pvr = strtoul(other, NULL, 0);
        dl_iterate_phdr(set_pvr, NULL);
    } else {
        asm("mfpvr %0" : "=r"(host_pvr));
    }
}

/* libc's NAME, which ours replaces */
#define HIDDEN(name) ((__typeof__(name) *)dlsym(RTLD_NEXT, #name))

static int open_kvm(void)
{
    int fd;

    control_start();
    pthread_mutex_lock(&sim_lock);
    fd = new_file(SYSTEM);
    pthread_mutex_unlock(&sim_lock);
    return fd;
}

#define OPEN(name)                                              \
    int name(const char *path, int flags, ...)                  \
    {                                                           \
        mode_t mode;                                            \
        va_list ap;                                             \
                                                                \
        if (!strcmp(path, "/dev/kvm")) {                        \
            return open_kvm();                                  \
        }                                                       \
        va_start(ap, flags);                                    \
        mode = va_arg(ap, mode_t);                              \
        va_end(ap);                                             \
        return HIDDEN(name)(path, flags, mode);                 \
    }

OPEN(open)
OPEN(open64)

int close(int fd)
{
    if (fd >= 0 && fd < MAX_FD) {
        files[fd].kind = NOT_OURS;
        files[fd].vcpu = NULL;
    }
    return HIDDEN(close)(fd);
}

int ioctl(int fd, unsigned long request, ...)
{
    va_list ap;
    void *arg;
    long ret;

    va_start(ap, request);
    arg = va_arg(ap, void *);
    va_end(ap);
    if (fd < 0 || fd >= MAX_FD || files[fd].kind == NOT_OURS) {
        return HIDDEN(ioctl)(fd, request, arg);
    }
    pthread_mutex_lock(&sim_lock);
    ret = answer(fd, request, arg);
    pthread_mutex_unlock(&sim_lock);
    if (ret < 0) {
        errno = -ret;
        return -1;
    }
    return ret;
}

/* QEMU asks whether the host's pages can back 64 KiB pages of the guest. */
long sysconf(int name)
{
    return name == _SC_PAGESIZE ? HOST_PAGE_SIZE : HIDDEN(sysconf)(name);
}

int getpagesize(void)
{
    return HOST_PAGE_SIZE;
}
