/*
 * The simulated kernel's system and VM ioctls.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <errno.h>
#include <string.h>
#include "kvmsim.h"

Kernel kernel = {
    .caps = { .size_back = -1 },
    .threads_per_core = 1,
};

#define SLOTS 512

static struct kvm_userspace_memory_region slots[SLOTS];

/*
 * What KVM_CHECK_EXTENSION answers on HV and on PR.  Extensions that are not
 * here are 0, as in a kernel that does not know them.
 */
static struct Extension {
    long number;
    const char *name;
    int hv, pr;
} extensions[] = {
#define ROW(name, hv, pr) { KVM_CAP_##name, #name, hv, pr }
    ROW(USER_MEMORY, 1, 1),
    ROW(NR_VCPUS, 2048, 2048),
    ROW(NR_MEMSLOTS, SLOTS, SLOTS),
    ROW(SYNC_MMU, 1, 1),
    ROW(DESTROY_MEMORY_REGION_WORKS, 1, 1),
    ROW(JOIN_MEMORY_REGIONS_WORKS, 1, 1),
    ROW(INTERNAL_ERROR_DATA, 1, 1),
    ROW(IOEVENTFD, 1, 1),
    ROW(IOEVENTFD_ANY_LENGTH, 1, 1),
    ROW(PPC_SEGSTATE, 1, 1),
    ROW(PPC_UNSET_IRQ, 1, 1),
    ROW(PPC_GET_PVINFO, 0, 1),
    ROW(PPC_IRQ_LEVEL, 1, 1),
    ROW(ENABLE_CAP, 1, 1),
    ROW(ENABLE_CAP_VM, 1, 1),
    ROW(PPC_SMT, 1, 0),
    ROW(PPC_SMT_POSSIBLE, 1 | 2 | 4 | 8, 0),
    ROW(MAX_VCPUS, 2048, 2048),
    ROW(MAX_VCPU_ID, 16384, 16384),
    ROW(PPC_HIOR, 1, 1),
    ROW(PPC_PAPR, 1, 1),
    ROW(ONE_REG, 1, 1),
    ROW(PPC_GET_SMMU_INFO, 1, 1),
    ROW(PPC_ALLOC_HTAB, 1, 0),
    ROW(PPC_HTAB_FD, 1, 0),
    ROW(PPC_FIXUP_HCALL, 1, 1),
    ROW(PPC_ENABLE_HCALL, 1, 1),
    ROW(PPC_MMU_RADIX, 1, 0),
    ROW(PPC_MMU_HASH_V3, 1, 0),
    ROW(IMMEDIATE_EXIT, 1, 1),
    ROW(PPC_FWNMI, 1, 0),
    ROW(PPC_GET_CPU_CHAR, 1, 1),
    ROW(PPC_NESTED_HV, 1, 0),
    ROW(PPC_RPT_INVALIDATE, 1, 0),
    ROW(PPC_DAWR1, 1, 0),
    ROW(PPC_AIL_MODE_3, 1, 1),
    ROW(PPC_COMPAT_CAPS, 0, 0),
#undef ROW
};

static struct Extension *find_extension(long number)
{
    for (size_t i = 0; i < COUNT(extensions); i++) {
        if (extensions[i].number == number) {
            return &extensions[i];
        }
    }
    return NULL;
}

bool vm_set_extension(long extension, int value)
{
    struct Extension *found = find_extension(extension);

    if (found) {
        found->hv = found->pr = value;
    }
    return found;
}

long vm_check_extension(Vcpu *vcpu, void *arg)
{
    const struct Extension *found = find_extension((long)arg);

    if (!found) {
        sim_note(" %ld", (long)arg);
        return 0;
    }
    sim_note(" %s", found->name);
    return kernel.pr ? found->pr : found->hv;
}

/* Answer a KVM_ENABLE_CAP for an extension that the VM or vCPU has. */
static long enable(const struct kvm_enable_cap *cap, const uint32_t *modeled)
{
    long has = vm_check_extension(NULL, (void *)(uintptr_t)cap->cap);

    sim_note(" 0x%lx", (long)cap->args[0]);
    for (; *modeled; modeled++) {
        if (*modeled == cap->cap) {
            return has ? 0 : -EINVAL;
        }
    }
    control_event("unmodeled KVM_ENABLE_CAP %u", cap->cap);
    return -EINVAL;
}

