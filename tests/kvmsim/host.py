# Copyright (c) 2026 QEMU contributors
# SPDX-License-Identifier: GPL-2.0-or-later
"""The simulated host: its device tree, and what its kernel answers."""

import errno
import struct

from tests.kvmsim import power


def effective(settings):
    """The name of the mode that the host is in."""
    return settings['host'] if settings['mode'] == 'none' else settings['mode']


def vcpus_of(settings):
    return int(settings['smp'].split(',')[0])


def cpu_version(kind, host):
    """The bytes of the property, or None if it is absent."""
    odd = {'absent': None, 'truncated': b'\x0f\x00', 'long': struct.pack('>II', power.MODES['power10'], 0)}
    if kind in odd:
        return odd[kind]
    return struct.pack('>I', power.HOSTS[host] | 0x0200 if kind == 'raw' else kind)


def write_device_tree(root, settings):
    """Write proc/device-tree/cpus as the host's kernel shows it."""
    kinds, cpus = settings['device-tree'], root / 'proc/device-tree/cpus'
    if kinds is None:
        kinds = [power.MODES[effective(settings)]]
    nodes = {f'PowerPC,{settings["host"].upper()}@{8 * i:x}': {
        'device_type': b'cpu\0', 'reg': struct.pack('>I', 8 * i), 'clock-frequency': struct.pack('>I', 4000000000),
        'ibm,dec-bits': struct.pack('>I', 56), 'cpu-version': cpu_version(kind, settings['host']),
    } for i, kind in enumerate(kinds)}
    if nodes:
        # PowerVM has cache nodes beside the CPUs, which QEMU must skip, like a type as long as "cpu".
        # With several nodes, some are read before a CPU and some after.
        nodes |= {f'l{level}-cache@{level}00{n}': {'device_type': b'cache\0'} for level in (2, 3) for n in range(4)}
        nodes['pic@4000'] = {'device_type': b'pic\0'}
    for node, properties in nodes.items():
        (cpus / node).mkdir(parents=True)
        for name, value in properties.items():
            if value is not None:
                (cpus / node / name).write_bytes(value)


def kernel_commands(settings):
    """The commands for the control socket that set up the simulated kernel."""
    mode, pr = effective(settings), settings['kvm'] == 'pr'
    has_ioctl = power.KERNELS[settings['kernel']][0] and not pr
    extension = int(has_ioctl) if settings['extension'] is None else settings['extension']
    bits = power.up_to(mode) if settings['caps'] is None else settings['caps']
    yield f'pr {int(pr)}'
    yield f'extension {power.CAP_COMPAT_CAPS} {extension}'
    yield f'caps {bits:#x} {settings["caps-size"]}'
    if settings['caps-error']:
        error, *how = settings['caps-error']
        yield ' '.join(map(str, ('caps-error', getattr(errno, error), *how)))
    elif not has_ioctl and not extension:
        yield f'caps-error {errno.ENOTTY} -1 -1'
    if power.MODES[mode] < power.MODES['power10']:
        yield f'extension {power.CAP_DAWR1} 0'
    yield from refuse_commands(power.refusals(settings['kernel'], settings['host'], mode)
                               if settings['refuse'] is None else settings['refuse'])


def refuse_commands(refusals):
    yield 'accept'
    for vcpu, value, error, poison in refusals:
        yield f'refuse {vcpu} {value} {getattr(errno, error)} {int(poison)}'
