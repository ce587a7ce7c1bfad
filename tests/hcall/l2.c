/*
 * A minimal partition that runs an even smaller guest
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
#define H_XIRR                  0x074
#define H_SET_MODE              0x31c
#define ADDRESS_TRANSLATION     3
#define AIL_3                   3
#define INTERRUPT_ENDIAN        4
#define LITTLE_ENDIAN           1
#define CIABR                   1
#define DAWR0                   2
#define DAWR1                   5
#define H_SIGNAL_SYS_RESET      0x380
#define H_GUEST_CREATE          0x470
#define H_GUEST_DELETE          0x488

#define MSR_SF                  (1ULL << 63)
#define MSR_EE                  0x8000ULL
#define MSR_IR                  0x20ULL
#define MSR_DR                  0x10ULL
/* In CIABR */
#define PRIVILEGED              2
/* In DAWRX: matches stores, or loads, in the privileged state */
#define PRIVILEGED_STORES       0x42
#define PRIVILEGED_LOADS        0x22
/* In MMCR0: alerts, and one when a counter but the first overflows */
#define PMAE                    (1 << 26)
#define PMC_N_CE                (1 << 14)
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
/* Where its counters start */
#define COUNTED_FROM            (16 * SOON)

/* For assemblers that do not know these */
#define MSGSNDP_9               ".long 0x7c00491c"
#define WAIT                    ".long 0x7c00003c"

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
    "   ld      10, 16(9)\n"
    "   b       spin\n"
    "pause:\n"
    "   lis     9, 0x20\n"
    "   std     9, 0(9)\n"
    "1: " WAIT "\n"
    "   b       1b\n"
    "doze:\n"
    "   " WAIT "\n"
    "   sc      1\n"
    "read_timebase:\n"
    "   mftb    3\n"
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
    "roam:\n"
    "   li      9, 3\n"
    "   sldi    9, 9, 30\n"
    "   lis     10, 0x20\n"
    "   std     9, 0(10)\n"
    "1: ldx     10, 9, 11\n"
    "   addi    11, 11, 0x1000\n"
    "   clrldi  11, 11, 36\n"
    "   b       1b\n"
    /* lwat from an address that is not mapped */
    "atomic:\n"
    "   lis     9, 0x20; std 9, 0(9)\n"
    "   li      9, 5; sldi 9, 9, 30\n"
    "   .long   0x7ce9c48c\n"
    /* branches to 0xf00 in problem state when PMC6 overflows, if FSCR allows */
    "branch:\n"
    "   li      9, 0x80; mtspr 153, 9\n"
    "cancel:\n"
    "   lis     9, 0x8000; mtspr 806, 9; li 9, 0xf00; mtspr 804, 9\n"
    "   lis     9, 0x7fff; mtspr 792, 9\n"
    "   lis     9, 0x10; ori 9, 9, 0x4000; mtspr 795, 9\n"
    "   li      9, spin@l; mtsrr0 9\n"
    "   mfmsr   9; ori 9, 9, 0xc030; mtsrr1 9; rfid\n"
    /* a prefixed instruction across 64 bytes gets an alignment interrupt */
    ".balign 64\n"
    "invalid:\n"
    "   .long   0x07ffffff, 0\n"
    INTERRUPT(0xd00)
    INTERRUPT(0xf00)
    ".previous\n");

extern const char enable[], set_decrementer[], change[], change_own[], spin[];
extern const char stale[], invalid[], store[], pause[], roam[], doze[];
extern const char read_timebase[], atomic[], branch[], cancel[];

static uint64_t roots[1 << 13] __attribute__((aligned(1 << 16)));
static uint64_t pages[1 << 9] __attribute__((aligned(1 << 12)));
/* 1 GiB higher in the guest */
static uint64_t *const processes = (uint64_t *)0x100000;

/* The guest has loaded what "stale" loads; tests/hcall/cases.py reads it, too */
#define loaded (*(volatile uint64_t *)0x200000)

