/*
 * A partition of a few instructions that makes the hypercalls it is told to
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Each line of its console is a letter and hexadecimal numbers:
 *
 *   c TOKEN ARGUMENT...    make a hypercall, and print "= R3 R4 R5"
 *   p ADDRESS VALUE        store a doubleword
 *   g ADDRESS              print the doubleword there: "= VALUE"
 *   e                      end
 */

#include "partition.h"

static uint64_t number(const char **at)
{
    uint64_t value = 0;

    while (**at == ' ') {
        (*at)++;
    }
    while (**at && **at != ' ') {
        char c = *(*at)++;

        value = value << 4 | (c - (c < 'a' ? '0' : 'a' - 10));
    }
    return value;
}

static void show(const uint64_t *values, size_t count)
{
    put('=');
    for (size_t i = 0; i < count; i++) {
        put(' ');
        put_hex(values[i] >> 32);
        put_hex(values[i]);
    }
    put('\n');
}

void partition(void)
{
    static char line[160];

    do {
        uint64_t r[7];
        const char *at = line + 1;

        get_line(line, sizeof(line));
        for (size_t i = 0; i < sizeof(r) / sizeof(r[0]); i++) {
            r[i] = number(&at);
        }
        if (line[0] == 'c') {
            call(r);
            show(r, 3);
        } else if (line[0] == 'p') {
            *(volatile uint64_t *)r[0] = r[1];
        } else if (line[0] == 'g') {
            show((const uint64_t *)r[0], 1);
        }
    } while (line[0] != 'e');
    put_text("END\n");
}
