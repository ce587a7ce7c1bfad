/*
 * What a partition of a few instructions needs to call its hypervisor
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * It replaces the firmware, is big-endian, and has the first virtual terminal.
 * partition() is the program.
 */

#ifndef HCALL_PARTITION_H
#define HCALL_PARTITION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What the last hcall() returned beside its result */
extern uint64_t r4;

void partition(void);

/* Makes a hypercall with @r as r3 to r9, and updates @r; for any CPU */
void call(uint64_t r[7]);
/* Makes a hypercall, returns r3 and sets r4; for the first CPU only */
int64_t hcall(uint64_t token, uint64_t a, uint64_t b, uint64_t c, uint64_t d,
              uint64_t e);

/* Calls @what on the second CPU, which has a stack of its own */
void start_second(void (*what)(void));
/* Resets the partition, whose memory survives that; for any CPU */
void reboot(void);

static inline uint64_t timebase(void)
{
    uint64_t tb;

    __asm__ volatile("mftb %0" : "=r"(tb));
    return tb;
}

/* Reads a line, without its end, cut to @size - 1 characters */
void get_line(char *line, size_t size);
void put(char c);
void put_text(const char *text);
void put_hex(uint32_t value);
void put_number(int64_t value);

/* The next number of the sequence that starts with @seed, which is not 0 */
uint64_t next_random(uint64_t *seed);

#endif
