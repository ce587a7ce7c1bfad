/*
 * What target/ppc/host-compat.[ch] use of QEMU's osdep.h
 *
 * Copyright (c) 2026 QEMU contributors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef SHIM_QEMU_OSDEP_H
#define SHIM_QEMU_OSDEP_H

#include <glib.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>

#define ARRAY_SIZE(array) G_N_ELEMENTS(array)

typedef struct Error Error;

#endif /* SHIM_QEMU_OSDEP_H */
