/*
 * A minimal partition that runs an even smaller guest
 *
 * Copyright (c) 2026 QEMU contributors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * It first runs a guest until HDEC expires, so that every case starts with an
 * HDEC that has expired.  Then it reads the name of a case, runs its guest, and
 * prints the vector of its exit and a value that depends on the case:
 * "RUN VECTOR VALUE".
 */

#include "l2.h"

#define H_CPPR                  0x068
#define H_IPI                   0x06c
#define H_SIGNAL_SYS_RESET      0x380
#define H_RTAS                  0xf000
#define RTAS_REBOOT             0x2004
#define RTAS_START_CPU          0x2006

#define MSR_SF                  (1ULL << 63)
#define MSR_EE                  0x8000ULL
#define MSR_IR                  0x20ULL
#define MSR_DR                  0x10ULL
/* In CIABR */
#define PRIVILEGED              2
/* In DAWRX: matches stores in the privileged state */
#define PRIVILEGED_STORES       0x42
#define LPCR_LD                 (1ULL << 17)
#define LPCR_MER                (1ULL << 11)

#define PTE_VALID               (1ULL << 63)
#define PTE_LEAF                (1ULL << 62)
#define PTE_R                   0x100ULL
#define PTE_C                   0x080ULL
#define PTE_RWX                 7ULL

#define GIB                     (1ULL << 30)

/* Ticks until something expires */
#define SOON                    (1ULL << 25)
#define LATER                   (1ULL << 40)
/* ... until HDEC, which must not expire; BEYOND would if cut to 56 bits */
#define NEVER                   (-(1ULL << 40))
#define BEYOND                  ((1ULL << 60) + SOON / 2)
/* ... until HDEC, which has expired already */
#define OVER                    (-1ULL)

/* What "set" sets its decrementer to */
#define GUEST_SETS              (1ULL << 29)

/* How far the timebase of the guest is ahead */
#define SHIFT                   (1ULL << 50)

/* msgsndp 9, for assemblers that do not know it */
#define MSGSNDP_9               ".long 0x7c00491c"

/*
 * The guest's code and its interrupt handlers, which call its hypervisor.  The
 * partition has the same handlers: their calls do nothing, and it continues.
 */
#define INTERRUPT(vector) \
    ".org " #vector " - 0x300\n" \
    "   addi    3, 3, " #vector "\n" \
    "   sc      1\n" \
    "   rfid\n"

__asm__(
    ".section .interrupts, \"ax\"\n"
    INTERRUPT(0x300)
    INTERRUPT(0x500)
    INTERRUPT(0x900)
    INTERRUPT(0xa00)
    "enable:\n"
    "   li      9, 0\n"
    "   ori     9, 9, 0x8000\n"
    "   mtmsrd  9, 1\n"
    "   b       spin\n"
    "store:\n"
    "   lis     9, 0x20\n"
    "   std     9, 8(9)\n"
    "   b       spin\n"
    "set_decrementer:\n"
    "   lis     9, 0x2000\n"
    "   mtdec   9\n"
    "   b       spin\n"
    "change_own:\n"
    "   li      9, 2\n"
    "   b       1f\n"
    "change:\n"
    "   li      9, 1\n"
    "1: sldi    9, 9, 31\n"
    "   ld      10, 0x100(9)\n"
    "   li      3, 1\n"
    "   std     10, 0x100(9)\n"
    "spin:\n"
    "   b       spin\n"
    "stale:\n"
    "   li      9, 3\n"
    "   sldi    9, 9, 30\n"
    "   ld      10, 0(9)\n"
    "   lis     10, 0x20\n"
    "   std     9, 0(10)\n"
    "1: ld      10, 0(9)\n"
    "   b       1b\n"
    /* a prefixed instruction across 64 bytes gets an alignment interrupt */
    ".balign 64\n"
    "invalid:\n"
    "   .long   0x07ffffff, 0\n"
    INTERRUPT(0xd00)
    INTERRUPT(0xf00)
    ".previous\n");

extern const char enable[], set_decrementer[], change[], change_own[], spin[];
extern const char stale[], invalid[], store[];