/* What a case shows: a function NAME that returns VALUE */
#define SHOWS(name, value) static uint64_t name(void) { return value; }

static void wait_for_guest(void)
{
    while (!loaded) {
    }
}

/* Takes the page away that the guest has loaded from */
static void take_away(void)
{
    wait_for_guest();
    pages[3] = 0;
    __asm__ volatile("sync" : : : "memory");
}

static void take_from_l2(void)
{
    take_away();
    invalidate_l2();
}

/* Others come and go while the guest misses one translation after the other */
static void crowd(void)
{
    static uint64_t others[16];

    wait_for_guest();
    for (int i = 0; i < 1 << 15; i++) {
        bool create = !(i & 16);
        uint64_t r[7] = { create ? H_GUEST_CREATE : H_GUEST_DELETE, 0,
                          create ? -1ULL : others[i & 15] };

        call(r);
        others[i & 15] = r[1];
    }
    take_from_l2();
}

static void take_from_own(void)
{
    take_away();
    invalidate_own();
}

/* The timebase when the partition was reset, or 0; its memory survives that */
static uint64_t rebooted;

static void shift(void)
{
    l2_set(L2_TB_OFFSET, SHIFT);
}

static void restart(void)
{
    wait_for_guest();
    rebooted = timebase();
    reboot();
}

static void signal_first(void)
{
    uint64_t r[7] = { H_SIGNAL_SYS_RESET, 0 };

    wait_for_guest();
    rebooted = timebase();
    call(r);
}

/* Changes a register of the first CPU, which runs the guest */
static void set_mode(void)
{
    uint64_t r[7] = { H_SET_MODE, AIL_3, ADDRESS_TRANSLATION };

    wait_for_guest();
    call(r);
}

/* The guest that runs loses its memory */
static void delete(void)
{
    uint64_t r[7] = { H_GUEST_DELETE, 0, 1 };

    wait_for_guest();
    call(r);
}

static uint64_t recreated;

/* The number of the guest that runs is not free yet */
static void replace(void)
{
    uint64_t create[7] = { H_GUEST_CREATE, 0, -1 };

    delete();
    call(create);
    recreated = create[1];
    set_mode();
}

SHOWS(new_number, recreated)

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

/* Takes interrupts that are not the decrementer's; their handler changes @value */
static uint64_t take_interrupts(uint64_t value)
{
    register uint64_t g3 __asm__("r3") = value;

    __asm__ volatile("mtdec %1\n\tmtmsrd %2, 1\n\tnop\n\tmtmsrd %3, 1"
                     : "+r"(g3)
                     : "r"(INT32_MAX), "r"(MSR_EE), "r"(0)
                     : "r4", "memory");
    return g3;
}

/* Does the partition itself get an interrupt? */
SHOWS(interrupted, take_interrupts(0) != 0)

/* Does it get the external one that it has pending, which H_XIRR accepts? */
static uint64_t own_external(void)
{
    accept_external();
    return take_interrupts(H_XIRR - 0x500) == 0;
}

SHOWS(held, l2_get(L2_DPDES) | interrupted() << 4)
SHOWS(prefix, l2_get(L2_HEIR) >> 32)
SHOWS(invalidated, invalidate_l2())

static uint64_t area(void)
{
    l2_set(L2_VPA, 0x123000);
    return l2_get(L2_VPA);
}

static uint64_t started;

static void take_shifted(void)
{
    wait_for_guest();
    started = timebase();
    shift();
    take_from_l2();
}

/* How far did the partition's timebase move, in units of SHIFT / 2? */
SHOWS(shifted, (timebase() - started) / (SHIFT / 2))

/* How far the PURR and the VTB of the partition itself are ahead of its time */
static uint64_t ahead(void)
{
    uint64_t purr, vtb;

    __asm__ volatile("mfspr %0, 309\n\tmfspr %1, 849"
                     : "=r"(purr), "=r"(vtb));
    return purr + vtb - 2 * timebase();
}

static uint64_t ahead_at_start;

