/*
 * Tests of the set of CPU modes that a host lets a guest have
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
    PPCHostCompat host = {
        .modes = modes,
        .cpu_pvr = cpu_pvr,
        .source = PPC_HOST_COMPAT_KVM,
        .kvm_hv = true,
    };

    ppc_host_compat_set(&host);
}

static void test_from_bits(void)
{
    static const struct {
        uint64_t bits;
        uint32_t cpu_pvr;
        uint64_t modes;
    } rows[] = {
        { 0, POWER11, 0 },
        { UINT64_MAX, POWER11, P9 | P10 | P11 },
        { 0x7000000000000000, POWER11, P9 | P10 | P11 },
        { 0x6000000000000000, POWER11, P9 | P10 },
        { 0x4000000000000000, POWER11, P9 },
        /* Hole at the bottom: PowerVM has no POWER9 mode for L2 */
        { 0x3000000000000000, POWER11, P10 | P11 },
        { 0x5000000000000000, POWER11, P9 | P11 },
        /* Only bits that nobody has defined yet */
        { ~0x7000000000000000, POWER11, 0 },
        { 0x0800000000000001, POWER11, 0 },
        { 0xa000000000000000, POWER11, P10 },
        /* Nothing newer than the CPU itself */
        { 0x7000000000000000, POWER10, P9 | P10 },
        { 0x5000000000000000, POWER10, P9 },
        { 0x1000000000000000, POWER9, 0 },
        /* A CPU without a logical PVR says nothing */
        { 0x7000000000000000, NONE, P9 | P10 | P11 },
    };

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        g_assert_cmphex(ppc_host_compat_from_bits(rows[i].bits,
                                                  rows[i].cpu_pvr), ==,
                        rows[i].modes);
    }
}

static void test_from_cpu_version(void)
{
    static const struct {
        uint32_t version;
        uint64_t modes;
    } rows[] = {
        { 0, 0 },
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
        g_assert_cmphex(ppc_host_compat_from_cpu_version(rows[i].version), ==,
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
        /* Power11 limited to POWER10 */
        { P9 | P10, POWER11, RAW, false },
        { P9 | P10, POWER11, POWER11, false },
        { P9 | P10, POWER11, POWER10, true },
        { P9 | P10, POWER11, POWER9, true },
        { P9 | P10, POWER11, FUTURE, false },
        /* Older than what the bits can express: left to KVM */
        { P9 | P10, POWER11, POWER8, true },
        { P9 | P10, POWER11, POWER7, true },
        { P9 | P10, POWER11, POWER7_PLUS, true },
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
        /* A CPU without a logical PVR is no reason to refuse raw mode */
        { P9, 0, RAW, true },
    };

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        set_host(rows[i].modes, rows[i].cpu_pvr);
        g_assert_cmpint(ppc_host_compat_allows(rows[i].pvr), ==,
                        rows[i].allows);
        if (rows[i].pvr == RAW) {
            g_assert_cmpint(ppc_host_compat_is_limited(), ==,
                            !rows[i].allows);
        }
    }
}

static void test_neighbours(void)
{
    static const struct {
        uint64_t modes;
        uint32_t pvr, older, newer;
    } rows[] = {
        { 0, POWER10, NONE, NONE },
        { P9 | P10 | P11, NONE, NONE, POWER9 },
        { P9 | P10 | P11, POWER9, NONE, POWER10 },
        { P9 | P10 | P11, POWER10, POWER9, POWER11 },
        { P9 | P10 | P11, POWER11, POWER10, NONE },
        { P9 | P10 | P11, UINT32_MAX, POWER11, NONE },
        { P9 | P10, UINT32_MAX, POWER10, NONE },
        { P9 | P11, POWER10, POWER9, POWER11 },
        { P9 | P11, POWER11, POWER9, NONE },
        { P10 | P11, NONE, NONE, POWER10 },
        { P10 | P11, POWER10, NONE, POWER11 },
        { P9, FUTURE, POWER9, NONE },
        { P9, POWER8, NONE, POWER9 },
    };

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        set_host(rows[i].modes, POWER11);
        g_assert_cmphex(ppc_host_compat_older(rows[i].pvr), ==, rows[i].older);
        g_assert_cmphex(ppc_host_compat_newer(rows[i].pvr), ==, rows[i].newer);
    }
}

static void test_source(void)
{
    set_host(P9, POWER10);
    g_assert_cmpint(ppc_host_compat()->source, ==, PPC_HOST_COMPAT_KVM);
    g_assert_cmphex(ppc_host_compat()->modes, ==, P9);
    g_assert_true(ppc_host_compat()->kvm_hv);

    /* No modes, no source: but still KVM HV */
    set_host(0, POWER10);
    g_assert_cmpint(ppc_host_compat()->source, ==, PPC_HOST_COMPAT_NONE);
    g_assert_true(ppc_host_compat()->kvm_hv);

    g_assert_cmpstr(ppc_host_compat_source_name(PPC_HOST_COMPAT_NONE), ==,
                    "none");
    g_assert_cmpstr(ppc_host_compat_source_name(PPC_HOST_COMPAT_KVM), ==,
                    "kvm");
    g_assert_cmpstr(ppc_host_compat_source_name(PPC_HOST_COMPAT_DEVICE_TREE),
                    ==, "device-tree");
}

static void test_unset(void)
{
    g_assert_cmphex(ppc_host_compat()->modes, ==, 0);
    g_assert_cmpint(ppc_host_compat()->source, ==, PPC_HOST_COMPAT_NONE);
    g_assert_false(ppc_host_compat()->kvm_hv);
    g_assert_false(ppc_host_compat_is_limited());
    g_assert_true(ppc_host_compat_allows(POWER11));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    /* First: the others leave a host behind */
    g_test_add_func("/ppc-host-compat/unset", test_unset);
    g_test_add_func("/ppc-host-compat/from-bits", test_from_bits);
    g_test_add_func("/ppc-host-compat/from-cpu-version",
                    test_from_cpu_version);
    g_test_add_func("/ppc-host-compat/allows", test_allows);
    g_test_add_func("/ppc-host-compat/neighbours", test_neighbours);
    g_test_add_func("/ppc-host-compat/source", test_source);
    return g_test_run();
}