/* A second CPU of the partition */
__asm__(
    "second:\n"
    "   lis     2, .TOC.@ha\n"
    "   addi    2, 2, .TOC.@l\n"
    "   lis     1, 0x18\n"
    "   li      0, 0\n"
    "   stdu    0, -256(1)\n"
    "   bl      wait_for_guest\n");

extern const char second[];

static uint64_t roots[1 << 13] __attribute__((aligned(1 << 16)));
static uint64_t pages[1 << 9] __attribute__((aligned(1 << 12)));
/* 1 GiB higher in the guest */
static uint64_t *const processes = (uint64_t *)0x100000;

/* The guest has loaded what "stale" loads; tests/hcall/cases.py reads it, too */
#define loaded (*(volatile uint64_t *)0x200000)
/* What the second CPU does then */
static void (*do_then)(void);

_Noreturn void wait_for_guest(void)
{
    while (!loaded) {
    }
    do_then();
    for (;;) {
    }
}

static int64_t (*invalidate)(void);

static void take_away(void)
{
    pages[3] = 0;
    __asm__ volatile("sync" : : : "memory");
    invalidate();
}

static uint64_t timebase(void)
{
    uint64_t tb;

    __asm__ volatile("mftb %0" : "=r"(tb));
    return tb;
}

/* The timebase when the partition was reset, or 0; its memory survives that */
static uint64_t rebooted;

static void reboot(void)
{
    uint32_t arguments[] = { RTAS_REBOOT, 0, 1, 0 };
    uint64_t r[7] = { H_RTAS, (uintptr_t)arguments };

    rebooted = timebase();
    call(r);
}

static void start_second(void (*what)(void))
{
    uint32_t arguments[] = {
        RTAS_START_CPU, 3, 1, 1, (uintptr_t)second, 0, 0
    };

    do_then = what;
    hcall(H_RTAS, (uintptr_t)arguments, 0, 0, 0, 0);
}

static void second_takes_away(void)
{
    invalidate = invalidate_l2;
    start_second(take_away);
}

static void second_takes_away_own(void)
{
    invalidate = invalidate_own;
    start_second(take_away);
}

static void second_reboots(void)
{
    shift_timebase(SHIFT);
    start_second(reboot);
}

static void signal_first(void)
{
    uint64_t r[7] = { H_SIGNAL_SYS_RESET, 0 };

    rebooted = timebase();
    call(r);
}

static void second_signals(void)
{
    start_second(signal_first);
}

/* The user of the monitor may interrupt the guest from now on */
static void announce(void)
{
    rebooted = timebase();
    put_text("L2\n");
}

/*
 * Map the first GiB at five addresses: normally, not referenced yet, not
 * changed yet, and normally again, all for the partition-scoped tables.  The
 * fifth is for the guest's own tables, which are the same: not changed yet.
 */
static void map_memory(void)
{
    roots[0] = PTE_VALID | (uintptr_t)pages | 9;
    pages[0] = PTE_VALID | PTE_LEAF | PTE_R | PTE_C | PTE_RWX;
    pages[1] = PTE_VALID | PTE_LEAF | PTE_RWX;
    pages[2] = PTE_VALID | PTE_LEAF | PTE_R | PTE_RWX;
    pages[3] = pages[0];
    pages[4] = pages[2];
}

/* A process table for the guest, on a page that was referenced and changed */
static void map_processes(void)
{
    *processes = TREE_OF_52_BITS | (uintptr_t)roots | 13;
    pages[1] |= PTE_R | PTE_C;
}

/* Unmask the external interrupt that the partition itself has pending */
static void accept_external(void)
{
    hcall(H_CPPR, 0xff, 0, 0, 0, 0);
}

/* A doorbell for the partition itself */
static void ring(void)
{
    register uint64_t g9 __asm__("r9") = 0x28000000;

    __asm__ volatile(MSGSNDP_9 : : "r"(g9));
}

/* Does the partition itself get an interrupt that is not its decrementer's? */
static uint64_t interrupted(void)
{
    register uint64_t g3 __asm__("r3") = 0;

    __asm__ volatile("mtdec %1\n\tmtmsrd %2, 1\n\tnop\n\tmtmsrd %3, 1"
                     : "+r"(g3)
                     : "r"(INT32_MAX), "r"(MSR_EE), "r"(0)
                     : "r4", "memory");
    return g3 != 0;
}

