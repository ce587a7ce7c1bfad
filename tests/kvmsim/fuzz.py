# Copyright (c) 2026 QEMU contributors
# SPDX-License-Identifier: GPL-2.0-or-later
"""Random hosts and guests on QEMU, and the rules that must hold for all of them."""

import concurrent.futures
import itertools
import os
import pathlib
import shlex
import tempfile
import time

from scripts.lib.system import say
from tests.kvmsim import guest, machine, power
from tests.kvmsim.chance import generate, stanza
from tests.kvmsim.machine import Surprise
from tests.kvmsim.model import host_of, records
from tests.kvmsim.scenario import parse, step_of
from tests.kvmsim.steps import Failed, Run

# A hang is a bug: a step takes much less than a second, even with sanitizers.
PATIENCE = 60
# One more than there are cores, because a QEMU sometimes waits for its next step.
JOBS = len(os.sched_getaffinity(0)) + 1
# How many attempts to make at a shorter list of steps that fails, too.
TRIES = 100
BAD_SIGNS = ('runtime error:', 'AddressSanitizer', 'Assertion', 'assertion failed', 'Bail out',
             'Unexpected error', 'uncaught target signal')


class Broken(Failed):
    """The rule that is broken, and a step that shows it in a scenario."""

    def __init__(self, words, shown_by=None):
        super().__init__(words)
        self.shown_by = shown_by


