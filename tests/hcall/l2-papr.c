/*
 * A guest of the nested PAPR API (v2)
 *
 * Copyright (c) 2026 QEMU contributors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "l2.h"

#define H_RPT_INVALIDATE        0x448
#define ALL_CPUS                1
#define NESTED                  1
#define TLB                     2

#define H_GUEST_CREATE_VCPU     0x474
#define H_GUEST_RUN_VCPU        0x480

/* Elements of the guest state buffer */
#define TB_OFFSET               0x0004
#define PARTITION_TABLE         0x0005
#define PROCESS_TABLE           0x0006
#define INPUT_BUFFER            0x0c00
#define OUTPUT_BUFFER           0x0c01
#define VPA                     0x0c02
#define GPR3                    0x1003
#define HDEC_EXPIRY             0x1020
#define NIA                     0x1021
#define MSR                     0x1022
#define DEC_EXPIRY              0x102a
#define VTB                     0x102b
#define LPCR                    0x102c
#define DAWR0                   0x1030
#define CIABR                   0x1032
#define PURR                    0x1033
#define SPURR                   0x1034
#define MMCR0                   0x103b
#define DPDES                   0x1053
#define DAWRX0                  0x2005
#define PMC5                    0x200b
#define HDSISR                  0xf001
#define HEIR                    0xf002

/* In MMCR0: alerts, and one when a counter but the first overflows */
#define PMAE                    (1 << 26)
#define PMC_N_CE                (1 << 14)

/* A guest state buffer */
struct buffer {
    uint32_t elements;
    uint8_t data[4092];
} __attribute__((aligned(4096)));

static struct buffer set, in, out;
static size_t used;
static uint64_t guest;

static void copy(void *to, const void *from, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        /* the analyzer loses sight of the bytes of a wider type */
        /* NOLINTNEXTLINE(clang-analyzer-core.uninitialized.Assign) */
        ((uint8_t *)to)[i] = ((const uint8_t *)from)[i];
    }
}

static void add(uint16_t id, uint16_t size, const void *value)
{
    uint16_t head[2] = { id, size };

    copy(set.data + used, head, sizeof(head));
    copy(set.data + used + sizeof(head), value, size);
    used += sizeof(head) + size;
    set.elements++;
}

static void add_one(uint16_t id, uint64_t value)
{
    add(id, sizeof(value), &value);
}

static void add_word(uint16_t id, uint32_t value)
{
    add(id, sizeof(value), &value);
}

static void empty(void)
{
    set.elements = 0;
    used = 0;
}

static void set_state(uint64_t flags)
{
    hcall(H_GUEST_SET_STATE, flags, guest, 0, (uintptr_t)&set, sizeof(set));
    empty();
}

void shift_timebase(uint64_t ticks)
{
    add_one(TB_OFFSET, ticks);
    set_state(GUEST_WIDE);
}

void set_counters(uint64_t value)
{
    add_one(PURR, value);
    add_one(SPURR, value);
    add_one(VTB, value);
    set_state(0);
}

void count_instructions(uint32_t instructions)
{
    add_one(MMCR0, PMAE | PMC_N_CE);
    add_word(PMC5, (1U << 31) - instructions);
    set_state(0);
}

bool l2_is_known(void)
{
    int64_t result;

    add_one(GPR3, 0);
    result = hcall(H_GUEST_GET_STATE, 0, guest, 0, (uintptr_t)&set,
                   sizeof(set));
    empty();
    return !result;
}

/* The value of element ID in BUFFER, or -1 */
static uint64_t find(const struct buffer *buffer, uint16_t id)
{
    const uint8_t *at = buffer->data;

    for (uint32_t i = 0; i < buffer->elements; i++) {
        uint16_t head[2];
        uint64_t value = 0;

        copy(head, at, sizeof(head));
        at += sizeof(head);
        if (head[0] == id) {
            for (size_t byte = 0; byte < head[1]; byte++) {
                value = value << 8 | at[byte];
            }
            return value;
        }
        at += head[1];
    }
    return -1;
}

static uint64_t get(uint16_t id)
{
    uint64_t value;

    add_one(id, 0);
    hcall(H_GUEST_GET_STATE, 0, guest, 0, (uintptr_t)&set, sizeof(set));
    value = find(&set, id);
    empty();
    return value;
}

void create_l2(const uint64_t *roots, uint64_t processes)
{
    const uint64_t tree[] = { (uintptr_t)roots, 52, 1 << 16 };
    const uint64_t table[] = { processes, 4096 };
    const uint64_t input[] = { (uintptr_t)&in, sizeof(in) };
    const uint64_t output[] = { (uintptr_t)&out, sizeof(out) };

    guest = create_guest();
    add(PARTITION_TABLE, sizeof(tree), tree);
    add(PROCESS_TABLE, sizeof(table), table);
    set_state(GUEST_WIDE);
    hcall(H_GUEST_CREATE_VCPU, 0, guest, 0, 0, 0);
    add(INPUT_BUFFER, sizeof(input), input);
    add(OUTPUT_BUFFER, sizeof(output), output);
    set_state(0);
}

uint64_t enter_l2(const struct entry *entry)
{
    add_one(NIA, entry->nia);
    add_one(MSR, entry->msr);
    add_one(LPCR, entry->lpcr);
    add_one(DEC_EXPIRY, entry->dec);
    add_one(HDEC_EXPIRY, entry->hdec);
    add_one(DPDES, entry->dpdes);
    add_one(CIABR, entry->ciabr);
    add_one(DAWR0, entry->dawr);
    add_word(DAWRX0, entry->dawrx);
    set_state(0);
    hcall(H_GUEST_RUN_VCPU, 0, guest, 0, 0, 0);
    return r4;
}

static int64_t invalidate(uint64_t id, uint64_t type)
{
    uint64_t r[] = { H_RPT_INVALIDATE, id, ALL_CPUS, type, -1, 0, -1 };

    call(r);
    return r[0];
}

int64_t invalidate_l2(void)
{
    return invalidate(guest, NESTED | TLB);
}

int64_t invalidate_own(void)
{
    return invalidate(0, TLB);
}

uint64_t l2_gpr3(void)
{
    return get(GPR3);
}

uint64_t l2_dec(void)
{
    return get(DEC_EXPIRY);
}

uint64_t l2_dpdes(void)
{
    return get(DPDES);
}

/* Only the output buffer has those of the interrupt that caused the exit */
uint64_t l2_hdsisr(void)
{
    return find(&out, HDSISR);
}

uint64_t l2_heir(void)
{
    return find(&out, HEIR);
}

uint64_t l2_purr(void)
{
    return get(PURR);
}

uint64_t l2_spurr(void)
{
    return get(SPURR);
}

uint64_t l2_vtb(void)
{
    return get(VTB);
}

uint64_t l2_vpa(uint64_t area)
{
    add_one(VPA, area);
    set_state(0);
    return get(VPA);
}
