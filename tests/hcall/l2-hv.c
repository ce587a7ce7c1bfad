/*
 * A guest of the nested KVM HV API (v1)
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "l2.h"

#define H_SET_PARTITION_TABLE   0xf800
#define H_ENTER_NESTED          0xf804
#define H_TLB_INVALIDATE        0xf808

#define H_NOT_AVAILABLE         3
#define H_P2                    (-55)
#define NO_MEMORY               (1ULL << 50)

#define HOST_RADIX              (1ULL << 63)
#define ROOT_OF_13_BITS         13
/* The hypervisor must keep it */
#define TOKEN                   0x12345678

static struct {
    uint64_t version;
    uint32_t lpid;
    uint32_t vcpu_token;
    uint64_t lpcr;
    uint64_t pcr;
    uint64_t amor;
    uint64_t dpdes;
    uint64_t hfscr;
    uint64_t tb_offset;
    uint64_t dawr[2];
    uint64_t ciabr;
    uint64_t hdec;
    uint64_t purr;
    uint64_t spurr;
    uint64_t ic;
    uint64_t vtb;
    uint64_t hdar;
    uint64_t hdsisr;
    uint64_t heir;
    uint64_t others[10];
    uint64_t second_dawr[2];
    uint64_t reserved;
} hypervisor __attribute__((aligned(4096)));

static struct {
    uint64_t gpr[32];
    uint64_t nia;
    uint64_t msr;
    uint64_t others[10];
} guest __attribute__((aligned(4096)));

static uint64_t partitions[1 << 9] __attribute__((aligned(1 << 12)));

/* Some versions of QEMU use the byte order of their host */
static bool swapped;

static uint64_t swap(uint64_t value)
{
    return swapped ? __builtin_bswap64(value) : value;
}

void create_l2(const uint64_t *roots, uint64_t processes)
{
    partitions[2] = HOST_RADIX | TREE_OF_52_BITS | (uintptr_t)roots |
                    ROOT_OF_13_BITS;
    partitions[3] = processes;
    hcall(H_SET_PARTITION_TABLE, (uintptr_t)partitions, 0, 0, 0, 0);
    hypervisor.version = 1;
    hypervisor.lpid = 1;
    hypervisor.vcpu_token = TOKEN;
    swapped = hcall(H_ENTER_NESTED, (uintptr_t)&hypervisor, NO_MEMORY, 0, 0,
                    0) != H_P2;
    hypervisor.lpid = swapped ? __builtin_bswap32(1) : 1;
    /* a watchpoint that version 1 does not have */
    l2_set(L2_DAWR1, 0x200008);
    l2_set(L2_DAWRX1, 0x42);
    hypervisor.version = swap(1);
}

/* Only its partition table */
bool l2_is_known(void)
{
    return hcall(H_ENTER_NESTED, (uintptr_t)&hypervisor, NO_MEMORY, 0, 0,
                 0) != H_NOT_AVAILABLE;
}

/* The guest inherits the partition's 32-bit decrementer */
static uint64_t expiry;

static uint64_t *const states[L2_STATES] = {
    [L2_GPR3] = &guest.gpr[3], [L2_NIA] = &guest.nia, [L2_MSR] = &guest.msr,
    [L2_LPCR] = &hypervisor.lpcr, [L2_DPDES] = &hypervisor.dpdes,
    [L2_CIABR] = &hypervisor.ciabr, [L2_DAWR0] = &hypervisor.dawr[0],
    [L2_DAWRX0] = &hypervisor.dawr[1], [L2_PURR] = &hypervisor.purr,
    [L2_SPURR] = &hypervisor.spurr, [L2_VTB] = &hypervisor.vtb,
    [L2_TB_OFFSET] = &hypervisor.tb_offset, [L2_DEC] = &expiry,
    [L2_HDEC] = &hypervisor.hdec, [L2_HDSISR] = &hypervisor.hdsisr,
    [L2_HEIR] = &hypervisor.heir, [L2_DAWR1] = &hypervisor.second_dawr[0],
    [L2_DAWRX1] = &hypervisor.second_dawr[1],
};

void l2_set(enum l2_state what, uint64_t value)
{
    *states[what] = swap(value);
    if (what == L2_DAWR1) {
        hypervisor.version = swap(2);
    }
}

uint64_t l2_get(enum l2_state what)
{
    return swap(*states[what]);
}

uint64_t enter_l2(void)
{
    uint64_t vector, ticks = swap(expiry) - timebase();

    __asm__ volatile("mtdec %0" : :
                     "r"(ticks < INT32_MAX ? ticks : INT32_MAX));
    vector = hcall(H_ENTER_NESTED, (uintptr_t)&hypervisor, (uintptr_t)&guest, 0,
                  0, 0);
    return hypervisor.vcpu_token == TOKEN ? vector : 0;
}

int64_t invalidate_l2(void)
{
    uint64_t r[7] = { H_TLB_INVALIDATE };

    call(r);
    return r[0];
}

int64_t invalidate_own(void)
{
    return invalidate_l2();
}
