/*
 * The simulated kernel's vCPU ioctls, and the guest that runs on vCPU 0.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "kvmsim.h"

Vcpu *vcpus;
Guest guest;

Vcpu *vcpu_new(int id, struct kvm_run *run)
{
    Vcpu *vcpu = calloc(1, sizeof(*vcpu)), **last;

    if (!vcpu) {
        abort();
    }
    vcpu->id = id;
    vcpu->run = run;
    vcpu->sane = true;
    vcpu->sregs.pvr = host_pvr;
    for (last = &vcpus; *last; last = &(*last)->next) {
    }
    *last = vcpu;
    return vcpu;
}

/* A refusal with poison stops the core until each thread has a valid mode. */
bool vcpu_runnable(const Vcpu *vcpu)
{
    int core = vcpu->id / kernel.threads_per_core;

    for (const Vcpu *other = vcpus; other; other = other->next) {
        if (!other->sane && other->id / kernel.threads_per_core == core) {
            return false;
        }
    }
    return true;
}

long vcpu_get_regs(Vcpu *vcpu, void *arg)
{
    memcpy(arg, &vcpu->regs, sizeof(vcpu->regs));
    return 0;
}

long vcpu_set_regs(Vcpu *vcpu, void *arg)
{
    memcpy(&vcpu->regs, arg, sizeof(vcpu->regs));
    return 0;
}

long vcpu_get_sregs(Vcpu *vcpu, void *arg)
{
    memcpy(arg, &vcpu->sregs, sizeof(vcpu->sregs));
    return 0;
}

/* HV supports only the host's CPU. */
long vcpu_set_sregs(Vcpu *vcpu, void *arg)
{
    struct kvm_sregs *sregs = arg;

    sim_note(" pvr 0x%08x", sregs->pvr);
    if (!kernel.pr && sregs->pvr != host_pvr) {
        return -EINVAL;
    }
    memcpy(&vcpu->sregs, sregs, sizeof(*sregs));
    return 0;
}

/* How many bytes ID has, or 0 if it is not a register of this architecture */
static size_t reg_size(uint64_t id)
{
    size_t size = 1ul << ((id & KVM_REG_SIZE_MASK) >> KVM_REG_SIZE_SHIFT);

    if ((id & KVM_REG_ARCH_MASK) != KVM_REG_PPC ||
        size > sizeof(((Reg *)0)->value)) {
        control_event("unmodeled register 0x%016lx", (long)id);
        return 0;
    }
    return size;
}

static Reg *find_reg(Vcpu *vcpu, uint64_t id)
{
    uint64_t hash = (id ^ id >> 16) * 0x9e3779b1;

    for (unsigned i = 0; i < REGS_PER_VCPU; i++) {
        Reg *reg = &vcpu->reg[(hash + i) % REGS_PER_VCPU];

        if (!reg->id || reg->id == id) {
            reg->id = id;
            return reg;
        }
    }
    abort();
}

static long copy_reg(Vcpu *vcpu, const struct kvm_one_reg *one, bool set)
{
    size_t size = reg_size(one->id);
    void *theirs = (void *)(uintptr_t)one->addr;
    void *ours;

    sim_note(" 0x%016lx", (long)one->id);
    if (!size) {
        return -EINVAL;
    }
    /* Debian's QEMU passes a member of a null structure when it plugs a vCPU */
    if (one->addr < HOST_PAGE_SIZE) {
        return -EFAULT;
    }
    ours = find_reg(vcpu, one->id)->value;
    memcpy(set ? ours : theirs, set ? theirs : ours, size);
    return 0;
}

long vcpu_get_reg(Vcpu *vcpu, void *arg)
{
    return copy_reg(vcpu, arg, false);
}

long vcpu_set_reg(Vcpu *vcpu, void *arg)
{
    return copy_reg(vcpu, arg, true);
}

static const Refusal *find_refusal(const Vcpu *vcpu, uint32_t value)
{
    for (int i = 0; i < kernel.refusals; i++) {
        const Refusal *refusal = &kernel.refusal[i];

        if ((refusal->vcpu < 0 || refusal->vcpu == vcpu->id) &&
            (refusal->value < 0 || refusal->value == value)) {
            return refusal;
        }
    }
    return NULL;
}

/* PR has no modes at all; HV has those that the scenario does not refuse. */
long vcpu_set_compat(Vcpu *vcpu, void *arg)
{
    struct kvm_one_reg *one = arg;
    const Refusal *refusal;
    uint32_t value;

    memcpy(&value, (void *)(uintptr_t)one->addr, sizeof(value));
    sim_note(" 0x%08x", value);
    if (kernel.pr) {
        return -EINVAL;
    }
    refusal = find_refusal(vcpu, value);
    if (refusal) {
        vcpu->sane = vcpu->sane && !refusal->poison;
        kernel.refused++;
        return -refusal->error;
    }
    vcpu->sane = true;
    vcpu->compat = value;
    memcpy(find_reg(vcpu, one->id)->value, &value, sizeof(value));
    return 0;
}

static void deliver_hypercall(struct kvm_run *run)
{
    run->exit_reason = KVM_EXIT_PAPR_HCALL;
    run->papr_hcall.nr = guest.nr;
    run->papr_hcall.ret = INT64_MIN;    /* no hypercall answers that */
    memcpy(run->papr_hcall.args, guest.args, sizeof(guest.args));
    guest.call = CALLED;
    sim_trace("guest hypercall 0x%lx", (long)guest.nr);
}

/*
 * Sleep until the doorbell rings or QEMU kicks the vCPU.  The kick is a signal
 * whose handler sets immediate_exit.  Block signals from the check of
 * immediate_exit until ppoll() waits: a kick in between would be lost.
 * Return whether it was the doorbell.
 */
static bool wait_for_work(Vcpu *vcpu)
{
    struct pollfd doorbell = { .fd = guest.doorbell, .events = POLLIN };
    sigset_t all, old;
    uint64_t rings;
    int ready = -1;

    pthread_mutex_unlock(&sim_lock);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    if (!vcpu->run->immediate_exit) {
        ready = ppoll(&doorbell, vcpu->id == 0, NULL, &old);
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_mutex_lock(&sim_lock);
    /* NOLINTNEXTLINE(clang-analyzer-unix.BlockInCriticalSection): it does not */
    return ready > 0 && read(guest.doorbell, &rings, sizeof(rings)) >= 0;
}

long vcpu_run(Vcpu *vcpu, void *arg)
{
    if (!vcpu_runnable(vcpu)) {
        return -EINVAL;
    }
    while (!vcpu->run->immediate_exit) {
        if (vcpu->id == 0 && guest.call == PENDING) {
            deliver_hypercall(vcpu->run);
            return 0;
        }
        if (vcpu->id == 0 && guest.call == CALLED) {
            guest.call = RETURNED;
            sim_trace("guest hypercall 0x%lx returned %ld", (long)guest.nr,
                      (long)vcpu->run->papr_hcall.ret);
            control_event("idle %u", guest.sequence);
        }
        if (!wait_for_work(vcpu)) {
            break;
        }
    }
    return -EINTR;
}
