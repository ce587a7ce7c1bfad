# Copyright (c) 2026 QEMU contributors
# SPDX-License-Identifier: GPL-2.0-or-later
"""Many runs: one host per processor at a time, with several guests on each."""

import concurrent.futures
import os

from scripts.debian import binaries, kernels, roots
from scripts.lib.system import say
from tests.lab import life, stack
from tests.lab.options import run_of_row

# A run is mostly one thread of TCG.
JOBS = os.cpu_count() or 1
# Guests that run on a host, one after the other: few enough to keep all processors busy
GUESTS = 8


def prepare(wanted, live):
    """Make what all runs share before they run in parallel."""
    live('kernels for L1 and L2')
    for suite, pages in sorted({(run.kernel, run.pages) for run in wanted}):
        kernels.newest_kernel(suite, pages)
    roots.emulator_root()
    roots.guest_root()
    if any(run.l0 == 'patched' for run in wanted):
        live('building QEMU for L0')
        binaries.native_qemu()
    live('building QEMU for L1')
    versions = {run.qemu: run.binary().release() for run in wanted}
    if {'distro', 'patched'} <= {*versions} and versions['distro'] != versions['patched']:
        say(f"Debian's QEMU is {versions['distro']}, ours is {versions['patched']}, so results can differ for that "
            'reason: run scripts/graft')


def hosts(runs):
    """The positions of RUNS grouped by host, at most GUESTS in a group, in the order of RUNS."""
    found = {}
    for position, run in enumerate(runs):
        found.setdefault(run.l1(), []).append(position)
    parts = [same[start:start + GUESTS] for same in found.values() for start in range(0, len(same), GUESTS)]
    return sorted(parts)


def run_all(runs, jobs, live, report, does=life.runs):
    """Run RUNS on their hosts in parallel; call report(position, result, log) for each, in order, when it is known.

    DOES runs those on one host: see life.runs().
    """
    prepare(runs, live)
    done, stages = [concurrent.futures.Future() for _ in runs], {}

    def on_one_host(positions):
        def progress(stage):
            stages[positions[0]] = stage
            live(f'{sum(run.done() for run in done)} of {len(runs)} runs done; {", ".join([*stages.values()])},')
        try:
            for position, found in zip(positions, does([runs[position] for position in positions], progress)):
                done[position].set_result(found)
        except BaseException as e:    # pylint: disable=broad-except
            for position in positions:
                if not done[position].done():
                    done[position].set_exception(e)
        finally:
            stages.pop(positions[0], None)

    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        started = [pool.submit(on_one_host, positions) for positions in hosts(runs)]
        try:
            for position, one in enumerate(done):
                report(position, *one.result())
        except BaseException:
            for host in started:
                host.cancel()
            stack.end_all()
            raise


def run_rows(table, qemus, jobs, live, report, qemu_root=None):
    """Run the rows of TABLE with each of QEMUS; call report(row, QEMU, result, log) for each."""
    pairs = [(row, qemu) for row in table for qemu in qemus]
    runs = [run_of_row(row, qemu, qemu_root) for row, qemu in pairs]
    run_all(runs, jobs, live, lambda position, *found: report(*pairs[position], *found))
