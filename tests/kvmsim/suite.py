# Copyright (c) 2026 QEMU contributors
# SPDX-License-Identifier: GPL-2.0-or-later
"""Finding scenarios by name, and running many of them."""

import os

from scripts.debian import binaries
from scripts.lib.system import Unknown
from scripts.queue.topics import asked, queue
from tests.kvmsim.machine import workers
from tests.kvmsim.scenario import ENDING, read, read_all
from tests.kvmsim.steps import perform
from tests.tap import tally

# Without --qemu
USUAL = ('patched', 'distro')
JOBS = 2


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


def report(scenario, results):
    """Print the line of a scenario, and return the outcomes of its QEMUs."""
    words = ', '.join(f'{qemu} {result["outcome"]}' for qemu, result in results.items())
    differs = 'differs' if scenario.differs else 'same'
    print(f'{scenario.name:40} {" ".join(scenario.behavior):12} {words}; expected: {differs} '
          f'[{sum(one["seconds"] for one in results.values()):.1f} s]', flush=True)
    for qemu, result in results.items():
        if result['reason']:
            print(f'    {qemu}: {result["reason"]}', flush=True)
    return [result['outcome'] for result in results.values()]


def suite(names, topic, qemu, root=None):
    """Run the scenarios NAMES, or all of TOPIC, or all, on both QEMUs or on QEMU; return 0 if all pass."""
    topics = [known.name for known in asked(queue(), topic)]
    chosen = [find(name) for name in names] or read_all().values()
    chosen = [scenario for scenario in chosen if scenario.topic in topics]
    qemus = binaries.qemus([qemu] if qemu else USUAL, root)

    def both(scenario):
        return {one.name: perform(scenario, one.like, one) for one in qemus}
    outcomes = []
    with workers(JOBS) as pool:
        for scenario, results in zip(chosen, pool.map(both, chosen)):
            outcomes += report(scenario, results)
    passed = outcomes.count('passed')
    print(tally({'passed': passed, 'failed': len(outcomes) - passed, 'skipped': 0}))
    return passed < len(outcomes)