class Fuzz(Run):
    """A run whose steps may be refused, but must not break the rules."""

    def __init__(self, scenario, binary, home):
        super().__init__(scenario, 'patched', binary, home)
        self.host = host_of(scenario.source)
        self.calls = self.refusals = 0
        self.done, self.at, self.heard = [], 0, 0
        given = dict(option.split('=') for option in scenario.source['machine'].split(',') if option)
        # the expected limit, the mode of all vCPUs (None: unknown), that of the snapshot, and the kernel's refusals
        self.limit = power.MODES.get(given.get('max-cpu-compat'), self.host.newest())
        self.mode, self.saved = self.limit, None
        self.refuses = scenario.source['refuse'] or []
        self.plugged, self.moved = None, False
        self.running = self.barred = self.lost = self.ended = False

    def run(self):
        self.machine = self.source
        try:
            self.source.ready()
            self.drop_phb()
        except Surprise:
            self.check_start()
            return
        for self.at, step in enumerate(self.scenario.steps):
            # QEMU crashes if a snapshot with other cores than the machine's is loaded twice
            if step.verb in ('save', 'load') and (self.moved or step.verb == 'load' and self.saved is None):
                continue
            # a load that failed leaves half of a guest, which nobody continues
            if step.verb == 'cont' and self.lost:
                continue
            if step.verb == 'reset' and self.refuses_mode(self.limit) and self.at % 8:
                # QEMU exits at a refused reset, which ends the run: seldom
                self.perform(step_of(0, 'kernel refuse nothing'))
            if step.verb in ('cas', 'save'):
                self.bring_up()
            self.perform(step)
            if self.ended:
                return

    def drop_phb(self):
        """Unplug the PHB: a search for each PCI slot among all of them takes three quarters of a CAS call."""
        devices = self.source.query('qom-list', path='/machine/unattached')
        phb, = (entry['name'] for entry in devices if entry['type'] == 'child<spapr-pci-host-bridge>')
        self.source.query('device_del', id=f'/machine/unattached/{phb}')
        self.do_reset()
        if self.source.exit is not None:
            raise Surprise('QEMU ended at its second reset')

    def count(self, phase):
        """Do nothing: no step checks the ioctls."""

    def perform(self, step):
        """Do a step, and check the rules."""
        self.done.append(step.text)
        try:
            before = self.mode
            getattr(self, f'do_{step.verb}')(*step.args)
            self.source.drain()
            if self.source.exit is not None and not self.ended:
                raise Failed(f'QEMU ended with {self.source.how_ended()}: {self.last_words()}')
            if not self.ended:
                self.check(step, before)
        except (Failed, Surprise) as e:
            raise Broken(f'{step.text}: {e}', getattr(e, 'shown_by', None)) from None
        if self.error:
            self.done.append(f'refused {shlex.quote(self.error.split()[0])}')

    def bring_up(self):
        """Check that a reset to a mode that KVM accepts always gets the machine running again."""
        accept = ['kernel refuse nothing'] if self.refuses_mode(self.limit) else []
        for text in (*([] if self.lost else ['cont']), *accept, 'reset', 'cont'):
            if self.running:
                return
            self.perform(step_of(0, text))
        if not self.running:
            raise Broken(f'the machine does not run after a reset: {self.error or self.last_words()}', 'state running')

    def check_start(self):
        """Check that QEMU exited at start with a message, and because the mode of the reset was refused."""
        self.source.wait_exit()
        self.check_signs()
        if self.source.exit != 1 or not self.source.messages:
            raise Failed(f'QEMU ended with {self.source.how_ended()}: {self.last_words()}')
        if self.host.allows(self.limit) and not self.refuses_mode(self.limit):
            raise Failed(f'QEMU does not start: {self.last_words()}')

    def check_signs(self):
        self.check_modeled()
        fresh, self.heard = self.source.messages[self.heard:], len(self.source.messages)
        for line in fresh:
            if any(sign in line for sign in BAD_SIGNS):
                raise Failed(line)

    def refuses_mode(self, mode):
        """Whether KVM may refuse MODE."""
        return self.scenario.source['kvm'] == 'pr' or any(row[1] in (power.ANY, mode) for row in self.refuses)

    # Actions, which also update the expected state.

    def do_kernel(self, key, value):
        super().do_kernel(key, value)
        if key == 'refuse':
            self.refuses = value

    def do_reset(self):
        super().do_reset()
        self.mode, self.lost = self.limit, False
        self.ended = self.source.exit == 1 and self.refuses_mode(self.limit) and bool(self.said())

    def do_set(self, path, name, value):
        super().do_set(path, name, value)
        limit = power.MODES.get(value, 0)
        if bool(self.error) == self.host.allows(limit):
            raise Failed(f'refused: {self.error}' if self.error else 'accepted, but the host does not allow it')
        self.limit = self.limit if self.error else limit

    def do_get(self, path, name):
        super().do_get(path, name)
        if self.value != [power.mode_name(mode) for mode in sorted(self.host.modes or ())]:
            raise Failed(f'the machine shows {", ".join(self.value) or "nothing"} as the modes of the host')

    def do_save(self, tag):
        super().do_save(tag)
        if not self.error:
            self.saved = self.mode

    def do_load(self, tag):
        super().do_load(tag)
        self.mode, self.lost = (None, True) if self.error else (self.saved, False)

    def do_plug(self, core):
        super().do_plug(core)
        self.moved = True

    def do_cas(self, entries=None):
        source = self.source.settings
        listed = records(guest.pack(entries, source['host'], self.scenario.mmu, source['memory'])[1])
        newest, raw = self.host.shared(listed, self.limit)
        hv = source['kvm'] == 'hv'
        self.calls += 1
        super().do_cas(entries)
        # if the list ends early, the option vectors that follow are garbage, and QEMU may exit
        self.ended = self.source.exit == 1 and len(listed) != sum(e[2] for e in entries if isinstance(e, tuple))
        if hv and (newest or raw):
            self.mode = newest
        agrees = newest or raw if hv else raw
        if self.source.exit is None and not agrees:
            returned = self.outcome or int(self.source.command_kvm('result')[0])
            if returned != power.RETURNS['H_HARDWARE']:
                raise Broken(f'the guest got {returned}, but shares no mode with the host', 'returns H_HARDWARE')

    # Rules.

    def check(self, step, before):
        self.check_signs()
        self.running = self.source.state() == 'running'
        refused = int(self.source.command_kvm('refused')[0])
        self.refusals += refused
        if refused and not (self.said() or self.error):
            raise Failed('KVM refused a mode, but QEMU printed no message')
        # a failed plug does not affect the other cores, and a load can replace the whole guest
        if step.verb in ('reset', 'load'):
            self.barred = False
        if refused and step.verb not in ('plug', 'load'):
            self.barred = True
        if self.running and self.barred:
            raise Broken('KVM refused the mode, but the machine runs', 'state internal-error')
        if step.verb == 'cas' and not self.running:
            self.check_refused_call(refused, before)
        if self.running:
            self.check_vcpus()

    def check_refused_call(self, refused, before):
        if not refused:
            raise Broken('the machine stopped, but KVM refused no mode', 'state running')
        self.mode = before
        if not self.refuses_mode(before):
            self.check_vcpus()

    def check_vcpus(self):
        if self.plugged is None or self.moved:
            self.plugged = {cpu['cpu-index'] for cpu in self.source.query('query-cpus-fast')}
        rows = [row for row in self.source.modes() if row[0] in self.plugged]
        modes = {mode for _, mode, _ in rows}
        names, wanted = ', '.join(map(power.mode_name, modes)), power.mode_name(self.mode or 0)
        if self.mode is not None and modes != {self.mode}:
            raise Broken(f'the vCPUs are in mode {names}, not in {wanted}', f'modes all {wanted}')
        if len(modes) > 1 or not all(map(self.host.allows, modes)):
            raise Broken(f'the vCPUs are in mode {names}, which this host does not allow', f'modes all {wanted}')
        if not all(runs for _, _, runs in rows):
            raise Broken('a vCPU cannot run', 'runs all')


def attempt(text, steps, binary):
    """Run one host and guest; return the error or None, and the run."""
    scenario, = parse('random', stanza(text, steps)).values()
    with tempfile.TemporaryDirectory(prefix='kvmsim-') as home:
        fuzz = Fuzz(scenario, binary, pathlib.Path(home))
        try:
            fuzz.run()
        except (Failed, Surprise) as e:
            return e, fuzz
        finally:
            fuzz.close()
    return None, fuzz


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
