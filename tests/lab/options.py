# Copyright (c) 2026 QEMU contributors
# SPDX-License-Identifier: GPL-2.0-or-later
"""A run of the stack, described by the options of scripts/lab or by a row of the table."""

import argparse
import dataclasses
import os
import pathlib
import re

from scripts.debian import binaries, kernels
from scripts.lib.system import Unknown
from tests.lab import life
from tests.lab.commands import APIS, HOSTS, MODES, POWERNV

# {option: (what it is, its values)}
VALUES = {
    'host': ('host', HOSTS), 'compat': ('mode', ('none', *MODES)), 'api': ('API', tuple(APIS)),
    'kernel': ('suite', ('newest', *kernels.SUITES)), 'pages': ('page size', tuple(kernels.FLAVORS)),
    'l0': ('L0', ('patched', 'distro')), 'l0_stack': ('machine', (None, *POWERNV)),
    'l1_smp': ('number of CPUs for L1', ('1', '2', '3', '4')),
}
TOPOLOGY = re.compile('[1-9][0-9]*(,(maxcpus|sockets|cores|threads)=[1-9][0-9]*)*')


@dataclasses.dataclass
class Run:
    """A guest (L2) on a host (L1); None stands for a default that depends on the other options."""
    host: str = None
    compat: str = 'none'
    api: str = None
    kernel: str = 'newest'
    pages: str = '4k'
    l0: str = None
    l0_stack: str = None
    l1_smp: str = '1'
    qemu: str = 'patched'
    qemu_root: pathlib.Path = None
    l2_machine: str = None
    l2_cpu: str = 'host'
    smp: str = '1'
    do: tuple = ()
    timeout: int = None

    def __post_init__(self):
        cpu = POWERNV.get(self.l0_stack)
        only = {'host': cpu, 'api': 'v1', 'l0': 'distro'} if cpu else {}
        for name, value in only.items():
            if getattr(self, name) not in (None, value):
                raise Unknown(f'--l0-stack {self.l0_stack} does not allow --{name} {getattr(self, name)}: omit it, or '
                              f'use {value}')
        usual = {'host': 'power11', 'api': 'v2', 'l0': 'patched', 'timeout': 600 if cpu else 120, **only}
        for name, value in usual.items():
            setattr(self, name, getattr(self, name) or value)
        self._check()

    def _check(self):
        for name, (what, values) in VALUES.items():
            check_one(what, values, getattr(self, name))
        for step in self.do:
            check_one('step', tuple(life.STEPS), step)
        if not TOPOLOGY.fullmatch(self.smp):
            raise Unknown(f"{self.smp} is not a number of vCPUs: write it as for QEMU's -smp, such as 4 or "
                          '4,threads=2')
        if self.compat != 'none' and MODES.index(self.compat) > MODES.index(self.host):
            modes = ', '.join(('none', *MODES[:MODES.index(self.host) + 1]))
            raise Unknown(f'a {self.host} has no mode {self.compat}: choose one of {modes}')

    def binary(self):
        """The QEMU that runs L2."""
        return binaries.qemus([self.qemu], self.qemu_root)[0]

    def l1(self):
        """What decides whether another run can use the same L1."""
        return (self.l0_stack, self.l0, self.host, self.compat, self.api, self.kernel, self.pages, self.l1_smp,
                self.qemu, self.qemu_root)


FIELDS = tuple(field.name for field in dataclasses.fields(Run))
# {field: (metavar, help)}
HELP = {
    'host': ('CPU', f"L0's CPU: {', '.join(HOSTS)} (default)"),
    'compat': ('MODE', f"L1's mode: none (default), {', '.join(MODES)}"),
    'api': ('API', 'version of the nested API: v1, v2 (default)'),
    'kernel': ('SUITE', f"suite whose newest kernel L1 and L2 run: {', '.join(kernels.SUITES)}; newest (default) is "
               'the newest release of them all that has KVM_PPC_GET_COMPAT_CAPS'),
    'l1_smp': ('N', "L1's CPUs, 1 to 4"),
    'qemu': ('QEMU', binaries.QEMU_HELP),
    'qemu_root': ('DIR', binaries.ROOT_HELP),
    'l0_stack': ('MACHINE', f'Linux KVM HV as L0, on an emulated {" or ".join(POWERNV)}'),
    'pages': ('SIZE', "page size of L1's kernel: 4k (default), 64k"),
    'l0': ('QEMU', 'patched (default) refuses L2 a mode that L1 does not have, as PowerVM does; or distro'),
    'l2_machine': ('OPTS', 'more options of the pseries machine'),
    'l2_cpu': ('CPU', "L2's CPU, host by default"),
    'smp': ('N', "L2's vCPUs, as for QEMU's -smp"),
    'do': ('STEP', f'step when L2 is up: {", ".join(life.STEPS)}; can be repeated, runs in the given order'),
    'timeout': ('S', 'seconds that L0 may run; with libvirt, that L1 or a step may take'),
}
# The options of "scripts/lab libvirt"
LIBVIRT = ('host', 'compat', 'api', 'kernel', 'l1_smp', 'qemu', 'qemu_root', 'timeout')


def check_one(what, values, text):
    if text not in values:
        raise Unknown(f'{text} is not a valid {what}: choose one of {", ".join(filter(None, values))}')


def positive(text):
    if not re.fullmatch('[1-9][0-9]{0,6}', text):
        raise Unknown(f'{text}: write a whole number from 1 to 9999999')
    return int(text)


def readable(text):
    if not (os.path.isfile(text) and os.access(text, os.R_OK)):
        raise Unknown(f'{text} is not a readable file: choose a kernel, vmlinux or vmlinuz')
    return pathlib.Path(text).resolve()


def program(text):
    if not (os.path.isfile(text) and os.access(text, os.X_OK)):
        raise Unknown(f'{text} is not an executable: choose the path of qemu-system-ppc64 or qemu-kvm')
    return pathlib.Path(text).absolute()


def add_options(parser, names=FIELDS):
    """Add the options for the fields NAMES of a run, and for the output."""
    kinds = {'timeout': {'type': positive}, 'do': {'action': 'append'}, 'qemu_root': {'type': pathlib.Path}}
    for name in names:
        metavar, words = HELP[name]
        parser.add_argument(f'--{name.replace("_", "-")}', metavar=metavar, help=words, default=argparse.SUPPRESS,
                            **kinds.get(name, {}))
    parser.add_argument('--json', action='store_true', help='print one JSON object and nothing else')
    parser.add_argument('--log', metavar='FILE', help='write the output of all consoles to FILE')


def run_of(args, **usual):
    """The run that the options ARGS describe; USUAL has other defaults than Run."""
    return Run(**{**usual, **{name: value for name, value in vars(args).items() if name in FIELDS}})


def run_of_row(row, qemu, qemu_root=None):
    """The run of ROW with QEMU."""
    options = [(option[2:].replace('-', '_'), value) for option, value in row.options()]
    lost = {name for name, _ in options} - {*FIELDS}
    if lost:
        raise Unknown(f'matrix.table: scripts/lab run has no option {", ".join(lost)}')
    return Run(**{**dict(options), 'do': tuple(value for name, value in options if name == 'do'),
                  'qemu': qemu, 'qemu_root': qemu_root, 'timeout': 600})