static void start_counters(void)
{
    l2_set(L2_PURR, COUNTED_FROM);
    l2_set(L2_SPURR, COUNTED_FROM);
    l2_set(L2_VTB, COUNTED_FROM);
}

/* How far did a counter come, in units of SOON? */
static uint64_t ticked(enum l2_state counter)
{
    return (l2_get(counter) - COUNTED_FROM + SOON / 2) / SOON;
}

SHOWS(counted, ticked(L2_PURR) | ticked(L2_SPURR) << 4 | ticked(L2_VTB) << 8 |
               (ahead() - ahead_at_start + SOON / 2) / SOON << 12)

/* How many cycles has it counted in two runs, in units of SOON? */
SHOWS(cycles, l2_get(L2_PMC6) / SOON)

/* How far was the timebase that the guest read ahead, in units of SHIFT? */
SHOWS(offset, (l2_get(L2_GPR3) - timebase() + SHIFT / 2) / SHIFT)

/* Only an exit that has a HEIR may change it */
static void set_heir(void)
{
    l2_set(L2_HEIR, 0x1234ULL << 32);
}

/* After a thousand instructions, the counter is negative */
static void alert_soon(void)
{
    l2_set(L2_MMCR0, PMAE | PMC_N_CE);
    l2_set(L2_PMC5, (1U << 31) - 1000);
}

static void alert_late(void)
{
    l2_set(L2_MMCR0, PMAE | PMC_N_CE);
    l2_set(L2_PMC6, (1U << 31) - SOON);
}

/* A cycle counter of the partition itself is negative while the guest runs */
static void alert_own(void)
{
    __asm__ volatile("mtspr 795, %0\n\tmtspr 792, %1"
                     : : "r"(PMAE | PMC_N_CE), "r"((1U << 31) - 1000000));
    l2_set(L2_MMCR0, PMAE | PMC_N_CE);
}

/* The partition's own interrupts are little-endian, the guest's are not */
static void turn_own(void)
{
    hcall(H_SET_MODE, LITTLE_ENDIAN, INTERRUPT_ENDIAN, 0, 0, 0);
}

/* These match what the partition's own DAWRX0 and DAWRX1 do not */
static void watch_first(void)
{
    l2_set(L2_GPR3, 0x40);
    l2_set(L2_DAWR0, (uintptr_t)&loaded + 16);
    l2_set(L2_DAWRX0, PRIVILEGED_LOADS);
}

static void watch_second(void)
{
    l2_set(L2_DAWR1, (uintptr_t)&loaded + 8);
    l2_set(L2_DAWRX1, PRIVILEGED_STORES);
}

static void set_breakpoint(void)
{
    l2_set(L2_CIABR, (uintptr_t)spin | PRIVILEGED);
}

static void watch(uint64_t stored, uint64_t loaded_from, uint64_t executed)
{
    hcall(H_SET_MODE, 0, DAWR0, stored, PRIVILEGED_STORES, 0);
    hcall(H_SET_MODE, 0, DAWR1, loaded_from, PRIVILEGED_LOADS, 0);
    hcall(H_SET_MODE, 0, CIABR, executed | PRIVILEGED, 0, 0);
}

/* What L0 derives from the registers must not survive a reset */
static void trace_own(void)
{
    watch(GIB, GIB, GIB);
}

static void watch_own(void)
{
    extern const char traced[];

    watch((uintptr_t)&loaded + 8, (uintptr_t)&loaded + 16, (uintptr_t)traced);
}

/* Does CODE cause an interrupt?  Its handler makes the call that clears RESOURCE */
#define INTERRUPTED(vector, resource, code) ({ \
        register uint64_t g3 __asm__("r3") = H_SET_MODE - (vector); \
        register uint64_t g5 __asm__("r5") = (resource); \
        __asm__ volatile("li 4, 0\n\tli 6, 0\n\tli 7, 0\n\tlis 9, 0x20\n\t" code \
                         : "+r"(g3), "+r"(g5) : \
                         : "r4", "r6", "r7", "r9", "memory"); \
        g3 == 0; \
    })

