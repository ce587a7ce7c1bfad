# SPDX-License-Identifier: GPL-2.0-or-later
"""Run QEMU on a simulated /dev/kvm that can give any answer: see tests/kvmsim/README.md."""

import json
import os
import pathlib
import sys

from scripts.debian import binaries
from scripts.lib.command import Parser, main
from scripts.lib.system import Unknown, say, workers
from scripts.queue.topics import asked, queue
from tests.kvmsim import fuzz
from tests.kvmsim.machine import interrupted
from tests.kvmsim.scenario import ENDING, read, read_all
from tests.kvmsim.steps import perform
from tests.tap import tally

# The QEMUs of a suite without --qemu, and how many scenarios run at a time
USUAL, JOBS = ('patched', 'distro'), 2


def find(name):
    """The scenario NAME, FILE:NAME, or FILE if that has only one."""
    path, _, wanted = name.partition(':')
    if not ('/' in path or path.endswith(ENDING) or os.path.exists(path)):
        found = read_all()
        if name not in found:
            raise Unknown(f'{name} is not a scenario: choose one of {", ".join(found)}')
        return found[name]
    found = read(path)
    if not wanted and len(found) == 1:
        return next(iter(found.values()))
    if wanted not in found:
        raise Unknown(f'{path}:1: expected {path}:NAME, NAME one of {", ".join(found)}')
    return found[wanted]


def do_run(args):
    scenario, qemu = find(args.scenario), binaries.qemus([args.qemu], args.qemu_root)[0]
    result = perform(scenario, qemu.like, qemu, args.trace and os.path.abspath(args.trace))
    if args.json:
        print(json.dumps({'scenario': scenario.name, 'rows': scenario.behavior, 'qemu': args.qemu,
                          'outcome': result.outcome, 'reason': result.reason or None, 'seconds': result.seconds,
                          **result.details}))
    else:
        print(f'{result.outcome}: {scenario.name} ({args.qemu}): {scenario.title}')
    if result.reason:
        print(f'kvmsim: {result.reason}', file=sys.stderr)
    return result.outcome != 'passed'


def do_suite(args):
    topics = [known.name for known in asked(queue(), args.topic)]
    chosen = [find(name) for name in args.scenario] or read_all().values()
    chosen = [scenario for scenario in chosen if scenario.topic in topics]
    qemus = binaries.qemus([args.qemu] if args.qemu else USUAL, args.qemu_root)
    outcomes = []
    with workers(JOBS, interrupted.set) as pool:
        for scenario, results in zip(chosen, pool.map(
                lambda scenario: [perform(scenario, one.like, one) for one in qemus], chosen)):
            words = ', '.join(f'{one.name} {result.outcome}' for one, result in zip(qemus, results))
            print(f'{scenario.name:40} {" ".join(scenario.behavior):12} {words}; '
                  f'expected: {"differs" if scenario.differs else "same"} '
                  f'[{sum(result.seconds for result in results):.1f} s]',
                  *(f'    {one.name}: {result.reason}' for one, result in zip(qemus, results) if result.reason),
                  sep='\n', flush=True)
            outcomes += [result.outcome for result in results]
    passed = outcomes.count('passed')
    print(tally({'passed': passed, 'failed': len(outcomes) - passed, 'skipped': 0}))
    return passed < len(outcomes)


def do_fuzz(args):
    say('sanitized QEMU for ppc64le')
    return fuzz.run_seeds(binaries.built('kvm-ubsan'), args.seed, args.seconds)


def run():
    parser = Parser(prog='kvmsim', description=__doc__)
    commands = parser.add_subparsers(dest='command', required=True, metavar='COMMAND')

    def command(name, words, does):
        added = commands.add_parser(name, help=words, description=f'{words[0].upper()}{words[1:]}.')
        added.set_defaults(does=does)
        return added
    one = command('run', 'run one scenario on one QEMU', do_run)
    one.add_argument('scenario', metavar='SCENARIO', help='a name, or FILE[:NAME]')
    one.add_argument('--qemu', metavar='QEMU', default='patched', help=binaries.QEMU_HELP)
    one.add_argument('--json', action='store_true', help='print one object and nothing else')
    one.add_argument('--trace', metavar='FILE', help='write every ioctl there, decoded')
    many = command('suite', "run all scenarios, or those named, on ours and Debian's QEMU", do_suite)
    many.add_argument('scenario', nargs='*', metavar='SCENARIO', help='as for run')
    many.add_argument('--topic', metavar='NAME', help='only those of this topic of series/')
    many.add_argument('--qemu', metavar='QEMU', help='on this one')
    for added in (one, many):
        added.add_argument('--qemu-root', metavar='DIR', type=pathlib.Path, help=binaries.ROOT_HELP)
    chance = command('fuzz', 'run random hosts and guests on a sanitized QEMU', do_fuzz)
    chance.add_argument('--seconds', type=int, default=60, metavar='N',
                        help='start no new seed after N seconds; 0 runs one seed')
    chance.add_argument('--seed', type=int, default=1, metavar='S',
                        help='first seed; a seed is a host, a guest and a list of steps')
    command('list', 'print the names of all scenarios', lambda _: print('\n'.join(read_all())))
    args = parser.parse_args()
    try:
        return args.does(args)
    finally:
        interrupted.set()


if __name__ == '__main__':
    main(run, 'kvmsim')
