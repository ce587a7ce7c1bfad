/*
 * A partition of a few instructions that runs a guest of even fewer
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * For each case from FIRST on it enters the guest once, by the nested PAPR API,
 * and prints why the guest left and what else the case shows: "RUN CASE TRAP
 * VALUE".  Before it all it enters one whose time ends, so that HDEC is one
 * that has expired.
 */

#include "partition.h"

#define H_CPPR                  0x068
#define H_IPI                   0x06c
#define H_GUEST_CREATE_VCPU     0x474
#define H_GUEST_RUN_VCPU        0x480

/* Elements of the guest state buffer */
#define PARTITION_TABLE         0x0005
#define PROCESS_TABLE           0x0006
#define INPUT_BUFFER            0x0c00
#define OUTPUT_BUFFER           0x0c01
#define GPR3                    0x1003
#define HDEC_EXPIRY             0x1020
#define NIA                     0x1021
#define MSR                     0x1022
#define DEC_EXPIRY              0x102a
#define LPCR                    0x102c
#define HDSISR                  0xf001

#define MSR_SF                  (1ULL << 63)
#define MSR_EE                  0x8000ULL
#define MSR_IR                  0x20ULL
#define LPCR_LD                 (1ULL << 17)
#define LPCR_MER                (1ULL << 11)

#define PTE_VALID               (1ULL << 63)
#define PTE_LEAF                (1ULL << 62)
#define PTE_R                   0x100ULL
#define PTE_C                   0x080ULL
#define PTE_RWX                 7ULL

#ifndef FIRST
#define FIRST                   0
#endif

#define GIB                     (1ULL << 30)
#define RUN_TICKS               (1ULL << 25)
#define FAR_TICKS               (1ULL << 40)

/* The guest: what it does, and its interrupts, which call its hypervisor */
__asm__(
    ".section .start, \"ax\"\n"
    ".org 0x500\n"
    "   li      3, 0x500\n"
    "   sc      1\n"
    ".org 0x900\n"
    "   li      3, 0x900\n"
    "   sc      1\n"
    ".org 0xa00\n"
    "enable:\n"
    "   li      9, 0\n"
    "   ori     9, 9, 0x8000\n"
    "   mtmsrd  9, 1\n"
    "   b       spin\n"
    "change:\n"
    "   li      9, 1\n"
    "   sldi    9, 9, 31\n"
    "   ld      10, 0x100(9)\n"
    "   std     10, 0x100(9)\n"
    "spin:\n"
    "   b       spin\n"
    ".previous\n");

extern const char enable[], change[], spin[];

static uint64_t roots[1 << 13] __attribute__((aligned(1 << 16)));
static uint64_t pages[1 << 9] __attribute__((aligned(1 << 12)));

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

static void add(uint16_t id, size_t count, const uint64_t *values)
{
    uint16_t head[2] = { id, count * sizeof(*values) };

    copy(set.data + used, head, sizeof(head));
    copy(set.data + used + sizeof(head), values, head[1]);
    used += sizeof(head) + head[1];
    set.elements++;
}

static void add_one(uint16_t id, uint64_t value)
{
    add(id, 1, &value);
}

static void call_state(uint64_t flags, const char *what)
{
    int64_t result = hcall(H_GUEST_SET_STATE, flags, guest, 0,
                           (uintptr_t)&set, sizeof(set));

    if (result) {
        put_text("SET ");
        put_text(what);
        put(' ');
        put_number(result);
        put('\n');
    }
    set.elements = 0;
    used = 0;
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

static uint64_t timebase(void)
{
    uint64_t tb;

    __asm__ volatile("mftb %0" : "=r"(tb));
    return tb;
}

/*
 * Partition-scoped: 1 GiB as it is, again above that as not referenced yet,
 * and once more as not changed yet
 */
static void map_memory(void)
{
    const uint64_t tree[] = { (uintptr_t)roots, 52, sizeof(roots) };
    const uint64_t processes[] = { GIB + 0x100000, 4096 };

    roots[0] = PTE_VALID | (uintptr_t)pages | 9;
    pages[0] = PTE_VALID | PTE_LEAF | PTE_R | PTE_C | PTE_RWX;
    pages[1] = PTE_VALID | PTE_LEAF | PTE_RWX;
    pages[2] = PTE_VALID | PTE_LEAF | PTE_R | PTE_RWX;
    add(PARTITION_TABLE, 3, tree);
    add(PROCESS_TABLE, 2, processes);
    call_state(GUEST_WIDE, "memory");
}

static void add_vcpu(void)
{
    const uint64_t input[] = { (uintptr_t)&in, sizeof(in) };
    const uint64_t output[] = { (uintptr_t)&out, sizeof(out) };

    hcall(H_GUEST_CREATE_VCPU, 0, guest, 0, 0, 0);
    add(INPUT_BUFFER, 2, input);
    add(OUTPUT_BUFFER, 2, output);
    call_state(0, "buffers");
}

static const struct {
    const char *name;
    const char *code;
    uint64_t msr;
    uint64_t lpcr;
    uint16_t shown;
    /* 0: the interrupt that the partition itself has pending is held back */
    uint8_t cppr;
    bool late;
} cases[] = {
    { "nothing", spin, MSR_EE, 0, GPR3, 0, false },
    { "late", spin, MSR_EE, 0, GPR3, 0, true },
    { "mediated", spin, MSR_EE, LPCR_MER, GPR3, 0, false },
    { "masked", spin, 0, LPCR_MER, GPR3, 0, false },
    { "unmasked", enable, 0, LPCR_MER, GPR3, 0, false },
    { "external", spin, MSR_EE, LPCR_MER, GPR3, 0xff, false },
    { "unchanged", change, 0, 0, HDSISR, 0, false },
    { "unreferenced", spin, MSR_IR, 0, HDSISR, 0, false },
};

/* Does the decrementer still expire when it was told to? */
static void check_decrementer(uint64_t expiry)
{
    uint64_t now;

    add_one(DEC_EXPIRY, 0);
    hcall(H_GUEST_GET_STATE, 0, guest, 0, (uintptr_t)&set, sizeof(set));
    now = find(&set, DEC_EXPIRY);
    set.elements = 0;
    used = 0;
    put_text("DECREMENTER ");
    put_text(now - expiry + RUN_TICKS < 2 * RUN_TICKS ? "kept\n" : "lost\n");
}

/* Enters the guest; returns why it left */
static uint64_t run_vcpu(size_t number, uint64_t now)
{
    add_one(NIA, (uintptr_t)cases[number].code);
    add_one(MSR, MSR_SF | cases[number].msr);
    add_one(LPCR, LPCR_LD | cases[number].lpcr);
    add_one(DEC_EXPIRY, now + FAR_TICKS);
    add_one(HDEC_EXPIRY, cases[number].late ? now - 1 : now + RUN_TICKS);
    call_state(0, cases[number].name);
    hcall(H_CPPR, cases[number].cppr, 0, 0, 0, 0);
    hcall(H_GUEST_RUN_VCPU, 0, guest, 0, 0, 0);
    return r4;
}

void partition(void)
{
    uint64_t now = timebase();

    guest = create_guest();
    map_memory();
    add_vcpu();
    hcall(H_IPI, 0, 0, 0, 0, 0);
    run_vcpu(0, now);
    check_decrementer(now + FAR_TICKS);
    for (size_t i = FIRST; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint64_t trap = run_vcpu(i, timebase());

        put_text("RUN ");
        put_text(cases[i].name);
        put(' ');
        put_hex(trap);
        put(' ');
        put_hex(find(&out, cases[i].shown));
        put('\n');
    }
    put_text("END\n");
}
