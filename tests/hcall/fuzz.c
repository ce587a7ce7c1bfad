/*
 * A partition of a few instructions that makes random hypercalls
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * It reads the API ("1" or "2") and a seed from its console.  Two CPUs then make
 * calls of the nested API, with arguments that are nearly right, and print
 * "CALLS" for each COUNT of them.  Now and then they reset the partition.  If
 * the API is "0", one CPU passes random lists of modes to CAS instead.
 */

#include "partition.h"

#define H_CAS                   0xf002
#define LISTS                   200
#define RECORDS                 512     /* QEMU reads no more */
#define TREE                    0x800000
#define TREE_SIZE               0x100000

#define COUNT                   4096
#define CPUS                    2

/* In the registers for H_ENTER_NESTED */
#define NIP                     32

#define NOWHERE                 (1ULL << 50)
#define AREA                    0x400000
#define AREAS                   8
#define AREA_SIZE               0x10000

/* What each CPU needs; it survives a reset */
static struct cpu {
    uint64_t seed;
    volatile uint64_t calls;
} cpus[CPUS];
static uint64_t shown;
static char api;

static uint64_t roots[1 << 13] __attribute__((aligned(1 << 16)));
static uint64_t pages[1 << 9] __attribute__((aligned(1 << 12)));
static uint64_t partitions[1 << 9] __attribute__((aligned(1 << 12)));

/* What the guest executes, mostly */
__asm__(
    "leave:\n"
    "   sc      1\n");

extern const char leave[];

static uint64_t any(struct cpu *cpu, uint64_t below)
{
    return next_random(&cpu->seed) % below;
}

static uint64_t soon(struct cpu *cpu)
{
    return timebase() + any(cpu, 1 << 12);
}

static uint64_t value(struct cpu *cpu)
{
    static const uint64_t known[] = {
        0, 1, 2, 52, 0x80, 0x1000, 1 << 16, 1 << 24, AREA, NOWHERE,
        (uintptr_t)roots, (uintptr_t)partitions, (uintptr_t)leave,
        1ULL << 63, 1ULL << 63 | 0x1000, 0x9000000000001000, 0x8000000000009030,
        0x0f00000600000000, -1,
    };
    uint64_t kind = any(cpu, 2 * sizeof(known) / sizeof(known[0]));

    return kind < sizeof(known) / sizeof(known[0]) ? known[kind] :
           next_random(&cpu->seed) >> any(cpu, 64);
}

/* Any address but those of this program, which the hypervisor may write to */
static uint64_t area(struct cpu *cpu)
{
    return AREA | (any(cpu, 32) ? any(cpu, AREAS) * AREA_SIZE : value(cpu));
}

static uint8_t *store(uint8_t *at, uint64_t what, size_t size)
{
    while (size--) {
        *at++ = what >> 8 * size;
    }
    return at;
}

static const struct {
    uint16_t first, count, size;
} elements[] = {
    { 0, 4, 4 }, { 2, 1, 8 }, { 3, 1, 4 }, { 4, 1, 8 }, { 5, 1, 24 },
    { 6, 1, 16 }, { 0x800, 5, 8 }, { 0xc00, 2, 16 }, { 0xc02, 1, 8 },
    { 0x1000, 0x54, 8 }, { 0x2000, 15, 4 }, { 0x3000, 64, 16 },
    { 0xf000, 4, 8 }, { 0xf001, 1, 4 },
};

/* An element of the guest state; the time of the next exit is always soon */
static uint8_t *element(struct cpu *cpu, uint8_t *at)
{
    size_t kind = any(cpu, sizeof(elements) / sizeof(elements[0]));
    uint16_t id = elements[kind].first + any(cpu, elements[kind].count);
    uint16_t size = any(cpu, 32) ? elements[kind].size : any(cpu, 40);
    static const uint64_t known[] = { (uintptr_t)roots, 52, 1 << 16 };
    bool right = any(cpu, 4);

    at = store(at, id, 2);
    at = store(at, size, 2);
    for (size_t i = 0; i < size / 4; i += 2) {
        uint64_t what = id == 0x1020 ? soon(cpu) :
                        id == 0x1021 && right ? (uintptr_t)leave :
                        id == 5 && right && i < 6 ? known[i / 2] :
                        (id | 1) == 0xc01 && i == 0 ? area(cpu) :
                        (id | 1) == 0xc01 && right ? AREA_SIZE / 4 :
                        value(cpu);

        at = store(at, size == 4 ? what >> 32 : what, size == 4 ? 4 : 8);
    }
    return at;
}

static void fill(struct cpu *cpu, uint8_t *at)
{
    uint32_t count = any(cpu, 8);

    store(at, any(cpu, 64) ? count : value(cpu), 4);
    at += 4;
    while (count--) {
        at = element(cpu, at);
    }
}

/* The state for H_ENTER_NESTED, of which only some values are random */
static void fill_hv(struct cpu *cpu, uint64_t *at)
{
    at[0] = any(cpu, 16) ? 1 + any(cpu, 2) : value(cpu);
    at[1] = any(cpu, 16) ? 1ULL << 32 : value(cpu);
    for (size_t i = 2; i < 34; i++) {
        at[i] = any(cpu, 4) ? at[i] : value(cpu);
    }
    at[11] = soon(cpu);
}

enum kind {
    ZERO, FLAGS, GUEST, VCPU, BUFFER, LENGTH, TOKEN, MODES, ANY, HV, TABLE,
};

