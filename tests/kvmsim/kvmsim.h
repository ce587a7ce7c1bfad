/*
 * A simulated /dev/kvm for ppc64le.
 *
 * A library to preload into a ppc64le QEMU under user-mode emulation.  It owns
 * /dev/kvm and answers every ioctl the way a Linux kernel with KVM HV or PR
 * does, or the way it is told to over the control socket.  No guest code runs:
 * the guest of vCPU 0 is a list of hypercalls that come over the same socket.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef KVMSIM_H
#define KVMSIM_H

#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <linux/kvm.h>

/* Newer than the headers that a cross compiler comes with. */
#ifndef KVM_CAP_PPC_COMPAT_CAPS
#define KVM_CAP_PPC_COMPAT_CAPS         250
#define KVM_PPC_GET_COMPAT_CAPS         _IO(KVMIO, 0xb8)
#define KVM_PPC_COMPAT_CAPS_SIZE_VER0   24
#endif

/* What mmap() of a vCPU gives: the kvm_run structure, alone in a page. */
#define RUN_SIZE                65536
/* The page size that QEMU sees: that of a KVM host with 64 KiB pages. */
#define HOST_PAGE_SIZE          65536

#define COUNT(array)            (sizeof(array) / sizeof(*(array)))

typedef enum { NOT_OURS, SYSTEM, VM, VCPU } FileKind;

typedef struct Reg {
    uint64_t id;
    uint8_t value[16];
} Reg;

#define REGS_PER_VCPU 512

typedef struct Vcpu {
    struct Vcpu *next;
    int id;
    struct kvm_run *run;
    struct kvm_regs regs;
    struct kvm_sregs sregs;
    Reg reg[REGS_PER_VCPU];     /* open addressing; an id of 0 is free */
    uint32_t compat;            /* the last ARCH_COMPAT accepted */
    bool sane;                  /* false: poisoned, and no valid mode since */
} Vcpu;

/* How one value of ARCH_COMPAT is refused; -1 stands for any. */
typedef struct Refusal {
    int vcpu;
    int64_t value;
    int error;
    bool poison;                /* the vCPU and its core do not run after it */
} Refusal;

typedef struct CompatCaps {
    uint64_t bits;
    int error;                  /* if not 0, fail with this errno, ... */
    int times;                  /* ... this many times; -1: always */
    int64_t size_back;          /* size to write with the error; -1: none */
} CompatCaps;

typedef struct Kernel {
    bool pr;
    CompatCaps caps;
    Refusal refusal[64];
    int refusals;
    unsigned long refused;      /* refusals since the last "refused" command */
    int threads_per_core;
} Kernel;

/* All below is read and written with sim_lock held. */
extern pthread_mutex_t sim_lock;
extern Kernel kernel;
extern Vcpu *vcpus;
extern uint32_t host_pvr;

/* A hypercall that vCPU 0 makes when it next runs */
typedef struct Guest {
    enum { NO_CALL, PENDING, CALLED, RETURNED } call;
    unsigned sequence;
    uint64_t nr, args[9];
    int doorbell;               /* an eventfd that wakes KVM_RUN */
} Guest;

extern Guest guest;

/*
 * ioctl handlers: the result or a negative errno.  sim_note() adds to what
 * the trace shows of the call.
 */
typedef long Handler(Vcpu *vcpu, void *arg);

Handler vm_check_extension, vm_enable_cap, vm_memory_region, vm_smmu_info,
        vm_rmmu_info, vm_cpu_char, vm_allocate_htab, vm_compat_caps,
        vm_pvinfo;
Handler vcpu_get_regs, vcpu_set_regs, vcpu_get_sregs, vcpu_set_sregs,
        vcpu_get_reg, vcpu_set_reg, vcpu_set_compat, vcpu_enable_cap, vcpu_run;

/* Make EXTENSION answer VALUE; false if this kernel does not know it. */
bool vm_set_extension(long extension, int value);

/* Copy LEN bytes from or to guest memory; return how many are in RAM. */
size_t vm_copy(uint64_t address, void *bytes, size_t len, bool to_guest);

Vcpu *vcpu_new(int id, struct kvm_run *run);
bool vcpu_runnable(const Vcpu *vcpu);

void sim_note(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* One line in the trace. */
void sim_trace(const char *format, ...) __attribute__((format(printf, 1, 2)));
bool sim_trace_to(const char *path);
/* Write each counter that is not 0 to OUT, and reset it. */
void sim_counts(FILE *out);

/* Read the settings from the control socket, then listen to it; not locked. */
void control_start(void);
/* Tell the runner something that it did not ask for. */
void control_event(const char *format, ...)
    __attribute__((format(printf, 1, 2)));

#endif