long vm_enable_cap(Vcpu *vcpu, void *arg)
{
    static const uint32_t modeled[] = {
        KVM_CAP_PPC_ENABLE_HCALL, KVM_CAP_PPC_SMT, KVM_CAP_PPC_NESTED_HV,
        KVM_CAP_PPC_DAWR1, KVM_CAP_PPC_AIL_MODE_3, 0
    };
    struct kvm_enable_cap *cap = arg;
    long ret = enable(cap, modeled);

    if (!ret && cap->cap == KVM_CAP_PPC_SMT) {
        kernel.threads_per_core = cap->args[0];
    }
    return ret;
}

long vcpu_enable_cap(Vcpu *vcpu, void *arg)
{
    static const uint32_t modeled[] = {
        KVM_CAP_PPC_PAPR, KVM_CAP_PPC_FWNMI, KVM_CAP_PPC_HIOR, 0
    };

    return enable(arg, modeled);
}

long vm_memory_region(Vcpu *vcpu, void *arg)
{
    struct kvm_userspace_memory_region *region = arg;

    sim_note(" slot %u at 0x%lx size 0x%lx", region->slot,
             region->guest_phys_addr, region->memory_size);
    if (region->slot >= SLOTS) {
        return -EINVAL;
    }
    slots[region->slot] = *region;
    return 0;
}

size_t vm_copy(uint64_t address, void *bytes, size_t len, bool to_guest)
{
    for (size_t i = 0; i < SLOTS; i++) {
        uint64_t at = address - slots[i].guest_phys_addr;

        if (address >= slots[i].guest_phys_addr && at < slots[i].memory_size) {
            void *ram = (void *)(uintptr_t)(slots[i].userspace_addr + at);

            if (len > slots[i].memory_size - at) {
                len = slots[i].memory_size - at;
            }
            memcpy(to_guest ? ram : bytes, to_guest ? bytes : ram, len);
            return len;
        }
    }
    return 0;
}

/* The page sizes of a hash MMU since POWER5+, with 64 KiB pages. */
long vm_smmu_info(Vcpu *vcpu, void *arg)
{
    *(struct kvm_ppc_smmu_info *)arg = (struct kvm_ppc_smmu_info) {
        .flags = KVM_PPC_PAGE_SIZES_REAL | KVM_PPC_1T_SEGMENTS,
        .slb_size = 32,
        .sps = {
            { .page_shift = 12, .slb_enc = 0,
              .enc = { { 12, 0 }, { 16, 7 }, { 24, 0x38 } } },
            { .page_shift = 16, .slb_enc = 0x110,
              .enc = { { 16, 1 }, { 24, 8 } } },
            { .page_shift = 24, .slb_enc = 0x100, .enc = { { 24, 0 } } },
            { .page_shift = 34, .slb_enc = 0x120, .enc = { { 34, 3 } } },
        },
    };
    return 0;
}

/* The page sizes of a radix MMU: AP value in the top 3 bits, then shift. */
long vm_rmmu_info(Vcpu *vcpu, void *arg)
{
    *(struct kvm_ppc_rmmu_info *)arg = (struct kvm_ppc_rmmu_info) {
        .ap_encodings = {
            0u << 29 | 12, 5u << 29 | 16, 1u << 29 | 21, 2u << 29 | 30
        },
    };
    return 0;
}

/* A host that has every mitigation there is. */
long vm_cpu_char(Vcpu *vcpu, void *arg)
{
    memset(arg, 0xff, sizeof(struct kvm_ppc_cpu_char));
    return 0;
}

long vm_pvinfo(Vcpu *vcpu, void *arg)
{
    memset(arg, 0, sizeof(struct kvm_ppc_pvinfo));
    return kernel.pr ? 0 : -EINVAL;
}

long vm_allocate_htab(Vcpu *vcpu, void *arg)
{
    sim_note(" order %u", *(uint32_t *)arg);
    return kernel.pr ? -ENOTTY : 0;
}

long vm_compat_caps(Vcpu *vcpu, void *arg)
{
    struct { uint64_t size, flags, bits; } *caller = arg;
    CompatCaps *caps = &kernel.caps;
    uint64_t size = caller ? caller->size : 0;

    sim_note(" size %lu flags 0x%lx", (long)size,
             caller ? (long)caller->flags : 0);
    if (!caller) {
        return -EFAULT;
    }
    /* also by a call that fails then */
    caller->bits = caps->bits;
    if (caps->error && caps->times) {
        caps->times -= caps->times > 0;
        if (caps->size_back >= 0) {
            caller->size = caps->size_back;
            sim_note(" size back %ld", (long)caps->size_back);
        }
        return -caps->error;
    }
    /* a kernel accepts a larger size, too, but no QEMU passes one */
    if (size != KVM_PPC_COMPAT_CAPS_SIZE_VER0 || caller->flags) {
        return -EINVAL;
    }
    sim_note(" bits 0x%lx", (long)caps->bits);
    return 0;
}
