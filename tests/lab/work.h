/*
 * Work for a guest, which notices lost pages and lost interrupts
 *
 * Copyright (c) 2026 QEMU contributors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef LAB_WORK_H
#define LAB_WORK_H

#include <stdbool.h>
#include <stdint.h>

/**
 * work_start: start the worker processes, which run until the guest ends
 *
 * Returns: false with errno set if one of them cannot be started.
 */
bool work_start(void);

/**
 * work_check: make every worker check all of its memory
 * @rounds: rounds that all workers have done since they were started
 * @wrong: blocks that did not hold what had been written to them
 *
 * Returns: the number of workers that did not answer, which means that they
 * crashed or that an interrupt was lost.
 */
int work_check(uint64_t *rounds, uint64_t *wrong);

#endif
