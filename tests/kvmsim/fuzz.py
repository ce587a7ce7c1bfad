# Copyright (c) 2026 QEMU contributors
# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs random hosts and guests, and looks for the shortest list of steps that fails."""

import concurrent.futures
import itertools
import os
import pathlib
import tempfile
import time

from scripts.lib.system import say
from tests.kvmsim import machine
from tests.kvmsim.chance import generate, stanza
from tests.kvmsim.machine import Failed
from tests.kvmsim.rules import Guarded
from tests.kvmsim.scenario import parse

# A hang is a bug: a step takes much less than a second, even with sanitizers.
PATIENCE = 60
# One more than there are cores, because a QEMU sometimes waits for its next step.
JOBS = len(os.sched_getaffinity(0)) + 1
# How many attempts to make at a shorter list of steps that fails, too.
TRIES = 100


def attempt(text, steps, binary):
    """Run one host and guest; return the error or None, and the run."""
    scenario, = parse('random', stanza(text, steps)).values()
    with tempfile.TemporaryDirectory(prefix='kvmsim-') as home:
        run = Guarded(scenario, binary, pathlib.Path(home))
        try:
            run.run()
        except Failed as e:
            return e, run
        finally:
            run.close()
    return None, run


def shorten(text, steps, binary, failed):
    """Drop steps that FAILED, an (error, run), does not need; return the error, its run, and whether it is minimal."""
    tries, pieces = TRIES, 2
    steps = steps[:failed[1].at + 1]
    while len(steps) > 1:
        size = -(-len(steps) // pieces)
        for start in range(0, len(steps), size):
            if not tries:
                return *failed, False
            tries -= 1
            again = attempt(text, rest := steps[:start] + steps[start + size:], binary)
            if again[0]:
                failed, steps, pieces = again, rest[:again[1].at + 1], max(pieces - 1, 2)
                break
        else:
            if size == 1:
                break
            pieces = min(2 * pieces, len(steps))
    return *failed, True


def one(seed, binary):
    """Run one seed; return (the error or None, CAS calls, refusals)."""
    machine.PATIENCE = PATIENCE
    text, steps = generate(seed)
    steps = [*steps]
    wrong, first = failed = attempt(text, steps, binary)
    if wrong:
        wrong, run, shortest = shorten(text, steps, binary, failed)
        more = [wrong.shown_by] if getattr(wrong, 'shown_by', None) else []
        wrong = (f'{wrong}\n{stanza(text, [*run.done, *more])}' +
                 ('' if shortest else f'There may be a shorter one: {TRIES} tries were made.\n'))
    return wrong, first.calls, first.refusals


def run_seeds(path, first, seconds):
    """Run seeds from FIRST on for SECONDS on the QEMU at PATH; return 0 if none fails."""
    say(f'seeds from {first} on, {seconds} seconds')
    began = time.monotonic()
    until = began + seconds
    seeds = itertools.count(first)
    bad, runs, calls, refusals = [], 0, 0, 0
    with machine.workers(JOBS) as pool:
        going = {}
        while going or not runs:
            # at least one seed, so that --seconds 0 repeats a single seed
            while len(going) < JOBS and (not runs + len(going) or time.monotonic() < until):
                seed = next(seeds)
                going[pool.submit(one, seed, path)] = seed
            done, _ = concurrent.futures.wait(going, return_when='FIRST_COMPLETED')
            for future in done:
                seed, (wrong, *numbers) = going.pop(future), future.result()
                runs, calls, refusals = runs + 1, calls + numbers[0], refusals + numbers[1]
                if wrong:
                    bad.append(seed)
                    print(f'seed {seed}: {wrong}', flush=True)
    rate = calls / (time.monotonic() - began)
    print(f'{runs} scenarios, {calls} CAS calls ({rate:.1f} per second), {refusals} modes refused by KVM: '
          + (f'failed: seeds {", ".join(map(str, bad))}' if bad else 'clean'))
    return bool(bad)