static uint64_t held(void)
{
    return l2_dpdes() | interrupted() << 4;
}

static uint64_t prefix(void)
{
    return l2_heir() >> 32;
}

static uint64_t area(void)
{
    return l2_vpa(0x123000);
}

static uint64_t invalidated(void)
{
    return invalidate_l2();
}

static uint64_t started;

static void shift_and_take_away(void)
{
    started = timebase();
    shift_timebase(SHIFT);
    take_away();
}

static void second_shifts(void)
{
    invalidate = invalidate_l2;
    start_second(shift_and_take_away);
}

/* How far did the partition's timebase move, in units of SHIFT / 2? */
static uint64_t shifted(void)
{
    return (timebase() - started) / (SHIFT / 2);
}

static void start_counters(void)
{
    set_counters(SHIFT);
}

/* How far did a counter come, in units of SOON? */
static uint64_t ticked(uint64_t counter)
{
    return (counter - SHIFT + SOON / 2) / SOON;
}

static uint64_t counted(void)
{
    return ticked(l2_purr()) | ticked(l2_spurr()) << 4 | ticked(l2_vtb()) << 8;
}

static void alert_soon(void)
{
    count_instructions(1000);
}

static bool watching;

static void set_watchpoint(void)
{
    watching = true;
}

static uint64_t breakpoint;

static void set_breakpoint(void)
{
    breakpoint = (uintptr_t)spin | PRIVILEGED;
}

static uint64_t expiry;

/* How late does the decrementer expire, in units of 2 * SOON? */
static uint64_t delay(void)
{
    return (l2_dec() - expiry + SOON) / (2 * SOON);
}

/* How many halves of the decrementer value that the guest set are left? */
static uint64_t left(void)
{
    return (l2_dec() - timebase()) / (GUEST_SETS / 2);
}

/* The timebase at which the partition's own decrementer expires */
static uint64_t own_expiry(void)
{
    uint64_t dec;

    __asm__ volatile("mfdec %0" : "=r"(dec));
    return timebase() + dec;
}

static uint64_t before;

static void set_own(void)
{
    __asm__ volatile("mtdec %0" : : "r"(INT32_MAX));
    before = own_expiry();
}

/* How far has the guest moved it, in units of SOON? */
static uint64_t moved(void)
{
    return (own_expiry() - before + SOON / 2) / SOON;
}

static uint64_t hdec_expiry;

/* How late did HDEC make the guest exit, in units of 65536 ticks? */
static uint64_t lateness(void)
{
    return (timebase() - hdec_expiry) / (1 << 16);
}

