/*
 * A partition of a few instructions that passes random lists to CAS
 *
 * Copyright (c) 2026 QEMU contributors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * It reads the seed of the lists from its console.
 */

#include "partition.h"

#define H_CAS       0xf002
#define CALLS       200
#define RECORDS     512     /* QEMU reads no more */
#define LIST        0x400000
#define TREE        0x800000
#define TREE_SIZE   0x100000

static uint64_t seed;

static uint32_t next(uint32_t below)
{
    return (next_random(&seed) >> 16) % below;
}

static uint32_t *put_record(uint32_t *at, uint32_t mask, uint32_t pvr)
{
    at[0] = mask;
    at[1] = pvr;
    return at + 2;
}

/* A random number of records, and five option vectors without requests */
static void fill(uint32_t *at)
{
    static const uint32_t pvrs[] = {
        0, 0x0f000003, 0x0f100003, 0x0f000004, 0x0f000005, 0x0f000006,
        0x0f000007, 0x0f000008, 0x00820000,
    };
    uint32_t records = next(16) ? next(12) : next(RECORDS + 1);

    for (uint32_t i = 0; i < records; i++) {
        uint32_t mask = next(32) ? 0xffffffff : 0xffff0000;

        at = put_record(at, mask,
                        mask & pvrs[next(sizeof(pvrs) / sizeof(pvrs[0]))]);
    }
    if (records < RECORDS) {
        at = put_record(at, 0, 0xffffffff);
    }
    at = put_record(at, 0x04000000, 0);
    put_record(at, 0, 0);
}

void partition(void)
{
    uint64_t taken = 0;
    char line[8];

    get_line(line, sizeof(line));
    for (size_t i = 0; line[i]; i++) {
        seed = seed * 10 + line[i];
    }
    for (int i = 0; i < CALLS; i++) {
        fill((uint32_t *)LIST);
        taken += hcall(H_CAS, LIST, TREE, TREE_SIZE, 0, 0) == 0;
    }
    put_text("TAKEN ");
    put_number(taken);
    put_text("\nREFUSED ");
    put_number(CALLS - taken);
    put_text("\nEND\n");
}
