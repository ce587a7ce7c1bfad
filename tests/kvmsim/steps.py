# SPDX-License-Identifier: GPL-2.0-or-later
"""Running a scenario."""

import contextlib
import functools
import pathlib
import tempfile
import time
from typing import NamedTuple

from scripts.lib.system import Error
from tests.kvmsim.grammar import STEPS
from tests.kvmsim.guest import Guest
from tests.kvmsim.machine import Failed, Machine

AFTER_REFUSAL = ('refused', 'prints', 'omits', 'exits')


class Run:
    """One scenario on one QEMU: its machines, and the outcome of the last action."""

    def __init__(self, scenario, qemu, binary, home, trace=None, **options):
        self.scenario, self.home, self.binary, self.options = scenario, home, binary, options
        self.steps = scenario.steps_for(qemu)
        self.verbs = {step.verb for step in self.steps}
        self.error = self.value = None
        # ioctls by phase; how many messages were printed before the last action
        self.phases, self.record, self.before = {}, [], {}
        self.machines = []
        self.machine = self.source = self.start(scenario.source, 'source', trace=trace)
        self.guest = Guest(self.source)

    @functools.cached_property
    def target(self):
        """The second machine, started when a step first uses it."""
        return self.start(self.scenario.target, 'target', incoming='migrate' in self.verbs)

    def start(self, settings, name, **kwargs):
        disk = self.home / 'disk.qcow2' if self.verbs & {'save', 'load'} else None
        machine = Machine(self.binary, settings, self.home / name, disk=disk, **self.options, **kwargs)
        self.machines.append(machine)
        return machine

    def close(self):
        for machine in self.machines:
            machine.close()

    def run(self):
        for step in self.steps:
            began = time.monotonic()
            self.record.append({'line': step.line, 'step': step.text, 'result': 'ok'})
            try:
                self.use(self.target if step.target else self.source)
                if self.error and step.verb not in AFTER_REFUSAL:
                    raise Failed(f'the previous command was refused: {self.error}')
                self.do(step)
            except Failed as e:
                self.record[-1]['result'] = str(e)
                raise Failed(f'{self.scenario.file}:{step.line}: {step.text}: {e}') from None
            self.record[-1]['seconds'] = round(time.monotonic() - began, 2)
        if self.error:
            raise Failed(f'the last command was refused: {self.error}')

    def use(self, machine):
        if machine is not self.machine:
            self.machine, self.guest = machine, Guest(machine)

    def do(self, step):
        function, _, _ = STEPS[step.verb]
        function(self, *step.args)
        for machine in self.machines:
            if machine.unmodeled:
                raise Failed(f'the simulated KVM does not model {machine.unmodeled[0]}')

    def act(self):
        """Start a new action: checks after it ignore earlier messages and results."""
        self.error = self.value = None
        for machine in self.machines:
            machine.drain()
            # messages at start belong to the first action
            self.before[machine] = len(machine.messages) if machine.greeted else 0

    def messages(self):
        """What QEMU printed since the last action."""
        self.machine.drain()
        return self.machine.messages[self.before.get(self.machine, 0):]

    def printed(self):
        return ' '.join([*self.messages(), self.error or ''])

    def last_words(self):
        return ' / '.join(self.messages()[-4:]) or 'no message'

    def ask(self, name, **arguments):
        """Send a QMP command; later steps may expect that it was refused, or that QEMU ended."""
        try:
            reply = self.machine.ask(name, **arguments)
        except Failed as e:
            if self.machine.exit is None:
                raise
            reply = {'error': {'desc': str(e)}}
        self.error = reply.get('error', {}).get('desc')
        self.value = reply.get('return')

    def command(self, name, **arguments):
        """Send a QMP command that is an action of its own."""
        self.act()
        self.ask(name, **arguments)

    def count(self, phase):
        """Add the ioctls since the last call to PHASE; those of the target do not count."""
        if self.machine is self.source:
            counts = self.phases.setdefault(phase, {})
            for name, number in self.source.counts().items():
                counts[name] = counts.get(name, 0) + number


class Result(NamedTuple):
    """What a run came to: passed, failed, or broken if it could not run; why; its time; and more for --json."""
    outcome: str
    reason: str
    seconds: float
    details: dict


def perform(scenario, qemu, path, trace=None, **options):
    """Run SCENARIO, with OPTIONS for Machine."""
    began, outcome, reason, details = time.monotonic(), 'passed', '', {}
    with tempfile.TemporaryDirectory(prefix='kvmsim-') as home, contextlib.ExitStack() as stack:
        try:
            run = Run(scenario, qemu, path, pathlib.Path(home), trace, **options)
            stack.callback(lambda: details.update(
                steps=run.record, ioctls=run.phases, messages=[text for one in run.machines for text in one.messages]))
            stack.callback(run.close)
            run.run()
        except Failed as e:
            outcome, reason = 'failed', str(e)
        except (Error, OSError) as e:
            outcome, reason = 'broken', str(e)
    return Result(outcome, reason, round(time.monotonic() - began, 1), details)
