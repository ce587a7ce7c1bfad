# SPDX-License-Identifier: GPL-2.0-or-later
"""Check a change of the series in about a minute, before you commit it.

Checks the form of the patches.  Runs the tests that are new, and those that
reach a line that has changed since the last measurement ("make coverage").
"""

import concurrent.futures
import itertools

from scripts.debian import binaries
from scripts.lib.command import main, no_options
from scripts.lib.system import locked, say, workers
from scripts.queue import bases
from scripts.queue.git import Tree
from scripts.queue.topics import queue
from tests import reach
from tests.kvmsim import machine
from tests.queue import check
from tests.relink import JOBS
from tests.tap import KINDS, Point, point, tally

# If a change touches more tests than this, run the shortest
MOST = 60


def chosen():
    if not reach.measured():
        say('measuring what each test reaches, once')
        reach.reached()
    found = reach.touched()
    if len(found) > MOST:
        say(f'{MOST} of the {len(found)} tests that the change touches')
    return found[:MOST]


def tests(found):
    """The Point of each test, as soon as it ends."""
    paths = {build: binaries.built(build) for build in ('kvm', 'tcg')}
    with workers(JOBS, machine.interrupted.set) as pool:
        going = {pool.submit(test.wrong, paths[test.build], {}): test for test in found}
        for done in concurrent.futures.as_completed(going):
            yield Point(going[done].name, done.result() or '')


def run():
    no_options(__doc__)
    counts = dict.fromkeys(KINDS, 0)
    with locked('quick', 'waiting for another make quick to end'):
        form = (point(*row) for row in check.form(Tree(bases.home() / 'src'), queue()))
        for one in itertools.chain(form, tests(chosen())):
            counts[one.kind] += 1
            if one.wrong:
                print(f'failed: {one.name}: {one.wrong}', flush=True)
    print(tally(counts))
    return counts['failed'] > 0


if __name__ == '__main__':
    main(run, 'make quick')
