# Copyright (c) 2026 QEMU contributors
# SPDX-License-Identifier: GPL-2.0-or-later
"""Run nested guests (L0, L1 and L2) with real kernels on this machine, or guests on a POWER host."""

import json
import os

from scripts.debian.binaries import QEMUS
from scripts.lib.command import Parser, main
from scripts.lib.system import Error, Unknown
from tests.lab import here, libvirt, matrix, options, stack, tables
from tests.lab.hosts import JOBS
from tests.lab.live import Live
from tests.lab.words import describe


def open_log(name, option):
    try:
        return open(name or os.devnull, 'w', encoding='utf-8')
    except OSError as e:
        raise Unknown(f'cannot write {name} ({e.strerror}): give {option} a file in an existing directory') from None


def run_one(args):
    """Run one guest; 0 unless a step with libvirt is wrong."""
    log = []
    with open_log(args.log, '--log') as file, Live() as live:
        try:
            result, _ = args.by.run(options.complete(args), live, log)
        finally:
            file.writelines(f'{line}\n' for line in log)
    print(json.dumps(result) if args.json else '\n'.join(describe(result)))
    return 'libvirt' in result and not libvirt.is_right(result)


def run_here(args):
    """Run guests on this machine; 0 exactly if our QEMU is right everywhere."""
    with open_log(args.html, '--html') as file, Live() as live:
        lack = here.missing()
        if lack:
            raise Error(lack)
        result = here.measure(args, live)
        file.write(here.page(result))
    print(json.dumps(result) if args.json else '\n'.join(here.mail(result)))
    return not result['right']


def run_matrix(args):
    if args.qemu and args.html:
        raise Unknown('--html compares two QEMUs: omit it, or omit --qemu')
    return tables.run_matrix(args.only, [args.qemu] if args.qemu else matrix.QEMUS, args.jobs, args.json, args.html)


def matrix_options(parser):
    parser.add_argument('--only', metavar='EXPR', help='key=value,... as in tests/lab/matrix.cfg')
    parser.add_argument('--qemu', choices=QEMUS, help='only this one instead of patched and distro')
    parser.add_argument('--jobs', type=options.positive, default=JOBS, metavar='N', help='hosts at a time')
    parser.add_argument('--json', metavar='FILE', help='write all results there')
    parser.add_argument('--html', metavar='FILE', help='write a page there')


def here_options(parser):
    parser.add_argument('--qemu', type=options.program, metavar='PATH', required=True, help='the QEMU to test')
    parser.add_argument('--other', type=options.program, metavar='PATH', help='a QEMU to compare it with')
    parser.add_argument('--kernel', type=options.readable, metavar='VMLINUX',
                        help="the guests' kernel, this machine's own by default")
    parser.add_argument('--l2-machine', metavar='OPTS', help='more options of the pseries machine')
    parser.add_argument('--json', action='store_true', help='print one object and nothing else')
    parser.add_argument('--html', metavar='FILE', help='write a page there')


# (command, help, options, function)
COMMANDS = (
    ('run', 'start one guest on one host', lambda parser: options.add_options(parser, 'run'), run_one),
    ('boot', "boot the guests that show the problem, under Debian's QEMU and ours", None,
     lambda _: tables.boot()),
    ('matrix', 'run all rows of tests/lab/matrix.cfg', matrix_options, run_matrix),
    ('libvirt', 'use libvirt on one host, step by step',
     lambda parser: options.add_options(parser, 'libvirt'), run_one),
    ('libvirt-all', 'use libvirt on four hosts, with both nested APIs', None,
     lambda _: tables.run_libvirt(libvirt.ROWS)),
    ('here', 'test guests on this machine, a POWER host with KVM', here_options, run_here),
    ('smoke', 'run the guests of make check', None, lambda _: tables.smoke()),
    ('libvirt-smoke', 'use libvirt on the host of make check', None, lambda _: tables.run_libvirt(libvirt.SMOKE)),
)


def run():
    parser = Parser(description=__doc__)
    commands = parser.add_subparsers(dest='command', required=True, metavar='COMMAND')
    for name, words, add, does in COMMANDS:
        command = commands.add_parser(name, help=words, description=f'{words[0].upper()}{words[1:]}.')
        command.set_defaults(does=does)
        if add:
            add(command)
    args = parser.parse_args()
    try:
        return args.does(args)
    except KeyboardInterrupt:
        stack.end_all()
        raise


if __name__ == '__main__':
    main(run, 'scripts/lab')
