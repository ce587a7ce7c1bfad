# SPDX-License-Identifier: GPL-2.0-or-later
"""Run nested guests (L0, L1 and L2) with real kernels on this machine, or guests on a POWER host."""

import json
import os
import pathlib

from scripts.debian import binaries
from scripts.lib.command import Parser, main
from tests.lab import compare, here, libvirt, life, matrix, options, stack, tables
from tests.lab.live import Live


def print_result(args, result, describe):
    print(json.dumps(result) if args.json else '\n'.join(describe(result)))


def run_one(args, does=life.run, **usual):
    """Run one guest; 0 unless a step with libvirt is wrong."""
    run_of, log = options.run_of(args, **usual), []
    try:
        with Live() as live:
            result = does(run_of, live, log)
    finally:
        if args.log:
            args.log.write_text(''.join(f'{line}\n' for line in log))
    print_result(args, result, tables.describe)
    return 'libvirt' in result and not all(step['right'] for step in result['steps'])


def run_here(args):
    """Run guests on this machine; 0 exactly if our QEMU is right everywhere."""
    here.check()
    with Live() as live:
        result = here.measure(args, live)
    print_result(args, result, here.mail)
    return not result['right']


def run_matrix(args):
    # find mistakes before the first of many runs
    args.qemu = list(dict.fromkeys(args.qemu.split(',')))
    binaries.qemus([qemu for qemu in args.qemu if qemu not in binaries.OURS], args.qemu_root)
    return tables.run_matrix(args, matrix.select(matrix.rows(), args.only))


def json_option(parser):
    parser.add_argument('--json', action='store_true', help='print one JSON object and nothing else')


def run_options(parser, names=None):
    options.add_run(parser, names)
    json_option(parser)
    parser.add_argument('--log', type=options.output, metavar='FILE', help='write the output of all consoles to FILE')


def matrix_options(parser):
    parser.add_argument('--only', metavar='EXPR', help='key=value,... as in tests/lab/matrix.table')
    parser.add_argument('--qemu', metavar='QEMU,...', default=','.join(matrix.QEMUS), help='the QEMUs to compare, as '
                        'for scripts/lab run, distro and patched by default')
    parser.add_argument('--qemu-root', metavar='DIR', type=pathlib.Path, help=binaries.ROOT_HELP)
    parser.add_argument('--jobs', type=options.positive, default=tables.JOBS, metavar='N', help='hosts at a time')
    for kind, what in (('json', 'all results'), ('html', 'a page')):
        parser.add_argument(f'--{kind}', type=options.output, metavar='FILE',
                            help=f'write {what} there, and the consoles beside it')
    parser.add_argument('--against', type=matrix.load, metavar='FILE',
                        help='also say what changed since the run that wrote this --json')


def here_options(parser):
    program = options.file(os.X_OK, 'an executable: choose the path of qemu-system-ppc64 or qemu-kvm')
    kernel = options.file(os.R_OK, 'a readable file: choose a kernel, vmlinux or vmlinuz')
    parser.add_argument('--qemu', type=program, metavar='PATH', required=True, help='the QEMU to test')
    parser.add_argument('--other', type=program, metavar='PATH', help='a QEMU to compare it with')
    parser.add_argument('--kernel', type=kernel, metavar='VMLINUX',
                        help="the guests' kernel, this machine's own by default")
    parser.add_argument('--l2-machine', metavar='OPTS', help='more options of the pseries machine')
    json_option(parser)


# (command, help, options, function)
COMMANDS = (
    ('run', 'start one guest on one host', run_options, run_one),
    ('boot', "boot the guests that show the problem, under Debian's QEMU and ours", None, lambda _: tables.boot()),
    ('matrix', 'run all rows of tests/lab/matrix.table', matrix_options, run_matrix),
    ('compare', 'write the comparison of four QEMUs in README, and docs/compare.svg', None,
     lambda _: compare.compare()),
    ('libvirt', 'use libvirt on one host, step by step', lambda parser: run_options(parser, options.LIBVIRT),
     lambda args: run_one(args, libvirt.run, timeout=300)),
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
