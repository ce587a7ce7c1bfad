# Copyright (c) 2026 QEMU contributors
# SPDX-License-Identifier: GPL-2.0-or-later
"""Many runs: one host per processor at a time, with several guests on each."""

import concurrent.futures
import os

from scripts.debian import binaries, roots
from tests.lab import kernels, stack
from tests.lab.options import config_of

# A run is mostly one thread of TCG.
JOBS = os.cpu_count() or 1
# Guests that run on a host, one after the other: few enough to keep all processors busy
GUESTS = 8


def prepare(wanted, live):
    """Make what all runs share before they run in parallel."""
    live('kernels for L1 and L2')
    for suite, pages in sorted({(config.kernel, config.pages) for config in wanted}):
        kernels.newest_kernel(suite, pages)
    roots.emulator_root()
    roots.guest_root()
    if any(config.l0 == 'patched' for config in wanted):
        live('building QEMU for L0')
        binaries.native_qemu()
    live('building QEMU for L1')
    for qemu in sorted({config.qemu for config in wanted}):
        binaries.QEMUS[qemu]()


def hosts(configs):
    """Group the positions of CONFIGS by host, at most GUESTS in a group; the longest groups come first."""
    found = {}
    for position, config in enumerate(configs):
        l1 = tuple(getattr(config, name) for name in ('l0_stack', 'l0', 'host', 'compat', 'api', 'kernel', 'pages',
                                                      'l1_smp', 'qemu'))
        found.setdefault(l1, []).append(position)
    parts_of = [same[start:start + GUESTS] for same in found.values() for start in range(0, len(same), GUESTS)]
    return sorted(parts_of, reverse=True, key=lambda same: (
        configs[same[0]].l0_stack is not None, sum(1 + len(configs[position].do) for position in same)))


def run_all(configs, jobs, live, report):
    """Run CONFIGS on their hosts in parallel; call report(position, (result, log)) for each, in order."""
    prepare(configs, live)
    done, stages = [concurrent.futures.Future() for _ in configs], {}

    def on_one_host(positions):
        def progress(stage):
            stages[positions[0]] = stage
            live(f'{sum(run.done() for run in done)} of {len(configs)} runs done; {", ".join([*stages.values()])},')
        try:
            same = [configs[position] for position in positions]
            for position, found in zip(positions, same[0].by.runs(same, progress)):
                done[position].set_result(found)
        except BaseException as e:    # pylint: disable=broad-except
            for position in positions:
                if not done[position].done():
                    done[position].set_exception(e)
        finally:
            stages.pop(positions[0], None)

    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        started = [pool.submit(on_one_host, positions) for positions in hosts(configs)]
        try:
            for position, run_of in enumerate(done):
                report(position, run_of.result())
        except BaseException:
            for host in started:
                host.cancel()
            stack.end_all()
            raise


def run_rows(table, qemus, jobs, live, report):
    """Run TABLE's rows under QEMUS; call report(row, QEMU, result, log) for each."""
    runs = [(row, qemu) for row in table for qemu in qemus]
    configs = [config_of([*row.words(), '--qemu', qemu, '--timeout', '600']) for row, qemu in runs]
    run_all(configs, jobs, live, lambda i, done: report(*runs[i], *done))
