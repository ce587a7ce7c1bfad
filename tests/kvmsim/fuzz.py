# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs random hosts and guests."""

import concurrent.futures
import itertools
import os
import pathlib
import tempfile
import time

from scripts.lib.system import say, workers
from tests.kvmsim import machine
from tests.kvmsim.chance import generate, stanza
from tests.kvmsim.machine import Failed
from tests.kvmsim.rules import Guarded
from tests.kvmsim.scenario import parse

# A hang is a bug: a step takes much less than a second, even with sanitizers.
PATIENCE = 60
# One more than there are cores, because a QEMU sometimes waits for its next step.
JOBS = len(os.sched_getaffinity(0)) + 1


def one(seed, binary):
    """Run one seed; return (the error and the scenario that shows it, or None; CAS calls; refusals)."""
    machine.PATIENCE = PATIENCE
    text, steps = generate(seed)
    scenario, = parse('random', stanza(text, steps)).values()
    wrong = None
    with tempfile.TemporaryDirectory(prefix='kvmsim-') as home:
        run = Guarded(scenario, binary, pathlib.Path(home))
        try:
            run.run()
        except Failed as e:
            wrong = f'{e}\n{stanza(text, run.done)}'
        finally:
            run.close()
    return wrong, run.calls, run.refusals


def run_seeds(path, first, seconds):
    """Run seeds from FIRST on for SECONDS on the QEMU at PATH; return 0 if none fails."""
    say(f'seeds from {first} on, {seconds} seconds')
    began = time.monotonic()
    seeds = itertools.count(first)
    bad, runs, calls, refusals = [], 0, 0, 0
    with workers(JOBS, machine.interrupted.set) as pool:
        going = {}
        while going or not runs:
            # at least one seed, so that --seconds 0 repeats a single seed
            while len(going) < JOBS and (not runs + len(going) or time.monotonic() < began + seconds):
                seed = next(seeds)
                going[pool.submit(one, seed, path)] = seed
            done, _ = concurrent.futures.wait(going, return_when='FIRST_COMPLETED')
            for future in done:
                seed, (wrong, *numbers) = going.pop(future), future.result()
                runs, calls, refusals = runs + 1, calls + numbers[0], refusals + numbers[1]
                if wrong:
                    bad.append(seed)
                    print(f'seed {seed}: {wrong}', flush=True)
    print(f'{runs} scenarios, {calls} CAS calls ({calls / (time.monotonic() - began):.1f} per second), '
          f'{refusals} modes refused by KVM: '
          + (f'failed: seeds {", ".join(map(str, bad))}' if bad else 'clean'))
    return bool(bad)
