# Copyright (c) 2026 QEMU contributors
# SPDX-License-Identifier: GPL-2.0-or-later
"""The names in a scenario: CPUs, modes, and kernels with their answers."""

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


def up_to(mode):
    """The bits of every mode from POWER9 up to MODE."""
    return sum(bit for name, bit in CAPS.items() if MODES[name] <= MODES[mode])


def refusals(version, host, mode):
    """(vCPU, value, errno, poison) of each mode that a kernel refuses on HOST, limited to MODE."""
    _, refuses, poisons = KERNELS[version]
    newer = [name for name in CAPS if MODES[name] > MODES[mode]]
    if not refuses and (host, mode) == ('power11', 'power10'):
        newer = []      # to this kernel, the same ISA is the same mode
    return [(ANY, MODES[name], 'EINVAL', poisons and name == 'power11') for name in newer]


def mode_name(value):
    """The name of the mode with logical PVR VALUE, or the number if it is unknown."""
    names = {pvr: name for name, pvr in MODES.items()}
    return 'raw' if value == 0 else names.get(value, f'0x{value:08x}')
