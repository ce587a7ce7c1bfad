# SPDX-License-Identifier: GPL-2.0-or-later
"""The simulated host: the names of CPUs, modes and kernels, its device tree, and what its kernel answers."""

import errno
import struct

# Logical PVRs, the oldest first.
MODES = {
    'power6': 0x0f000002, 'power7': 0x0f000003, 'power7+': 0x0f100003, 'power8': 0x0f000004,
    'power9': 0x0f000005, 'power10': 0x0f000006, 'power11': 0x0f000007, 'future': 0x0f000008,
}
# Hosts: the top half of the raw PVR.  No QEMU knows the last one.
HOSTS = {'power9': 0x004e0000, 'power10': 0x00800000, 'power11': 0x00820000, 'future': 0x00830000}
RAW_MASK = 0xffff0000
# Bits of the compat-caps ioctl.
CAPS = {'power9': 1 << 62, 'power10': 1 << 61, 'power11': 1 << 60, 'future': 1 << 59}
# Kernels: has the ioctl; refuses Power11 if limited to POWER10; then marks the vCPU unrunnable.
KERNELS = {'7.3': (True, True, True), '7.2': (False, True, True), '6.12': (False, False, False)}

ERRNOS = ('EPERM', 'ENOENT', 'EIO', 'E2BIG', 'ENOMEM', 'EACCES', 'EFAULT', 'EBUSY', 'ENODEV',
          'EINVAL', 'ENOSPC', 'ENOTTY')
# KVM_CAP_PPC_COMPAT_CAPS and KVM_CAP_PPC_DAWR1
CAP_COMPAT_CAPS, CAP_DAWR1 = 250, 194
H_CAS, H_VOF_CLIENT = 0xf002, 0xf005
RETURNS = {'H_SUCCESS': 0, 'H_HARDWARE': -1, 'H_PARAMETER': -4}
ANY = -1


def refusals_of(version, host, mode):
    """(vCPU, value, errno, poison) of each mode that a kernel refuses on HOST, limited to MODE."""
    _, refuses, poisons = KERNELS[version]
    newer = [name for name in CAPS if MODES[name] > MODES[mode]]
    if not refuses and (host, mode) == ('power11', 'power10'):
        newer = []      # to this kernel, the same ISA is the same mode
    return [(ANY, MODES[name], 'EINVAL', poisons and name == 'power11') for name in newer]


def mode_name(value):
    """The name of the mode with logical PVR VALUE, or the number if it is unknown."""
    return 'raw' if value == 0 else {pvr: name for name, pvr in MODES.items()}.get(value, f'0x{value:08x}')


def effective(settings):
    """The name of the mode that the host is in."""
    return settings['host'] if settings['mode'] == 'none' else settings['mode']


def cpu_version(kind, host):
    """The bytes of the property, or None if it is absent."""
    odd = {'absent': None, 'truncated': b'\x0f\x00', 'long': struct.pack('>II', MODES['power10'], 0)}
    return odd[kind] if kind in odd else struct.pack('>I', HOSTS[host] | 0x0200 if kind == 'raw' else kind)


def write_device_tree(root, settings):
    """Write proc/device-tree/cpus as the host's kernel shows it."""
    kinds, cpus = settings['device-tree'], root / 'proc/device-tree/cpus'
    if kinds is None:
        kinds = [MODES[effective(settings)]]
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
    has_ioctl = KERNELS[settings['kernel']][0] and not pr
    extension = int(has_ioctl) if settings['extension'] is None else settings['extension']
    up_to_mode = sum(bit for name, bit in CAPS.items() if MODES[name] <= MODES[mode])
    bits = up_to_mode if settings['caps'] is None else settings['caps']
    yield f'pr {int(pr)}'
    yield f'extension {CAP_COMPAT_CAPS} {extension}'
    yield f'caps {bits:#x}'
    if settings['caps-error']:
        error, *how = settings['caps-error']
        yield ' '.join(map(str, ('caps-error', getattr(errno, error), *how)))
    elif not has_ioctl and not extension:
        yield f'caps-error {errno.ENOTTY} -1 -1'
    if MODES[mode] < MODES['power10']:
        yield f'extension {CAP_DAWR1} 0'
    yield from refuse_commands(refusals_of(settings['kernel'], settings['host'], mode)
                               if settings['refuse'] is None else settings['refuse'])


def refuse_commands(refusals):
    yield 'accept'
    for vcpu, value, error, poison in refusals:
        yield f'refuse {vcpu} {value} {getattr(errno, error)} {int(poison)}'
