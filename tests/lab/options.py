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


def positive(text):
    if not text.isdecimal() or not int(text):
        raise Unknown(f'{text} is not a positive number: give one')
    return int(text)


def like(pattern, what):
    """The type of an option whose value matches PATTERN; WHAT says what it must be."""
    def check(text):
        if not re.fullmatch(pattern, text):
            raise Unknown(f'{text} is not {what}')
        return text
    return check


topology = like('[1-9][0-9]*(,(maxcpus|sockets|cores|threads)=[1-9][0-9]*)*',
                "a number of vCPUs: write it as for QEMU's -smp, such as 4 or 4,threads=2")
size = like('[1-9][0-9]*[MG]', "a size of memory: write it as for QEMU's -m, such as 512M or 8G")


def destination(text):
    """(CPU, mode) of a host."""
    host, _, compat = text.partition(',')
    if host not in HOSTS:
        raise Unknown(f'{text} is not a host: give {", ".join(HOSTS)}, or one of them, a comma, and its mode')
    return host, compat or 'none'


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
    l2_kernel: str = option(None, "suite whose newest kernel L2 runs, that of --kernel by default",
                            choices=('bookworm', *kernels.SUITES))
    pages: str = option('4k', "page size of L1's kernel, 4k by default", choices=tuple(kernels.FLAVORS))
    l0: str = option(None, 'patched, the default, refuses L2 a mode that L1 does not have, as PowerVM does',
                     choices=('patched', 'distro'))
    l0_stack: str = option(None, 'Linux KVM HV as L0, on this emulated machine', choices=tuple(POWERNV))
    l1_smp: str = option('1', "number of L1's CPUs", choices=('1', '2', '3', '4'))
    qemu: str = option('patched', binaries.QEMU_HELP, metavar='QEMU')
    qemu_root: pathlib.Path = option(None, binaries.ROOT_HELP, metavar='DIR', type=pathlib.Path)
    libvirt: str = option('trixie', "suite whose libvirt L1 runs, trixie by default", choices=('trixie', 'sid'))
    l2_machine: str = option(None, 'more options of the pseries machine', metavar='OPTS')
    l2_cpu: str = option('host', "L2's CPU, host by default", metavar='CPU')
    l2_append: str = option(None, "more words of L2's kernel command line", metavar='WORDS')
    memory: str = option('256M', "L2's memory, as for QEMU's -m, 256M by default", metavar='SIZE', type=size)
    virtio: bool = option(False, 'give L2 a virtio disk and a virtio network card', action='store_true')
    installer: bool = option(False, "boot the kernel and the initramfs of Debian's installer as L2, from a disk with "
                             'grub', action='store_true')
    smp: str = option('1', "L2's vCPUs, as for QEMU's -smp", metavar='N', type=topology)
    do: list = option((), 'step when L2 is up; can be repeated', choices=tuple(life.STEPS), action='append')
    to: tuple = option(None, 'the host that the step move migrates L2 to: its CPU, or CPU,MODE', metavar='HOST',
                       type=destination)
    timeout: int = option(None, 'seconds that L0 may run; with libvirt, that L1 or a step may take', metavar='S',
                          type=positive)

    def __post_init__(self):
        cpu = POWERNV.get(self.l0_stack)
        only = {'host': cpu, 'api': 'v1', 'l0': 'distro'} if cpu else {}
        for name, value in only.items():
            if getattr(self, name) not in (None, value):
                raise Unknown(f'--l0-stack {self.l0_stack} does not allow --{name} {getattr(self, name)}: omit it, '
                              f'or use {value}')
        usual = {'host': 'power11', 'api': 'v2', 'l0': 'patched', 'l2_kernel': self.kernel,
                 'timeout': 600 if cpu else 120, **only}
        for name, value in usual.items():
            setattr(self, name, getattr(self, name) or value)
        for host, compat in filter(None, [(self.host, self.compat), self.to]):
            modes = ('none', *MODES[:MODES.index(host) + 1])
            if compat not in modes:
                raise Unknown(f'a {host} has no mode {compat}: choose one of {", ".join(modes)}')
        if self.installer and (self.do or self.l2_append):
            raise Unknown('--installer has its own command line, and does not work: omit --l2-append and --do')
        if bool(self.to) != ('move' in self.do) or (self.to and cpu):
            raise Unknown('--do move and --to HOST need each other, and no --l0-stack: change one of them')

    def other(self):
        """The run whose host is that of --to, and that moves L2 back."""
        return dataclasses.replace(self, host=self.to[0], compat=self.to[1], to=(self.host, self.compat))

    def binary(self):
        return binaries.qemus([self.qemu], self.qemu_root)[0]

    def l1(self):
        """What decides whether another run can use the same L1."""
        return (self.l0_stack, self.l0, self.host, self.compat, self.api, self.kernel, self.l2_kernel, self.pages,
                self.installer, self.l1_smp, self.libvirt, self.qemu, self.qemu_root, self.to)


# The options of "scripts/lab libvirt"
LIBVIRT = ('host', 'compat', 'api', 'kernel', 'l1_smp', 'libvirt', 'qemu', 'qemu_root', 'timeout')


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
    parser = Parser()
    add_run(parser)
    return run_of(parser.parse_args(row.options()), qemu=qemu, qemu_root=qemu_root, timeout=600)