static const struct {
    uint16_t token;
    uint16_t weight;
    uint8_t arguments[5];
} templates[2][9] = {
    {
        { 0xf800, 1, { TABLE } },
        { 0xf804, 8, { HV, BUFFER } },
        { 0xf808, 1, { ANY, ANY, ANY } },
        { 0xf80c, 1, { ANY, ANY, ANY, BUFFER, LENGTH } },
    }, {
        { 0x460, 1, { FLAGS } },
        { 0x464, 1, { FLAGS, MODES } },
        { 0x470, 2, { FLAGS, TOKEN } },
        { 0x474, 4, { FLAGS, GUEST, VCPU } },
        { 0x478, 8, { FLAGS, GUEST, VCPU, BUFFER, LENGTH } },
        { 0x47c, 16, { FLAGS, GUEST, VCPU, BUFFER, LENGTH } },
        { 0x480, 16, { ZERO, GUEST, VCPU } },
        { 0x488, 1, { FLAGS, GUEST } },
        { 0x448, 1, { GUEST, ANY, ANY, ANY, ANY } },
    },
};

static uint64_t argument(struct cpu *cpu, enum kind kind)
{
    uint64_t at = area(cpu);

    if (kind != ZERO && kind != BUFFER && kind != HV && !any(cpu, 32)) {
        return value(cpu);
    }
    switch (kind) {
    case FLAGS:
        return any(cpu, 3) ? 0 : 1ULL << 63;
    case GUEST:
        return 1 + any(cpu, 3);
    case VCPU:
        return any(cpu, 4);
    case BUFFER:
        if (at >= AREA && at < AREA + AREAS * AREA_SIZE - AREA_SIZE) {
            fill(cpu, (uint8_t *)at);
            if (api == '1' && any(cpu, 8)) {
                ((uint64_t *)at)[NIP] = (uintptr_t)leave;
            }
        }
        return at;
    case HV:
        if (at >= AREA && at < AREA + AREAS * AREA_SIZE && !(at & 7)) {
            fill_hv(cpu, (uint64_t *)at);
        }
        return at;
    case LENGTH:
        return any(cpu, 2) ? AREA_SIZE : any(cpu, 64);
    case TOKEN:
        return -1;
    case MODES:
        return 7ULL << 60;
    case TABLE:
        return (uintptr_t)partitions;
    case ANY:
        return value(cpu);
    default:
        return 0;
    }
}

static void random_call(struct cpu *cpu)
{
    uint64_t r[7] = { 0 };
    size_t row = 0;
    uint64_t chosen = any(cpu, api == '1' ? 11 : 50);

    while (chosen >= templates[api == '2'][row].weight) {
        chosen -= templates[api == '2'][row++].weight;
    }
    r[0] = templates[api == '2'][row].token;
    for (size_t i = 0; i < 5; i++) {
        r[1 + i] = argument(cpu, templates[api == '2'][row].arguments[i]);
    }
    call(r);
}

static _Noreturn void fuzz(size_t number)
{
    struct cpu *cpu = &cpus[number];

    for (;;) {
        random_call(cpu);
        cpu->calls++;
        if (number == 0 && cpu->calls + cpus[1].calls >= shown + COUNT) {
            shown += COUNT;
            put_text("CALLS\n");
            if (!any(cpu, 16)) {
                reboot();
            }
        }
    }
}

static void fuzz_too(void)
{
    fuzz(1);
}

static uint32_t *put_record(uint32_t *at, uint32_t mask, uint32_t pvr)
{
    at[0] = mask;
    at[1] = pvr;
    return at + 2;
}

/* A random number of records, and five option vectors without requests */
static void fill_list(struct cpu *cpu, uint32_t *at)
{
    static const uint32_t pvrs[] = {
        0, 0x0f000003, 0x0f100003, 0x0f000004, 0x0f000005, 0x0f000006,
        0x0f000007, 0x0f000008, 0x00820000,
    };
    uint32_t records = any(cpu, 16) ? any(cpu, 12) : any(cpu, RECORDS + 1);

    for (uint32_t i = 0; i < records; i++) {
        uint32_t mask = any(cpu, 32) ? 0xffffffff : 0xffff0000;
        uint32_t pvr = pvrs[any(cpu, sizeof(pvrs) / sizeof(pvrs[0]))];

        at = put_record(at, mask, mask & pvr);
    }
    if (records < RECORDS) {
        at = put_record(at, 0, 0xffffffff);
    }
    at = put_record(at, 0x04000000, 0);
    put_record(at, 0, 0);
}

static void pass_lists(struct cpu *cpu)
{
    uint64_t taken = 0;

    for (int i = 0; i < LISTS; i++) {
        fill_list(cpu, (uint32_t *)AREA);
        taken += hcall(H_CAS, AREA, TREE, TREE_SIZE, 0, 0) == 0;
    }
    put_text("TAKEN ");
    put_number(taken);
    put_text("\nREFUSED ");
    put_number(LISTS - taken);
    put_text("\nEND\n");
}

void partition(void)
{
    char line[24];

    if (!api) {
        get_line(line, sizeof(line));
        api = line[0];
        for (size_t i = 1; line[i]; i++) {
            cpus[0].seed = cpus[0].seed * 10 + line[i];
        }
        cpus[1].seed = ~cpus[0].seed;
    }
    if (api == '0') {
        pass_lists(&cpus[0]);
        return;
    }
    roots[0] = 1ULL << 63 | (uintptr_t)pages | 9;
    /* The guest must not write to this program */
    pages[0] = 0xc000000000000185;
    pages[1] = pages[0] | NOWHERE;
    partitions[2] = 1ULL << 63 | 2ULL << 61 | 5 << 5 | (uintptr_t)roots | 13;
    partitions[3] = AREA;
    start_second(fuzz_too);
    fuzz(0);
}