static const struct {
    const char *name;
    const char *code;
    uint64_t msr;
    uint64_t lpcr;
    uint64_t (*shown)(void);
    uint64_t dec;
    uint64_t hdec;
    void (*before)(void);
    uint64_t dpdes;
} cases[] = {
    { "nothing", spin, MSR_EE, 0, l2_gpr3, LATER, SOON, NULL, 0 },
    { "punctual", spin, MSR_EE, 0, lateness, LATER, SOON, NULL, 0 },
    { "decrementer", spin, MSR_EE, 0, delay, LATER, SOON, NULL, 0 },
    { "set", set_decrementer, 0, 0, left, LATER, SOON, NULL, 0 },
    { "own-timer", spin, 0, 0, moved, SOON / 2, SOON, set_own, 0 },
    { "narrow", spin, 0, LPCR_LD, delay, -SOON, SOON, NULL, 0 },
    { "over", spin, MSR_EE, 0, l2_gpr3, LATER, OVER, NULL, 0 },
    { "never", spin, MSR_EE, 0, l2_gpr3, SOON, NEVER, NULL, 0 },
    { "beyond", spin, MSR_EE, 0, l2_gpr3, SOON, BEYOND, NULL, 0 },
    { "mediated", spin, MSR_EE, LPCR_MER, l2_gpr3, LATER, SOON, NULL, 0 },
    { "masked", spin, 0, LPCR_MER, l2_gpr3, LATER, SOON, NULL, 0 },
    { "unmasked", enable, 0, LPCR_MER, l2_gpr3, LATER, SOON, NULL, 0 },
    { "external", spin, MSR_EE, LPCR_MER, l2_gpr3, LATER, SOON,
      accept_external, 0 },
    { "doorbell", spin, MSR_EE, 0, l2_gpr3, LATER, SOON, NULL, 1 },
    { "held", spin, 0, 0, held, LATER, SOON, NULL, 1 },
    { "own", spin, MSR_EE, 0, interrupted, LATER, SOON, ring, 0 },
    { "vpa", spin, 0, 0, area, LATER, SOON, NULL, 0 },
    { "stale", stale, 0, 0, l2_hdsisr, LATER, LATER, second_takes_away, 0 },
    { "stale-own", stale, 0, 0, l2_hdsisr, LATER, LATER,
      second_takes_away_own, 0 },
    { "alone", spin, 0, 0, invalidated, LATER, SOON, NULL, 0 },
    { "uncapped", spin, 0, 0, invalidated, LATER, SOON, NULL, 0 },
    { "reboot", stale, 0, 0, l2_gpr3, LATER, LATER, second_reboots, 0 },
    { "traced", spin, 0, 0, l2_gpr3, LATER, SOON, set_breakpoint, 0 },
    { "watched", store, 0, 0, l2_gpr3, LATER, SOON, set_watchpoint, 0 },
    { "counted", spin, 0, 0, counted, LATER, SOON, start_counters, 0 },
    { "alerted", spin, MSR_EE, 0, l2_gpr3, LATER, SOON, alert_soon, 0 },
    { "signalled", stale, 0, 0, l2_gpr3, LATER, LATER, second_signals, 0 },
    { "shifted", stale, 0, 0, shifted, LATER, LATER, second_shifts, 0 },
    { "announced", stale, 0, 0, l2_gpr3, LATER, LATER, announce, 0 },
    { "invalid", invalid, 0, 0, prefix, LATER, SOON, NULL, 0 },
    { "unchanged", change, 0, 0, l2_hdsisr, LATER, SOON, NULL, 0 },
    { "own-unchanged", change_own, MSR_DR, 0, l2_gpr3, LATER, SOON,
      map_processes, 0 },
    { "unreferenced", spin, MSR_IR, 0, l2_hdsisr, LATER, SOON, NULL, 0 },
};

static uint64_t run(size_t number)
{
    uint64_t now = timebase();
    struct entry entry = {
        .nia = (uintptr_t)cases[number].code,
        .msr = MSR_SF | cases[number].msr,
        .lpcr = LPCR_LD ^ cases[number].lpcr,
        .dec = now + cases[number].dec,
        .hdec = now + cases[number].hdec,
        .dpdes = cases[number].dpdes,
    };

    expiry = entry.dec;
    hdec_expiry = entry.hdec;
    if (cases[number].before) {
        cases[number].before();
    }
    entry.ciabr = breakpoint;
    entry.dawr = watching ? (uintptr_t)&loaded + 8 : 0;
    entry.dawrx = watching ? PRIVILEGED_STORES : 0;
    return enter_l2(&entry);
}

static bool same(const char *a, const char *b)
{
    while (*a && *a == *b) {
        a++;
        b++;
    }
    return *a == *b;
}

void partition(void)
{
    char name[16];

    if (rebooted) {
        put_text("RUN 00000100 ");
        put_hex((timebase() - rebooted) / (SHIFT / 2) << 1 | l2_is_known());
        put_text("\nEND\n");
        return;
    }
    map_memory();
    create_l2(roots, GIB + (uintptr_t)processes);
    hcall(H_CPPR, 0, 0, 0, 0, 0);
    hcall(H_IPI, 0, 0, 0, 0, 0);
    run(0);
    get_line(name, sizeof(name));
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        if (same(cases[i].name, name)) {
            uint64_t vector = run(i), value = cases[i].shown();

            put_text("RUN ");
            put_hex(vector);
            put(' ');
            put_hex(value);
            put('\n');
        }
    }
    put_text("END\n");
}
