# Copyright (c) 2026 QEMU contributors
# SPDX-License-Identifier: GPL-2.0-or-later
"""The arguments that the simulated guest passes to ibm,client-architecture-support."""

import struct

from tests.kvmsim import power

VECTOR, FDT, FDT_SIZE = 0x1000000, 0x2000000, 0x100000
STRINGS, ARGS = 0x1800000, 0x1801000
TERMINATOR = struct.pack('>II', 0, 0xffffffff)


def pvr_list(entries, host):
    """The list as bytes, with its end record unless the entries exclude it."""
    records = b''.join(
        struct.pack('>II', mask, power.HOSTS[host] if value == 'host' else value) * count
        for value, mask, count in (entry for entry in entries if isinstance(entry, tuple)))
    ended = 'unterminated' not in entries and 'end-of-ram' not in entries
    return records + (TERMINATOR if ended else b'')


def vector(data):
    return bytes([len(data) - 1]) + data


def option_vectors(mmu):
    """Vectors 1 to 5: ISA 3.00, XIVE, and radix with GTSE or hash; old: none of these."""
    one, five = bytearray(4), bytearray(27)
    if mmu != 'old':
        one[3], five[22] = 0x80, 0x40
    if mmu == 'radix':
        five[23] = five[25] = 0x40
    vectors = [bytes(one), b'\0', b'\0', b'\0', bytes(five)]
    vectors = {'no-vectors': [], 'no-vector-5': vectors[:4]}.get(mmu, vectors)
    # the first byte is the number of vectors minus one
    return bytes([max(len(vectors) - 1, 0)]) + b''.join(vector(data) for data in vectors)


def pack(entries, host, mmu, memory):
    """(address, bytes) of the structure that CAS reads."""
    data = pvr_list(entries, host)
    if 'end-of-ram' in entries:
        return memory * 1024 * 1024 - len(data), data
    data += option_vectors(mmu)
    # zeroes follow a list without an end, not the data of an earlier call
    return VECTOR, data.ljust(0x2000, b'\0') if 'unterminated' in entries else data


def client_call(service, args, returns):
    """prom_args of an Open Firmware client call; its strings are at STRINGS."""
    strings, words = service.encode() + b'\0', []
    for arg in args:
        if isinstance(arg, str):
            words.append(STRINGS + len(strings))
            strings += arg.encode() + b'\0'
        else:
            words.append(arg)
    head = struct.pack(f'>III{len(words)}I', STRINGS, len(words), returns, *words)
    return strings, head.ljust(12 + 4 * 10, b'\0'), ARGS + 12 + 4 * len(words)