static uint64_t __attribute__((noinline)) own_hits(void)
{
    return INTERRUPTED(0x300, DAWR0, "std 9, 8(9)") |
           INTERRUPTED(0x300, DAWR1, "ld 9, 16(9)") << 4 |
           INTERRUPTED(0xd00, CIABR, "\ntraced: nop") << 8;
}

static void ring_l2(void)
{
    l2_set(L2_DPDES, 1);
}

SHOWS(gpr3, l2_get(L2_GPR3))
SHOWS(hdsisr, l2_get(L2_HDSISR))

/* The MSR, if the guest was left where it waits */
static uint64_t waiting(void)
{
    uint64_t nia = l2_get(L2_NIA);

    return nia - (uintptr_t)pause < 16 ? l2_get(L2_MSR) : nia;
}

static uint64_t enter_again(void)
{
    while (enter_l2()) {
    }
    return 0;
}

static uint64_t expiry;

/* How late does the decrementer expire, in units of 2 * SOON? */
SHOWS(delay, (l2_get(L2_DEC) - expiry + SOON) / (2 * SOON))

/* How many halves of the decrementer value that the guest set are left? */
SHOWS(left, (l2_get(L2_DEC) - timebase()) / (GUEST_SETS / 2))

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
SHOWS(moved, (own_expiry() - before + SOON / 2) / SOON)

static uint64_t hdec_expiry;

/* How late did HDEC make the guest exit, in units of 65536 ticks? */
SHOWS(lateness, (timebase() - hdec_expiry) / (1 << 16))

