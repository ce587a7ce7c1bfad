# Copyright (c) 2026 QEMU contributors
# SPDX-License-Identifier: GPL-2.0-or-later
"""Test the series over upstream's own version: all scenarios, and guests on the hosts in HOSTS.  Prints TAP.

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
from tests.lab import hosts, matrix
from tests.lab.options import config_of
from tests.queue import stand_in
from tests.tap import Point, report

# Rows of tests/lab/matrix.cfg, by host, mode, nested API, and kernel
HOSTS = [*itertools.product(['power11'], ['power10'], ['v1', 'v2'], ['newest', 'trixie']),
         *itertools.product(['power10'], ['power9'], ['v2'], ['newest', 'trixie']), ('power11', 'none', 'v2', 'newest')]


def in_kvmsim(names, binary):
    """The Point of each of the scenarios NAMES."""
    with workers(JOBS) as pool:
        results = pool.map(lambda scenario: perform(scenario, 'patched', binary), map(read_all().get, names))
        for result in results:
            yield Point(result['scenario'], result['reason'] or '')


def in_lab():
    """The Point of each of the hosts."""
    rows = [row for row in matrix.rows() if row[:4] in HOSTS and row[4:7] == ('4k', 'patched', '-')]
    points = []

    def done(position, found):
        row, outcome = rows[position], matrix.came_to(found[0])
        points.append(Point(f'{row.l1()}, {row.api}, {row.kernel} kernel',
                            '' if matrix.is_right(row, outcome) else f'{outcome} instead of {row.patched}'))
    hosts.run_all([config_of(row.words()) for row in rows], hosts.JOBS, say, done)
    return points


def run():
    parser = Parser(description=__doc__)
    parser.add_argument('scenarios', nargs='*', metavar='SCENARIO', help='only these, without guests in the lab')
    names = parser.parse_args().scenarios
    stand_in.prepare()
    os.environ['BASE'] = str(bases.home() / 'upstream/src')
    # the builds of the base itself are not wanted
    os.environ.pop('QEMU_BUILDS', None)
    say("the series over upstream's own version")
    binary = binaries.patched_qemu()
    points = in_kvmsim(names, binary) if names else itertools.chain(in_kvmsim([*read_all()], binary), in_lab())
    return report(points, len(names or [*read_all(), *HOSTS]))['failed'] > 0


if __name__ == '__main__':
    try:
        main(run)
    finally:
        end_all()
