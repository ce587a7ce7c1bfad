/*
 * What a partition of a few instructions needs to call its hypervisor
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * It stands where firmware would, big-endian, and prints on the first
 * virtual terminal.  The program is partition().
 */

#ifndef HCALL_PARTITION_H
#define HCALL_PARTITION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define H_PUT_TERM_CHAR             0x058
#define H_GUEST_GET_CAPABILITIES    0x460
#define H_GUEST_SET_CAPABILITIES    0x464
#define H_GUEST_CREATE              0x470
#define H_GUEST_GET_STATE           0x478
#define H_GUEST_SET_STATE           0x47c
#define GUEST_WIDE                  (1ULL << 63)
#define TERMINAL                    0x71000000

/* What the last call returned beside its result */
static uint64_t r4;

void partition(void);

__asm__(
    ".section .start, \"ax\"\n"
    ".org 0x100\n"
    "_start:\n"
    "   mfmsr   9\n"
    "   li      10, 1\n"
    "   sldi    10, 10, 63\n"
    "   or      9, 9, 10\n"
    "   mtmsrd  9\n"
    "   isync\n"
    "   lis     2, .TOC.@ha\n"
    "   addi    2, 2, .TOC.@l\n"
    "   lis     1, 0x10\n"
    "   li      0, 0\n"
    "   stdu    0, -256(1)\n"
    "   bl      partition\n"
    "1: b       1b\n"
    ".previous\n");

static int64_t hcall(uint64_t token, uint64_t a, uint64_t b, uint64_t c,
                     uint64_t d, uint64_t e)
{
    register uint64_t g3 __asm__("r3") = token;
    register uint64_t g4 __asm__("r4") = a;
    register uint64_t g5 __asm__("r5") = b;
    register uint64_t g6 __asm__("r6") = c;
    register uint64_t g7 __asm__("r7") = d;
    register uint64_t g8 __asm__("r8") = e;

    __asm__ volatile("sc 1"
                     : "+r"(g3), "+r"(g4), "+r"(g5), "+r"(g6), "+r"(g7),
                       "+r"(g8)
                     :
                     : "r0", "r9", "r10", "r11", "r12", "ctr", "lr", "xer",
                       "cr0", "cr1", "cr5", "cr6", "cr7", "memory");
    r4 = g4;
    return g3;
}

static void put(char c)
{
    hcall(H_PUT_TERM_CHAR, TERMINAL, 1, (uint64_t)c << 56, 0, 0);
}

static void put_text(const char *text)
{
    while (*text) {
        put(*text++);
    }
}

static void put_hex(uint32_t value)
{
    for (int shift = 28; shift >= 0; shift -= 4) {
        put("0123456789abcdef"[value >> shift & 15]);
    }
}

static void put_number(int64_t value)
{
    uint64_t rest = value < 0 ? -value : value;
    char digits[20];
    int n = 0;

    if (value < 0) {
        put('-');
    }
    do {
        digits[n++] = '0' + rest % 10;
        rest /= 10;
    } while (rest);
    while (n) {
        put(digits[--n]);
    }
}

/* A guest of the nested PAPR API; returns what stands for it in further calls */
static uint64_t create_guest(void)
{
    uint64_t guest;
    int64_t result;

    hcall(H_GUEST_GET_CAPABILITIES, 0, 0, 0, 0, 0);
    hcall(H_GUEST_SET_CAPABILITIES, 0, r4, 0, 0, 0);
    result = hcall(H_GUEST_CREATE, 0, -1, 0, 0, 0);
    guest = r4;
    put_text("CREATE ");
    put_number(result);
    put('\n');
    return guest;
}

#endif
