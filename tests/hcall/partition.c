/*
 * What a partition of a few instructions needs to call its hypervisor
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "partition.h"

#define H_GET_TERM_CHAR             0x054
#define H_PUT_TERM_CHAR             0x058
#define H_RTAS                      0xf000
#define RTAS_REBOOT                 0x2004
#define RTAS_START_CPU              0x2006
#define TERMINAL                    0x71000000

uint64_t r4;
static uint64_t r5, r6;

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
    ".previous\n"
    "second:\n"
    "   lis     2, .TOC.@ha\n"
    "   addi    2, 2, .TOC.@l\n"
    "   lis     1, 0x18\n"
    "   li      0, 0\n"
    "   stdu    0, -256(1)\n"
    "   mr      12, 3\n"
    "   mtctr   12\n"
    "   bctrl\n"
    "1: b       1b\n");

extern const char second[];

void call(uint64_t r[7])
{
    register uint64_t g3 __asm__("r3") = r[0];
    register uint64_t g4 __asm__("r4") = r[1];
    register uint64_t g5 __asm__("r5") = r[2];
    register uint64_t g6 __asm__("r6") = r[3];
    register uint64_t g7 __asm__("r7") = r[4];
    register uint64_t g8 __asm__("r8") = r[5];
    register uint64_t g9 __asm__("r9") = r[6];

    __asm__ volatile("sc 1"
                     : "+r"(g3), "+r"(g4), "+r"(g5), "+r"(g6), "+r"(g7),
                       "+r"(g8), "+r"(g9)
                     :
                     : "r0", "r10", "r11", "r12", "ctr", "lr", "xer", "cr0",
                       "cr1", "cr5", "cr6", "cr7", "memory");
    r[0] = g3;
    r[1] = g4;
    r[2] = g5;
    r[3] = g6;
    r[4] = g7;
    r[5] = g8;
    r[6] = g9;
}

int64_t hcall(uint64_t token, uint64_t a, uint64_t b, uint64_t c, uint64_t d,
              uint64_t e)
{
    uint64_t r[] = { token, a, b, c, d, e, 0 };

    call(r);
    r4 = r[1];
    r5 = r[2];
    r6 = r[3];
    return r[0];
}

static void rtas(uint32_t token, uint32_t inputs, uint32_t a, uintptr_t b,
                 uintptr_t c)
{
    uint32_t arguments[] = { token, inputs, 1, a, b, c, 0 };
    uint64_t r[7] = { H_RTAS, (uintptr_t)arguments };

    call(r);
}

void start_second(void (*what)(void))
{
    rtas(RTAS_START_CPU, 3, 1, (uintptr_t)second, (uintptr_t)what);
}

void reboot(void)
{
    rtas(RTAS_REBOOT, 0, 0, 0, 0);
}

/* The next character of the terminal, which has up to 16 at a time */
static char get(void)
{
    static uint64_t words[2];
    static size_t at, count;

    while (at == count) {
        hcall(H_GET_TERM_CHAR, TERMINAL, 0, 0, 0, 0);
        at = 0;
        count = r4;
        words[0] = r5;
        words[1] = r6;
    }
    at++;
    return words[(at - 1) / 8] >> (56 - (at - 1) % 8 * 8);
}

void get_line(char *line, size_t size)
{
    size_t n = 0;
    char c;

    while ((c = get()) != '\n') {
        if (n < size - 1) {
            line[n++] = c;
        }
    }
    line[n] = 0;
}

void put(char c)
{
    hcall(H_PUT_TERM_CHAR, TERMINAL, 1, (uint64_t)c << 56, 0, 0);
}

void put_text(const char *text)
{
    while (*text) {
        put(*text++);
    }
}

void put_hex(uint32_t value)
{
    for (int shift = 28; shift >= 0; shift -= 4) {
        put("0123456789abcdef"[value >> shift & 15]);
    }
}

void put_number(int64_t value)
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

/* xorshift */
uint64_t next_random(uint64_t *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    return *seed;
}
