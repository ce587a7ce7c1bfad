# SPDX-License-Identifier: GPL-2.0-or-later
"""The simulated guest, which calls ibm,client-architecture-support."""

import struct

from tests.kvmsim import power
from tests.kvmsim.machine import Failed

VECTOR, FDT, FDT_SIZE = 0x1000000, 0x2000000, 0x100000
STRINGS, ARGS = 0x1800000, 0x1801000
TERMINATOR = struct.pack('>II', 0, 0xffffffff)


def pvr_list(entries, host):
    """The list as bytes, with its end record unless the entries exclude it."""
    records = b''.join(struct.pack('>II', mask, power.HOSTS[host] if value == 'host' else value) * count
                       for value, mask, count in (entry for entry in entries if isinstance(entry, tuple)))
    return records + (b'' if {'unterminated', 'end-of-ram'} & {*entries} else TERMINATOR)


def option_vectors(mmu):
    """Vectors 1 to 5: ISA 3.00, XIVE, and radix with GTSE or hash; old: none of these."""
    one, five = bytearray(4), bytearray(27)
    if mmu != 'old':
        one[3], five[22] = 0x80, 0x40
    if mmu == 'radix':
        five[23] = five[25] = 0x40
    vectors = [bytes(one), b'\0', b'\0', b'\0', bytes(five)]
    vectors = {'no-vectors': [], 'no-vector-5': vectors[:4]}.get(mmu, vectors)
    # the first byte is the number of vectors minus one, and that of each vector its length minus one
    return bytes([max(len(vectors) - 1, 0)]) + b''.join(bytes([len(data) - 1]) + data for data in vectors)


def pack(entries, host, mmu, memory):
    """(address, bytes) of the structure that CAS reads."""
    data = pvr_list(entries, host)
    if 'end-of-ram' in entries:
        return memory * 1024 * 1024 - len(data), data
    data += option_vectors(mmu)
    # zeroes follow a list without an end, not the data of an earlier call
    return VECTOR, data.ljust(0x2000, b'\0') if 'unterminated' in entries else data


def prom_args(service, args, returns):
    """Its strings, which are at STRINGS, the arguments of an Open Firmware client call, and the result's address."""
    strings, words = service.encode() + b'\0', []
    for arg in args:
        if isinstance(arg, str):
            words.append(STRINGS + len(strings))
            strings += arg.encode() + b'\0'
        else:
            words.append(arg)
    head = struct.pack(f'>III{len(words)}I', STRINGS, len(words), returns, *words)
    return strings, head.ljust(12 + 4 * 10, b'\0'), ARGS + 12 + 4 * len(words)


class Guest:
    """The guest of MACHINE, which runs no code but makes hypercalls."""

    def __init__(self, machine):
        # what VOF returned; else the hypercall's result is that of the call
        self.machine, self.returned = machine, None

    def hypercall(self, number, *args):
        """Make a hypercall, and wait until it returns or the machine stops."""
        state = self.machine.state()
        if state != 'running':
            raise Failed(f'the guest cannot run: the machine is in state {state}')
        began = len(self.machine.events)
        sequence, = self.machine.kernel(' '.join(['hypercall', *(f'{word:#x}' for word in (number, *args))]))
        self.machine.wait('end of the hypercall', lambda: any(
            self.machine.happened(event, began) for event in ('STOP', f'idle {sequence}')), dead_is_fine=True)

    def poke(self, address, data):
        if data:
            self.machine.kernel(f'poke {address:#x} {data.hex()}')

    def client_call(self, service, *args):
        """Call VOF's client interface, and return the result."""
        strings, block, result = prom_args(service, args, 2 if len(args) > 1 else 1)
        self.poke(STRINGS, strings)
        self.poke(ARGS, block)
        self.hypercall(power.H_VOF_CLIENT, ARGS)
        return None if self.machine.exit is not None else int(self.machine.kernel(f'peek {result:#x}')[0])

    def cas(self, entries, mmu):
        """Call ibm,client-architecture-support with the list ENTRIES."""
        settings = self.machine.settings
        address, data = pack(entries, settings['host'], mmu, settings['memory'])
        self.poke(address, data)
        if settings['firmware'] == 'vof':
            root = self.client_call('open', '/')
            self.returned = self.client_call('call-method', 'ibm,client-architecture-support', root, address)
        else:
            self.hypercall(power.H_CAS, address, FDT, FDT_SIZE)

    def result(self):
        """What the last call returned, even if the guest has not run since."""
        return int(self.machine.kernel('result')[0]) if self.returned is None else self.returned
