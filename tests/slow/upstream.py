# Copyright (c) 2026 QEMU contributors
# SPDX-License-Identifier: GPL-2.0-or-later
"""Test the series over upstream's own version: all scenarios, and guests on some hosts.  Prints TAP.

The base is the chosen one with the stand-in tests/queue/upstream.patch, unless
it has upstream's version itself.
"""

import itertools
import os

from scripts.debian import binaries
from scripts.lib.command import Parser, main
from scripts.lib.system import say
from scripts.queue import bases
from tests.kvmsim.machine import end_all, workers
from tests.kvmsim.scenario import read_all
from tests.kvmsim.steps import perform
from tests.kvmsim.suite import JOBS
from tests.lab import matrix, tables
from tests.queue import stand_in
from tests.tap import Point, report


def in_kvmsim(names, binary):
    """The Point of each of the scenarios NAMES."""
    with workers(JOBS) as pool:
        results = pool.map(lambda scenario: perform(scenario, 'patched', binary), map(read_all().get, names))
        for result in results:
            yield Point(result['scenario'], result['reason'] or '')


def in_lab(rows):
    """The Point of each of ROWS."""
    for row, _, result, _ in tables.run_rows(rows, ['patched'], say):
        outcome = matrix.came_to(result)
        yield Point(f'{row.l1()}, {row.api}, {row.kernel} kernel',
                    '' if outcome == row.patched else f'{outcome} instead of {row.patched}')


def run():
    parser = Parser(description=__doc__)
    parser.add_argument('scenarios', nargs='*', metavar='SCENARIO', help='only these, without guests in the lab')
    names = parser.parse_args().scenarios
    stand_in.prepare()
    os.environ['BASE'] = str(bases.home() / 'upstream/src')
    # the builds of the base itself are not wanted
    os.environ.pop('QEMU_BUILDS', None)
    say("the series over upstream's own version")
    binary, rows = binaries.built('kvm'), [] if names else matrix.rows('upstream')
    points = itertools.chain(in_kvmsim(names or [*read_all()], binary), in_lab(rows))
    return report(points, len([*(names or read_all()), *rows]))['failed'] > 0


if __name__ == '__main__':
    try:
        main(run)
    finally:
        end_all()
