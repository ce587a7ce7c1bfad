# SPDX-License-Identifier: GPL-2.0-or-later
"""A run of the stack, described by the options of scripts/lab or by a row of the table."""

import argparse
import dataclasses
import os
import pathlib
import re

from scripts.debian import binaries, kernels
from scripts.lib.command import Parser
from scripts.lib.system import Unknown
from tests.lab import life
from tests.lab.commands import APIS, HOSTS, MODES, POWERNV

TOPOLOGY = re.compile('[1-9][0-9]*(,(maxcpus|sockets|cores|threads)=[1-9][0-9]*)*')


def positive(text):
    if not text.isdecimal() or not int(text):
        raise Unknown(f'{text} is not a positive number: give one')
    return int(text)


def topology(text):
    if not TOPOLOGY.fullmatch(text):
        raise Unknown(f"{text} is not a number of vCPUs: write it as for QEMU's -smp, such as 4 or 4,threads=2")
    return text


def file(access, what):
    """The type of an option for an existing file that allows ACCESS; WHAT says what it must be."""
    def check(text):
        if not (os.path.isfile(text) and os.access(text, access)):
            raise Unknown(f'{text} is not {what}')
        return pathlib.Path(text).absolute()
    return check


def output(text):
    path = pathlib.Path(text)
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise Unknown(f'cannot write {text}: give a file in an existing directory')
    return path


def option(default, words, **how):
    """A field of Run, and how argparse reads it."""
    return dataclasses.field(default=default, metadata={'help': words, **how})


@dataclasses.dataclass
class Run:
    """A guest (L2) on a host (L1); None stands for a default that depends on the other options."""
    host: str = option(None, "L0's CPU, power11 by default", choices=HOSTS)
    compat: str = option('none', "L1's mode, none by default", choices=('none', *MODES))
    api: str = option(None, 'version of the nested API, v2 by default', choices=tuple(APIS))
    kernel: str = option('newest', 'suite whose newest kernel L1 and L2 run; newest, the default, is the newest '
                         'release of them all that has KVM_PPC_GET_COMPAT_CAPS', choices=('newest', *kernels.SUITES))
    pages: str = option('4k', "page size of L1's kernel, 4k by default", choices=tuple(kernels.FLAVORS))
    l0: str = option(None, 'patched, the default, refuses L2 a mode that L1 does not have, as PowerVM does',
                     choices=('patched', 'distro'))
    l0_stack: str = option(None, 'Linux KVM HV as L0, on this emulated machine', choices=tuple(POWERNV))
    l1_smp: str = option('1', "number of L1's CPUs", choices=('1', '2', '3', '4'))
    qemu: str = option('patched', binaries.QEMU_HELP, metavar='QEMU')
    qemu_root: pathlib.Path = option(None, binaries.ROOT_HELP, metavar='DIR', type=pathlib.Path)
    l2_machine: str = option(None, 'more options of the pseries machine', metavar='OPTS')
    l2_cpu: str = option('host', "L2's CPU, host by default", metavar='CPU')
    smp: str = option('1', "L2's vCPUs, as for QEMU's -smp", metavar='N', type=topology)
    do: list = option((), 'step when L2 is up; can be repeated', choices=tuple(life.STEPS), action='append')
    timeout: int = option(None, 'seconds that L0 may run; with libvirt, that L1 or a step may take', metavar='S',
                          type=positive)

    def __post_init__(self):
        cpu = POWERNV.get(self.l0_stack)
        only = {'host': cpu, 'api': 'v1', 'l0': 'distro'} if cpu else {}
        for name, value in only.items():
            if getattr(self, name) not in (None, value):
                raise Unknown(f'--l0-stack {self.l0_stack} does not allow --{name} {getattr(self, name)}: omit it, '
                              f'or use {value}')
        usual = {'host': 'power11', 'api': 'v2', 'l0': 'patched', 'timeout': 600 if cpu else 120, **only}
        for name, value in usual.items():
            setattr(self, name, getattr(self, name) or value)
        modes = ('none', *MODES[:MODES.index(self.host) + 1])
        if self.compat not in modes:
            raise Unknown(f'a {self.host} has no mode {self.compat}: choose one of {", ".join(modes)}')

    def binary(self):
        """The QEMU that runs L2."""
        return binaries.qemus([self.qemu], self.qemu_root)[0]

    def l1(self):
        """What decides whether another run can use the same L1."""
        return (self.l0_stack, self.l0, self.host, self.compat, self.api, self.kernel, self.pages, self.l1_smp,
                self.qemu, self.qemu_root)


# The options of "scripts/lab libvirt"
LIBVIRT = ('host', 'compat', 'api', 'kernel', 'l1_smp', 'qemu', 'qemu_root', 'timeout')


def add_run(parser, names=None):
    """Add the options for the fields NAMES of a run, or for all."""
    for field in dataclasses.fields(Run):
        if not names or field.name in names:
            parser.add_argument(f'--{field.name.replace("_", "-")}', default=argparse.SUPPRESS, **field.metadata)


def run_of(args, **usual):
    """The run that the options ARGS describe; USUAL has other defaults than Run."""
    names = {field.name for field in dataclasses.fields(Run)}
    return Run(**usual | {name: value for name, value in vars(args).items() if name in names})


def run_of_row(row, qemu, qemu_root=None):
    """The run of ROW with QEMU."""
    parser = Parser()
    add_run(parser)
    return run_of(parser.parse_args(row.options()), qemu=qemu, qemu_root=qemu_root, timeout=600)
