/*
 * A guest of the nested PAPR API (v2)
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "l2.h"

#define H_RPT_INVALIDATE        0x448
#define ALL_CPUS                1
#define NESTED                  1
#define TLB                     2

#define H_GUEST_GET_CAPABILITIES 0x460
#define H_GUEST_SET_CAPABILITIES 0x464
#define H_GUEST_CREATE          0x470
#define H_GUEST_CREATE_VCPU     0x474
#define H_GUEST_GET_STATE       0x478
#define H_GUEST_SET_STATE       0x47c
#define H_GUEST_RUN_VCPU        0x480
#define H_GUEST_DELETE          0x488
#define GUEST_WIDE              (1ULL << 63)

/* Elements of the guest state buffer; those below INPUT_BUFFER are guest-wide */
#define PARTITION_TABLE         0x0005
#define PROCESS_TABLE           0x0006
#define INPUT_BUFFER            0x0c00
#define OUTPUT_BUFFER           0x0c01
#define WORDS                   0x2000
#define VECTORS                 0x3000
#define OUTPUT                  0xf000

static const uint16_t elements[L2_STATES] = {
    [L2_TB_OFFSET] = 0x0004, [L2_VPA] = 0x0c02, [L2_GPR3] = 0x1003,
    [L2_HDEC] = 0x1020, [L2_NIA] = 0x1021, [L2_MSR] = 0x1022,
    [L2_DEC] = 0x102a, [L2_VTB] = 0x102b, [L2_LPCR] = 0x102c,
    [L2_DAWR0] = 0x1030, [L2_CIABR] = 0x1032, [L2_PURR] = 0x1033,
    [L2_SPURR] = 0x1034, [L2_MMCR0] = 0x103b, [L2_DPDES] = 0x1053,
    [L2_DAWR1] = 0x1031, [L2_DAWRX0] = 0x2005, [L2_DAWRX1] = 0x2006,
    [L2_PMC5] = 0x200b, [L2_PMC6] = 0x200c, [L2_HDSISR] = 0xf001,
    [L2_HEIR] = 0xf002,
};

/* A guest state buffer with one element */
static struct {
    uint32_t elements;
    uint16_t id, size;
    uint64_t value[3];
} one;

static struct buffer {
    uint32_t elements;
    uint8_t data[4092];
} in __attribute__((aligned(4096))), out __attribute__((aligned(4096)));

static uint64_t guest;

static int64_t transfer(uint64_t token, uint16_t id, uint16_t size)
{
    one.elements = 1;
    one.id = id;
    one.size = size;
    return hcall(token, id < INPUT_BUFFER ? GUEST_WIDE : 0, guest, 0,
                 (uintptr_t)&one, sizeof(one));
}

static void set(uint16_t id, uint16_t size, uint64_t a, uint64_t b, uint64_t c)
{
    one.value[0] = a;
    one.value[1] = b;
    one.value[2] = c;
    transfer(H_GUEST_SET_STATE, id, size);
}

static bool is_word(enum l2_state what)
{
    return elements[what] >= WORDS && elements[what] < VECTORS;
}

void l2_set(enum l2_state what, uint64_t value)
{
    set(elements[what], is_word(what) ? 4 : 8,
        is_word(what) ? value << 32 : value, 0, 0);
}

/* The value of element ID in the output buffer, or -1 */
static uint64_t find(uint16_t id)
{
    const uint8_t *at = out.data;

    for (uint32_t i = 0; i < out.elements; i++) {
        uint16_t this = at[0] << 8 | at[1], size = at[2] << 8 | at[3];
        uint64_t value = 0;

        for (at += 4; size; size--) {
            value = value << 8 | *at++;
        }
        if (this == id) {
            return value;
        }
    }
    return -1;
}

uint64_t l2_get(enum l2_state what)
{
    if (elements[what] >= OUTPUT) {
        return find(elements[what]);
    }
    one.value[0] = 0;
    transfer(H_GUEST_GET_STATE, elements[what], is_word(what) ? 4 : 8);
    return is_word(what) ? one.value[0] >> 32 : one.value[0];
}

bool l2_is_known(void)
{
    return !transfer(H_GUEST_GET_STATE, elements[L2_GPR3], 8);
}

void create_l2(const uint64_t *roots, uint64_t processes)
{
    int64_t result;

    hcall(H_GUEST_GET_CAPABILITIES, 0, 0, 0, 0, 0);
    hcall(H_GUEST_SET_CAPABILITIES, 0, r4, 0, 0, 0);
    result = hcall(H_GUEST_CREATE, 0, -1, 0, 0, 0);
    guest = r4;
    put_text("CREATE ");
    put_number(result);
    put(' ');
    put_hex(guest);
    put('\n');
    /* one that it does not need */
    hcall(H_GUEST_CREATE, 0, -1, 0, 0, 0);
    hcall(H_GUEST_DELETE, 0, r4, 0, 0, 0);
    set(PARTITION_TABLE, 24, (uintptr_t)roots, 52, 1 << 16);
    set(PROCESS_TABLE, 16, processes, 4096, 0);
    hcall(H_GUEST_CREATE_VCPU, 0, guest, 0, 0, 0);
    set(INPUT_BUFFER, 16, (uintptr_t)&in, sizeof(in), 0);
    set(OUTPUT_BUFFER, 16, (uintptr_t)&out, sizeof(out), 0);
}

uint64_t enter_l2(void)
{
    int64_t result = hcall(H_GUEST_RUN_VCPU, 0, guest, 0, 0, 0);

    return r4 | result << 16;
}

static int64_t invalidate(uint64_t id, uint64_t type)
{
    uint64_t r[] = { H_RPT_INVALIDATE, id, ALL_CPUS, type, -1, 0, -1 };

    call(r);
    return r[0];
}

int64_t invalidate_l2(void)
{
    return invalidate(guest, NESTED | TLB);
}

int64_t invalidate_own(void)
{
    return invalidate(0, TLB);
}
