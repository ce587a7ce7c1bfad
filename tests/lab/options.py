# Copyright (c) 2026 QEMU contributors
# SPDX-License-Identifier: GPL-2.0-or-later
"""What a run of the lab is told: the options of scripts/lab, and of the rows of a table."""

import os
import pathlib
import re

from lib.command import Parser
from lib.system import Unknown
from tests.lab import images, kernels, libvirt, life
from tests.lab.commands import APIS, HOSTS, MODES, POWERNV


def one_of(what, values):
    def check(text):
        if text not in values:
            raise Unknown(f'{text} is no {what}: choose one of {", ".join(values)}')
        return text
    return check


def positive(text):
    if not re.fullmatch('[1-9][0-9]{0,6}', text):
        raise Unknown(f'{text}: write a whole number from 1 to 9999999')
    return int(text)


def topology(text):
    if not re.fullmatch('[1-9][0-9]*(,(maxcpus|sockets|cores|threads)=[1-9][0-9]*)*', text):
        raise Unknown(f"{text} is no number of vCPUs: write it as QEMU's -smp takes it, 4 or 4,threads=2")
    return text


def readable(text):
    if not (os.path.isfile(text) and os.access(text, os.R_OK)):
        raise Unknown(f'{text} cannot be read: choose a kernel, vmlinux or vmlinuz')
    return pathlib.Path(text).resolve()


def program(text):
    if not (os.path.isfile(text) and os.access(text, os.X_OK)):
        raise Unknown(f'{text} is not an executable: choose the path of a qemu-system-ppc64, or of a qemu-kvm')
    return pathlib.Path(text).absolute()


def settle(args):
    """What was not said, and what does not go together."""
    cpu = POWERNV.get(args.l0_stack)
    only = {'host': cpu, 'api': 'v1', 'l0': 'distro'} if cpu else {}
    for name, value in only.items():
        if getattr(args, name) not in (None, value):
            raise Unknown(f'--l0-stack {args.l0_stack} has no --{name} {getattr(args, name)}: leave it out, or '
                          f'say {value}')
    usual = {'host': 'power11', 'api': 'v2', 'l0': 'patched', 'timeout': 600 if cpu else 120, **only}
    for name, value in usual.items():
        setattr(args, name, getattr(args, name) or value)
    if args.compat != 'none' and MODES.index(args.compat) > MODES.index(args.host):
        modes = ', '.join(('none', *MODES[:MODES.index(args.host) + 1]))
        raise Unknown(f'a {args.host} has no mode {args.compat}: choose one of {modes}')


def host_options(parser):
    """What names a host and the QEMU on it, and how a run is shown."""
    parser.add_argument('--host', type=one_of('host', HOSTS), help="L0's CPU, power11 unless said")
    parser.add_argument('--compat', type=one_of('mode', ('none', *MODES)), default='none', help="L1's mode")
    parser.add_argument('--api', type=one_of('API', tuple(APIS)), help='of nested KVM, v2 unless said')
    parser.add_argument('--kernel', type=one_of('suite', kernels.SUITES), help="whose newest kernel L1 runs")
    parser.add_argument('--qemu', type=one_of('QEMU', ('patched', 'distro')), default='patched', help='that runs L2')
    parser.add_argument('--l1-smp', type=one_of('number of CPUs for L1', ('1', '2', '3', '4')), metavar='N',
                        default='1', help="L1's CPUs, 1 to 4")
    parser.add_argument('--json', action='store_true', help='print one object and nothing else')
    parser.add_argument('--log', metavar='FILE', help='write all consoles there')


def run_options(parser):
    """What names a run beyond its host."""
    parser.set_defaults(by=life, l1_memory='1G', l1_initrd=images.l1_initrd)
    parser.add_argument('--l0-stack', type=one_of('machine', tuple(POWERNV)), metavar='MACHINE',
                        help='Linux KVM HV as L0, on an emulated powernv10 or powernv11')
    parser.add_argument('--pages', type=one_of('page size', tuple(kernels.FLAVOURS)), default='4k',
                        help="page size of L1's kernel, 4k or 64k")
    parser.add_argument('--l0', type=one_of('L0', ('patched', 'distro')),
                        help='patched (default) refuses L2 a mode that L1 does not have, as PowerVM does')
    parser.add_argument('--l2-machine', metavar='OPTS', help='more options of the pseries machine')
    parser.add_argument('--l2-cpu', metavar='CPU', default='host', help="L2's CPU, host by default")
    parser.add_argument('--smp', type=topology, metavar='N', default='1', help="L2's vCPUs, as QEMU's -smp takes them")
    parser.add_argument('--do', type=one_of('step', tuple(life.STEPS)), action='append', default=[], metavar='STEP',
                        help=f'when L2 is up: {", ".join(life.STEPS)}; can be repeated, and runs in this order')
    parser.add_argument('--timeout', type=positive, metavar='S', help='seconds that L0 may run')


def libvirt_options(parser):
    """What else a run with libvirt takes, and what it does not leave open."""
    parser.set_defaults(by=libvirt, l0=None, l0_stack=None, pages='4k', smp='1', do=[], l1_memory='2G',
                        l1_initrd=libvirt.l1_initrd)
    parser.add_argument('--timeout', type=positive, default=300, metavar='S',
                        help='seconds that L1, or a step, may take')


# {command that makes one run: its own options}
OWN = {'run': run_options, 'libvirt': libvirt_options}


def add_options(parser, command):
    """The options of COMMAND, run or libvirt."""
    host_options(parser)
    OWN[command](parser)


def complete(config):
    """Fill in what was not said; what does not go together is an error."""
    settle(config)
    config.kernel = kernels.newest_suite(config.pages) if config.kernel in (None, 'newest') else config.kernel
    return config


def config_of(words, command='run'):
    """What "scripts/lab COMMAND WORDS" would run."""
    parser = Parser(prog=f'scripts/lab {command}', add_help=False)
    add_options(parser, command)
    return complete(parser.parse_args(words))
