# Copyright (c) 2026 QEMU contributors
# SPDX-License-Identifier: GPL-2.0-or-later
"""The options of a run, from scripts/lab or from a row of a table."""

import os
import pathlib
import re

from scripts.debian.binaries import QEMUS
from scripts.lib.command import Parser
from scripts.lib.system import Unknown
from tests.lab import images, kernels, libvirt, life, matrix
from tests.lab.commands import APIS, HOSTS, MODES, POWERNV


def one_of(what, values):
    def check(text):
        if text not in values:
            raise Unknown(f'{text} is not a valid {what}: choose one of {", ".join(values)}')
        return text
    return check


def positive(text):
    if not re.fullmatch('[1-9][0-9]{0,6}', text):
        raise Unknown(f'{text}: write a whole number from 1 to 9999999')
    return int(text)


def topology(text):
    if not re.fullmatch('[1-9][0-9]*(,(maxcpus|sockets|cores|threads)=[1-9][0-9]*)*', text):
        raise Unknown(f"{text} is not a number of vCPUs: write it as for QEMU's -smp, such as 4 or 4,threads=2")
    return text


def readable(text):
    if not (os.path.isfile(text) and os.access(text, os.R_OK)):
        raise Unknown(f'{text} is not a readable file: choose a kernel, vmlinux or vmlinuz')
    return pathlib.Path(text).resolve()


def program(text):
    if not (os.path.isfile(text) and os.access(text, os.X_OK)):
        raise Unknown(f'{text} is not an executable: choose the path of qemu-system-ppc64 or qemu-kvm')
    return pathlib.Path(text).absolute()


def settle(args):
    """Set the defaults, and check that the options fit together."""
    cpu = POWERNV.get(args.l0_stack)
    only = {'host': cpu, 'api': 'v1', 'l0': 'distro'} if cpu else {}
    for name, value in only.items():
        if getattr(args, name) not in (None, value):
            raise Unknown(f'--l0-stack {args.l0_stack} does not allow --{name} {getattr(args, name)}: omit it, or '
                          f'use {value}')
    usual = {'host': 'power11', 'api': 'v2', 'l0': 'patched', 'timeout': 600 if cpu else 120, **only}
    for name, value in usual.items():
        setattr(args, name, getattr(args, name) or value)
    if args.compat != 'none' and MODES.index(args.compat) > MODES.index(args.host):
        modes = ', '.join(('none', *MODES[:MODES.index(args.host) + 1]))
        raise Unknown(f'a {args.host} has no mode {args.compat}: choose one of {modes}')


def host_options(parser):
    """Add the options for a host, for the QEMU on it, and for the output."""
    parser.add_argument('--host', type=one_of('host', HOSTS), help="L0's CPU, power11 by default")
    parser.add_argument('--compat', type=one_of('mode', ('none', *MODES)), default='none', help="L1's mode")
    parser.add_argument('--api', type=one_of('API', tuple(APIS)), help='version of the nested API, v2 by default')
    parser.add_argument('--kernel', type=one_of('suite', kernels.SUITES), help='suite whose newest kernel L1 runs')
    parser.add_argument('--l1-smp', type=one_of('number of CPUs for L1', ('1', '2', '3', '4')), metavar='N',
                        default='1', help="L1's CPUs, 1 to 4")
    parser.add_argument('--json', action='store_true', help='print one JSON object and nothing else')
    parser.add_argument('--log', metavar='FILE', help='write the output of all consoles to FILE')


def run_options(parser):
    """Add the other options of "scripts/lab run"."""
    parser.set_defaults(by=life, l1_memory='1G', l1_initrd=images.l1_initrd)
    parser.add_argument('--qemu', type=one_of('QEMU', tuple(QEMUS)), default='patched',
                        help="the QEMU that runs L2: patched (default), distro for Debian's, or upstream for one with "
                             "upstream's own version")
    parser.add_argument('--l0-stack', type=one_of('machine', tuple(POWERNV)), metavar='MACHINE',
                        help='Linux KVM HV as L0, on an emulated powernv10 or powernv11')
    parser.add_argument('--pages', type=one_of('page size', tuple(kernels.FLAVORS)), default='4k',
                        help="page size of L1's kernel, 4k or 64k")
    parser.add_argument('--l0', type=one_of('L0', ('patched', 'distro')),
                        help='patched (default) refuses L2 a mode that L1 does not have, as PowerVM does')
    parser.add_argument('--l2-machine', metavar='OPTS', help='more options of the pseries machine')
    parser.add_argument('--l2-cpu', metavar='CPU', default='host', help="L2's CPU, host by default")
    parser.add_argument('--smp', type=topology, metavar='N', default='1', help="L2's vCPUs, as for QEMU's -smp")
    parser.add_argument('--do', type=one_of('step', tuple(life.STEPS)), action='append', default=[], metavar='STEP',
                        help=f'step when L2 is up: {", ".join(life.STEPS)}; can be repeated, runs in the given order')
    parser.add_argument('--timeout', type=positive, metavar='S', help='seconds that L0 may run')


def libvirt_options(parser):
    """Add the other options of "scripts/lab libvirt", and set those that are fixed."""
    parser.set_defaults(by=libvirt, l0=None, l0_stack=None, pages='4k', smp='1', do=[], l1_memory='2G',
                        l1_initrd=libvirt.l1_initrd)
    parser.add_argument('--qemu', type=one_of('QEMU', matrix.QEMUS), default='patched',
                        help="the QEMU that runs L2: patched (default), or distro for Debian's")
    parser.add_argument('--timeout', type=positive, default=300, metavar='S',
                        help='seconds that L1, or a step, may take')


# {command: its own options}
OWN = {'run': run_options, 'libvirt': libvirt_options}


def add_options(parser, command):
    """Add the options of COMMAND, run or libvirt."""
    host_options(parser)
    OWN[command](parser)


def complete(config):
    """Set the defaults, and check that the options fit together."""
    settle(config)
    config.kernel = kernels.newest_suite(config.pages) if config.kernel in (None, 'newest') else config.kernel
    return config


def config_of(words, command='run'):
    """The configuration of "scripts/lab COMMAND WORDS"."""
    parser = Parser(prog=f'scripts/lab {command}', add_help=False)
    add_options(parser, command)
    return complete(parser.parse_args(words))