static const struct {
    const char *name;
    const char *code;
    uint64_t msr;
    uint64_t lpcr;
    uint64_t (*shown)(void);
    uint64_t dec;
    uint64_t hdec;
    void (*before)(void);
    /* what the second CPU does */
    void (*second)(void);
} cases[] = {
    { "nothing", spin, MSR_EE, 0, gpr3, LATER, SOON, NULL, NULL },
    { "punctual", spin, MSR_EE, 0, lateness, LATER, SOON, NULL, NULL },
    { "decrementer", spin, MSR_EE, 0, delay, LATER, SOON, NULL, NULL },
    { "set", set_decrementer, 0, 0, left, LATER, SOON, NULL, NULL },
    { "own-timer", spin, 0, 0, moved, SOON / 2, SOON, set_own, NULL },
    { "narrow", spin, 0, LPCR_LD, delay, -SOON, SOON, NULL, NULL },
    { "over", spin, MSR_EE, 0, gpr3, LATER, OVER, NULL, NULL },
    { "never", spin, MSR_EE, 0, gpr3, SOON, NEVER, turn_own, NULL },
    { "beyond", spin, MSR_EE, 0, gpr3, SOON, BEYOND, NULL, NULL },
    { "mediated", spin, MSR_EE, LPCR_MER, gpr3, LATER, SOON, NULL, NULL },
    { "masked", spin, 0, LPCR_MER, gpr3, LATER, SOON, NULL, NULL },
    { "unmasked", enable, 0, LPCR_MER, gpr3, LATER, SOON, NULL, NULL },
    { "external", spin, MSR_EE, LPCR_MER, gpr3, LATER, SOON, accept_external,
      NULL },
    { "doorbell", spin, MSR_EE, 0, gpr3, LATER, SOON, ring_l2, NULL },
    { "held", spin, 0, 0, held, LATER, SOON, ring_l2, NULL },
    { "own", spin, MSR_EE, 0, interrupted, LATER, SOON, ring, NULL },
    { "own-external", spin, 0, 0, own_external, LATER, SOON, NULL, NULL },
    { "vpa", spin, 0, 0, area, LATER, SOON, NULL, NULL },
    { "stale", stale, 0, 0, hdsisr, LATER, LATER, NULL, take_from_l2 },
    { "stale-own", stale, 0, 0, hdsisr, LATER, LATER, NULL, take_from_own },
    { "crowded", roam, 0, 0, hdsisr, LATER, LATER, NULL, crowd },
    { "alone", spin, 0, 0, invalidated, LATER, SOON, NULL, NULL },
    { "uncapped", spin, 0, 0, invalidated, LATER, SOON, NULL, NULL },
    { "reboot", stale, 0, 0, gpr3, LATER, LATER, shift, restart },
    { "traced", spin, 0, 0, gpr3, LATER, SOON, set_breakpoint, NULL },
    { "watched", store, 0, 0, gpr3, LATER, SOON, watch_first, NULL },
    { "watched-twice", store, 0, 0, gpr3, LATER, SOON, watch_second, NULL },
    { "own-watched", store, 0, 0, own_hits, LATER, SOON, watch_own, NULL },
    { "counted", spin, 0, 0, counted, LATER, SOON, start_counters, NULL },
    { "cycles", spin, 0, 0, cycles, LATER, SOON, NULL, NULL },
    { "offset", read_timebase, 0, 0, offset, LATER, SOON, shift, NULL },
    { "alerted", spin, MSR_EE, 0, gpr3, LATER, SOON, alert_soon, NULL },
    { "alerted-late", spin, MSR_EE, 0, gpr3, LATER, SOON, alert_late, NULL },
    { "own-alert", spin, MSR_EE, 0, gpr3, LATER, SOON, alert_own, NULL },
    { "set-mode", stale, 0, 0, gpr3, LATER, LATER, NULL, set_mode },
    { "waiting", pause, 0, 0, gpr3, LATER, SOON, NULL, NULL },
    { "woken", doze, 0, 0, gpr3, SOON, LATER, NULL, NULL },
    { "deleted", pause, 0, 0, new_number, LATER, LATER, NULL, replace },
    { "gone", stale, 0, 0, gpr3, LATER, LATER, NULL, delete },
    { "signalled", stale, 0, 0, gpr3, LATER, LATER, NULL, signal_first },
    { "shifted", stale, 0, 0, shifted, LATER, LATER, NULL, take_shifted },
    { "announced", pause, 0, 0, waiting, LATER, LATER, announce, NULL },
    { "again", atomic, 0, 0, enter_again, LATER, LATER, announce, NULL },
    { "branched", branch, 0, 0, gpr3, LATER, SOON, map_processes, NULL },
    { "cancelled", cancel, 0, 0, gpr3, LATER, SOON, map_processes, NULL },
    { "invalid", invalid, 0, 0, prefix, LATER, SOON, NULL, NULL },
    { "valid", spin, 0, 0, prefix, LATER, SOON, set_heir, NULL },
    { "unchanged", change, 0, 0, hdsisr, LATER, SOON, NULL, NULL },
    { "own-unchanged", change_own, MSR_DR, 0, gpr3, LATER, SOON, map_processes,
      NULL },
    { "unreferenced", spin, MSR_IR, 0, hdsisr, LATER, SOON, NULL, NULL },
};

static uint64_t run(size_t number)
{
    uint64_t now = timebase();

    expiry = now + cases[number].dec;
    hdec_expiry = now + cases[number].hdec;
    l2_set(L2_NIA, (uintptr_t)cases[number].code);
    l2_set(L2_MSR, MSR_SF | cases[number].msr);
    l2_set(L2_LPCR, LPCR_LD ^ cases[number].lpcr);
    l2_set(L2_DEC, expiry);
    l2_set(L2_HDEC, hdec_expiry);
    if (cases[number].before) {
        cases[number].before();
    }
    if (cases[number].second) {
        start_second(cases[number].second);
    }
    return enter_l2();
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
        trace_own();
        put_text("\nEND\n");
        return;
    }
    ahead_at_start = ahead();
    trace_own();
    map_memory();
    create_l2(roots, GIB + (uintptr_t)processes);
    hcall(H_CPPR, 0, 0, 0, 0, 0);
    hcall(H_IPI, 0, 0, 0, 0, 0);
    run(0);
    put_text("READY\n");
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
