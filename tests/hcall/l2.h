/*
 * How a partition runs a guest, with either nested API
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HCALL_L2_H
#define HCALL_L2_H

#include "partition.h"

/* The size that a partition or process table entry gives its tree */
#define TREE_OF_52_BITS         (2ULL << 61 | 5 << 5)

enum l2_state {
    L2_GPR3, L2_NIA, L2_MSR, L2_LPCR, L2_DPDES, L2_CIABR, L2_DAWR0, L2_DAWRX0,
    L2_DAWR1, L2_DAWRX1, L2_PURR, L2_SPURR, L2_VTB,
    /* how far its timebase is ahead of the partition's */
    L2_TB_OFFSET,
    /* when they expire, in ticks of the timebase; with v1, L2_DEC is not kept */
    L2_DEC, L2_HDEC,
    /* of the interrupt that it left with */
    L2_HDSISR, L2_HEIR,
    /* v2 only */
    L2_VPA, L2_MMCR0, L2_PMC5, L2_PMC6,
    L2_STATES
};

/**
 * create_l2: make the guest
 * @roots: its partition-scoped tables, of 52 bits
 * @processes: its process table of 4 KiB, an address of its own
 */
void create_l2(const uint64_t *roots, uint64_t processes);

/* Does the hypervisor still know the guest that was created last? */
bool l2_is_known(void);

void l2_set(enum l2_state what, uint64_t value);
uint64_t l2_get(enum l2_state what);

/* Returns the vector that the guest left with, and the result with v2 */
uint64_t enter_l2(void);

/* Invalidates the guest's translations on all CPUs; returns the result */
int64_t invalidate_l2(void);
/* The same by a call that names the partition's own tables (v2 only) */
int64_t invalidate_own(void);

#endif
