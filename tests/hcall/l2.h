/*
 * How a partition runs a guest, with either nested API
 *
 * Copyright (c) 2026 QEMU contributors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HCALL_L2_H
#define HCALL_L2_H

#include "partition.h"

/* The size that a partition or process table entry gives its tree */
#define TREE_OF_52_BITS         (2ULL << 61 | 5 << 5)

struct entry {
    uint64_t nia;
    uint64_t msr;
    uint64_t lpcr;
    /* When they expire, in ticks of the timebase */
    uint64_t dec;
    uint64_t hdec;
    uint64_t dpdes;
    uint64_t ciabr;
    uint64_t dawr;
    uint64_t dawrx;
};

/**
 * create_l2: make the guest
 * @roots: its partition-scoped tables, of 52 bits
 * @processes: its process table of 4 KiB, an address of its own
 */
void create_l2(const uint64_t *roots, uint64_t processes);

/* Sets the guest's timebase ahead of the partition's by @ticks */
void shift_timebase(uint64_t ticks);

/* Sets PURR, SPURR and VTB of the guest */
void set_counters(uint64_t value);

/* Makes PMC5 of the guest overflow after @instructions (v2 only) */
void count_instructions(uint32_t instructions);

/* Does the hypervisor still know the guest that was created last? */
bool l2_is_known(void);

/* Returns the vector that the guest left with */
uint64_t enter_l2(const struct entry *entry);

/* Invalidates the guest's translations on all CPUs; returns the result */
int64_t invalidate_l2(void);
/* The same by a call that names the partition's own tables (v2 only) */
int64_t invalidate_own(void);

/* State of the guest after it left */
uint64_t l2_gpr3(void);
uint64_t l2_dec(void);
uint64_t l2_dpdes(void);
uint64_t l2_hdsisr(void);
uint64_t l2_heir(void);
uint64_t l2_purr(void);
uint64_t l2_spurr(void);
uint64_t l2_vtb(void);

/* Registers an area for the guest; returns which one it has then */
uint64_t l2_vpa(uint64_t area);

#endif
