/*
 * A partition of a few instructions that sets the logical PVR of a guest
 *
 * Copyright (c) 2026 QEMU contributors
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * For each value it makes one H_GUEST_SET_STATE call, reads the element
 * back, and prints both results: "SET VALUE RESULT" and "GET VALUE".
 */

#include "partition.h"

#define LOGICAL_PVR                 3

static const uint32_t values[] = {
    0, 0x0f000004, 0x0f000005, 0x0f000006, 0x0f000007, 0x0f000008, 0x00820200,
    0xffffffff,
};

/* The guest state buffer of the nested PAPR API, with one element */
static struct {
    uint32_t elements;
    uint16_t id;
    uint16_t size;
    uint32_t value;
} __attribute__((packed, aligned(4096))) buffer;

static int64_t state(uint64_t token, uint64_t guest)
{
    return hcall(token, GUEST_WIDE, guest, 0, (uintptr_t)&buffer,
                 sizeof(buffer));
}

void partition(void)
{
    uint64_t guest = create_guest();

    buffer.elements = 1;
    buffer.id = LOGICAL_PVR;
    buffer.size = sizeof(buffer.value);
    for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
        buffer.value = values[i];
        put_text("SET ");
        put_hex(values[i]);
        put(' ');
        put_number(state(H_GUEST_SET_STATE, guest));
        state(H_GUEST_GET_STATE, guest);
        put_text("\nGET ");
        put_hex(buffer.value);
        put('\n');
    }
    put_text("END\n");
}
