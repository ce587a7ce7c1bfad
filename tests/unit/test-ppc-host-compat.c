/*
 * Tests of the CPU compatibility modes that the host allows a guest
 *
 * Copyright (c) 2026 QEMU contributors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "target/ppc/host-compat.h"

#define P9      PPC_HOST_COMPAT_POWER9
#define P10     PPC_HOST_COMPAT_POWER10
#define P11     PPC_HOST_COMPAT_POWER11

enum {
    POWER7      = 0x0f000003,
    POWER7_PLUS = 0x0f100003,
    POWER8      = 0x0f000004,
    POWER9      = 0x0f000005,
    POWER10     = 0x0f000006,
    POWER11     = 0x0f000007,
    FUTURE      = 0x0f000008,
    RAW         = 0,
    NONE        = 0,
};

static void set_host(uint64_t modes, uint32_t cpu_pvr)
{
    ppc_host_compat = (PPCHostCompat) { .modes = modes, .cpu_pvr = cpu_pvr };
}

static void test_up_to(void)
{
    static const struct {
        uint32_t pvr;
        uint64_t modes;
    } rows[] = {
        { NONE, 0 },
        { POWER7, 0 },
        { POWER7_PLUS, 0 },
        { POWER8, 0 },
        { POWER9, P9 },
        { POWER10, P9 | P10 },
        { POWER11, P9 | P10 | P11 },
        { FUTURE, 0 },
        /* Raw PVRs: POWER9, POWER10, Power11 */
        { 0x004e1202, 0 },
        { 0x00801200, 0 },
        { 0x00820200, 0 },
        { UINT32_MAX, 0 },
        /* The right bytes in the wrong order */
        { 0x0500000f, 0 },
    };

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        g_assert_cmphex(ppc_host_compat_up_to(rows[i].pvr), ==,
                        rows[i].modes);
    }
}

static void test_allows(void)
{
    static const struct {
        uint64_t modes;
        uint32_t cpu_pvr, pvr;
        bool allows;
    } rows[] = {
        /* Nothing known: nothing refused */
        { 0, POWER11, RAW, true },
        { 0, POWER11, POWER11, true },
        { 0, POWER9, POWER11, true },
        { 0, NONE, RAW, true },
        /* Power11 limited to POWER10 */
        { P9 | P10, POWER11, RAW, false },
        { P9 | P10, POWER11, POWER11, false },
        { P9 | P10, POWER11, POWER10, true },
        { P9 | P10, POWER11, POWER9, true },
        /* Older than what the bits can express: left to KVM */
        { P9 | P10, POWER11, POWER8, true },
        { P9 | P10, POWER11, POWER7, true },
        { P9 | P10, POWER11, POWER7_PLUS, true },
        /* Not a mode that QEMU knows: ppc_set_compat() rejects it */
        { P9 | P10, POWER11, FUTURE, true },
        /* POWER10 limited to POWER9 */
        { P9, POWER10, RAW, false },
        { P9, POWER10, POWER10, false },
        { P9, POWER10, POWER9, true },
        /* Not limited */
        { P9 | P10, POWER10, RAW, true },
        { P9 | P10 | P11, POWER11, RAW, true },
        /* Holes */
        { P10 | P11, POWER11, RAW, true },
        { P10 | P11, POWER11, POWER9, false },
        { P10 | P11, POWER11, POWER8, true },
        { P9 | P11, POWER11, POWER10, false },
    };

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        set_host(rows[i].modes, rows[i].cpu_pvr);
        g_assert_cmpint(ppc_host_compat_allows(rows[i].pvr), ==,
                        rows[i].allows);
    }
}

static void test_older(void)
{
    static const struct {
        uint64_t modes;
        uint32_t pvr, older;
    } rows[] = {
        { P9 | P10 | P11, NONE, NONE },
        { P9 | P10 | P11, POWER9, NONE },
        { P9 | P10 | P11, POWER10, POWER9 },
        { P9 | P10 | P11, POWER11, POWER10 },
        { P9 | P10 | P11, UINT32_MAX, POWER11 },
        { P9 | P10, UINT32_MAX, POWER10 },
        { P9 | P11, POWER11, POWER9 },
        { P10 | P11, POWER10, NONE },
        { P9, FUTURE, POWER9 },
        { P9, POWER8, NONE },
        /* Nothing known: the next older mode that there is */
        { 0, POWER11, POWER10 },
        { 0, POWER9, NONE },
    };

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        set_host(rows[i].modes, POWER11);
        g_assert_cmphex(ppc_host_compat_older(rows[i].pvr), ==, rows[i].older);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/ppc-host-compat/up-to", test_up_to);
    g_test_add_func("/ppc-host-compat/allows", test_allows);
    g_test_add_func("/ppc-host-compat/older", test_older);
    return g_test_run();
}
