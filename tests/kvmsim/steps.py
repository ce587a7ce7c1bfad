# Copyright (c) 2026 QEMU contributors
# SPDX-License-Identifier: GPL-2.0-or-later
"""Running a scenario: each step is an action on QEMU, or checks the result of one."""

import fnmatch
import functools
import json
import pathlib
import struct
import tempfile
import time

from scripts.lib.system import Error
from tests.kvmsim import guest, power
from tests.kvmsim.machine import Machine, Surprise, refuse_commands, vcpus_of
from tests.kvmsim.scenario import STEPS


class Failed(Exception):
    """A check failed; the text says what was found instead."""


class Run:
    """One scenario on one QEMU."""

    def __init__(self, scenario, qemu, binary, home, trace=None, **options):
        self.scenario, self.qemu, self.home = scenario, qemu, home
        self.binary, self.options = binary, options
        self.error = self.value = self.outcome = None
        self.phases, self.record, self.seen = {}, [], {}
        self.machines, self.machine = [], None
        self.verbs = {step.verb for step in scenario.steps_for(qemu)}
        try:
            self.source = self.start(scenario.source, 'source', trace=trace)
        except BaseException:
            self.close()
            raise

    @functools.cached_property
    def target(self):
        """The second machine, started when a step first uses it."""
        return self.start(self.scenario.target, 'target', incoming='migrate' in self.verbs)

    def start(self, settings, name, **kwargs):
        disk = self.home / 'disk.qcow2' if self.verbs & {'save', 'load'} else None
        machine = Machine(self.binary, settings, self.home / name, disk=disk, **self.options, **kwargs)
        self.machines.append(machine)
        self.seen[machine] = 0
        return machine

    def close(self):
        for machine in self.machines:
            machine.close()

    def run(self):
        """Do all steps; raise Failed or Surprise at the first that fails."""
        for step in self.scenario.steps_for(self.qemu):
            began = time.monotonic()
            self.machine = self.target if step.target else self.source
            try:
                self.check_error(step)
                getattr(self, f'do_{step.verb.replace("-", "_")}')(*step.args)
                self.check_modeled()
            except (Failed, Surprise) as e:
                self.record.append({'line': step.line, 'step': step.text, 'result': str(e)})
                raise type(e)(f'{self.scenario.file}:{step.line}: {step.text}: {e}') from None
            self.record.append({'line': step.line, 'step': step.text, 'result': 'ok',
                                'seconds': round(time.monotonic() - began, 2)})
        if self.error:
            raise Failed(f'the last command was refused: {self.error}')

    def check_error(self, step):
        """Fail if the previous command was refused and STEP does not expect that."""
        if self.error and step.verb not in ('refused', 'says', 'lacks', 'exits'):
            raise Failed(f'the previous command was refused: {self.error}')

    def check_modeled(self):
        for machine in self.machines:
            if machine.unmodeled:
                raise Failed(f'the simulated KVM does not model {machine.unmodeled[0]}')

    # Helpers.

    def act(self):
        """Start a new action: checks after it ignore earlier messages and results."""
        self.error = self.value = None
        for machine in self.machines:
            machine.drain()
            # messages at start belong to the first action
            self.seen[machine] = len(machine.messages) if machine.negotiated else 0

    def said(self):
        self.machine.drain()
        lines = self.machine.messages[self.seen[self.machine]:]
        if self.machine.exit is not None and self.machine.stderr_rest:
            lines = [*lines, self.machine.stderr_rest.decode(errors='replace')]
        return lines

    def command(self, name, **arguments):
        """Send a QMP command; later steps may expect that it was refused, or that QEMU ended."""
        self.act()
        try:
            reply = self.machine.ask(name, **arguments)
        except Surprise as e:
            if self.machine.exit is None:
                raise
            self.error = str(e)
            return
        if 'error' in reply:
            self.error = reply['error']['desc']
        self.value = reply.get('return')

    def count(self, phase):
        """Add the ioctls since the last call to PHASE; those of the target do not count."""
        if self.machine is not self.source:
            return
        into = self.phases.setdefault(phase, {})
        for name, number in self.source.counts().items():
            into[name] = into.get(name, 0) + number

    # Actions.

    def do_cont(self):
        self.act()
        self.machine.ready()
        if 'start' not in self.phases:
            self.count('start')
        reply = self.machine.ask('cont')
        self.error = reply.get('error', {}).get('desc')

    def do_stop(self):
        self.command('stop')

    def do_reset(self):
        self.act()
        self.machine.ready()
        events = len(self.machine.events)
        # QEMU may end before it replies
        self.machine.send_qmp('system_reset', {})
        self.machine.wait('RESET', lambda: (self.machine.qmp_replies and
                                            self.machine.happened('RESET', events)),
                          dead_is_fine=True)
        self.machine.qmp_replies.clear()

    def do_quit(self):
        self.command('quit')
        self.machine.wait_exit()

    def do_kernel(self, key, value):
        """Change the answers of the kernel."""
        self.act()
        if key == 'refuse':
            self.machine.command_kvm('accept')
            for line in refuse_commands(value):
                self.machine.command_kvm(line)
        else:
            self.machine.command_kvm(f'caps {value:#x} {self.machine.settings["caps-size"]}')

    def hypercall(self, nr, args):
        """Let the guest make a hypercall, and wait until it returns or the machine stops."""
        state = self.machine.state()
        if state != 'running':
            raise Failed(f'the guest cannot run: the machine is in state {state}')
        self.count('other')
        events = len(self.machine.events)
        words = ' '.join(f'{arg:#x}' for arg in args)
        sequence, = self.machine.command_kvm(f'hypercall {nr:#x} {words}')

        def over():
            return any(self.machine.happened(event, events) for event in ('STOP', f'idle {sequence}'))
        self.machine.wait('end of the hypercall', over, dead_is_fine=True)

    def poke(self, address, data):
        if data:
            self.machine.command_kvm(f'poke {address:#x} {data.hex()}')

    def do_cas(self, entries=None):
        self.act()
        settings = self.machine.settings
        address, data = guest.pack(entries or self.scenario.guest, settings['host'],
                                   self.scenario.mmu, settings['memory'])
        self.poke(address, data)
        if settings['firmware'] == 'vof':
            instance = self.client_call('open', '/')
            self.outcome = self.client_call('call-method', 'ibm,client-architecture-support',
                                            instance, address)
        else:
            self.hypercall(power.HCALLS['H_CAS'], [address, guest.FDT, guest.FDT_SIZE])
            self.outcome = None
        if self.machine.exit is None:
            self.count('cas')

    def client_call(self, service, *args):
        """Call VOF's client interface, and return the result."""
        strings, block, result = guest.client_call(service, args, 2 if len(args) > 1 else 1)
        self.poke(guest.STRINGS, strings)
        self.poke(guest.ARGS, block)
        self.hypercall(power.HCALLS['H_VOF_CLIENT'], [guest.ARGS])
        if self.machine.exit is not None:
            return None
        word, = self.machine.command_kvm(f'peek {result:#x} 4')
        return struct.unpack('>i', bytes.fromhex(word))[0]

    def do_plug(self, core):
        self.command('device_add', driver=f'{self.machine.settings["cpu"]}-spapr-cpu-core',
                     id=f'core{core}', **{'core-id': core})

    def do_unplug(self, core):
        self.command('device_del', id=f'core{core}')

    def monitor(self, line):
        """Send a command to the human monitor; any output is an error."""
        self.command('human-monitor-command', **{'command-line': line})
        self.error = self.error or (self.value or '').strip() or None

    def do_monitor(self, words):
        self.monitor(' '.join(words))

    def do_save(self, tag):
        self.monitor(f'savevm {tag}')

    def do_load(self, tag):
        self.monitor(f'loadvm {tag}')

    def do_get(self, path, name):
        self.command('qom-get', path=path, property=name)

    def do_describe(self, path, name):
        """Get the description of a property."""
        self.act()
        kind = self.machine.query('qom-get', path=path, property='type')
        listed = self.machine.query('qom-list-properties', typename=kind)
        self.value = next((row.get('description') for row in listed if row['name'] == name), None)

    def do_set(self, path, name, value):
        self.command('qom-set', path=path, property=name, value=value)

    def do_migrate(self):
        self.act()
        began = len(self.source.events)
        uri = f'unix:{self.home}/migration'
        for machine in (self.source, self.target):
            machine.query('migrate-set-capabilities',
                          capabilities=[{'capability': 'events', 'state': True}])
        self.target.query('migrate-incoming', uri=uri)
        self.source.query('migrate', uri=uri)
        for machine in (self.target, self.source):
            machine.wait('end of the migration', lambda machine=machine: migration(machine) in MIGRATED,
                         dead_is_fine=True)
        self.outcome = migration(self.source)
        if self.outcome == 'failed' and self.source.happened('STOP', began):
            self.source.wait('RESUME', lambda: self.source.happened('RESUME', began))

    # Checks.

    def do_exits(self, how):
        self.machine.wait_exit()
        if self.machine.how_ended() != how:
            raise Failed(f'QEMU ended with {self.machine.how_ended()}: {self.last_words()}')
        self.error = None

    def last_words(self):
        return ' / '.join(self.said()[-4:]) or 'no message'

    def do_state(self, state):
        now = self.machine.state()
        if now != state:
            raise Failed(f'the machine is in state {now}: {self.last_words()}')

    def do_returns(self, value):
        result = self.outcome
        if result is None:
            result = int(self.machine.command_kvm('result')[0])
        if result != value:
            raise Failed(f'the guest got {result}: {self.last_words()}')

    def do_modes(self, wanted):
        kind, modes = wanted
        held = [mode for _, mode, _ in self.machine.modes()]
        if kind == 'all':
            modes = [modes] * len(held)
        if held != modes:
            raise Failed('KVM holds ' + ' '.join(summary(power.mode_name(m) for m in held)))

    def do_runs(self, which):
        runs = [row[2] for row in self.machine.modes()]
        now = 'all' if all(runs) else 'some' if any(runs) else 'none'
        if now != which:
            raise Failed(f'of the vCPUs, {now} can run')

    def words(self):
        return ' '.join([*self.said(), self.error or ''])

    def do_lacks(self, words):
        text = self.words()
        found = [word for word in words if word.lower() in text.lower()]
        if found:
            raise Failed(f'"{found[0]}" is in the messages of QEMU: {text[:600]}')

    def do_says(self, words):
        text = self.words()
        missing = [word for word in words if word.lower() not in text.lower()]
        if missing:
            raise Failed(f'"{missing[0]}" is not in the messages of QEMU: {text[:600] or "there is none"}')

    def do_silent(self):
        if self.said():
            raise Failed(f'QEMU printed: {" / ".join(self.said())[:600]}')

    def do_refused(self, words):
        if not self.error or self.machine.exit is not None:
            raise Failed('the command was not refused')
        error, self.error = self.error, None
        missing = [word for word in words if word.lower() not in error.lower()]
        if missing:
            raise Failed(f'"{missing[0]}" is not in: {error}')

    def do_value(self, value):
        if self.value != value:
            raise Failed(f'the value is {json.dumps(self.value)}')

    def do_traces(self, words):
        event, *words = words
        self.machine.drain()
        found = [text for name, text in self.machine.traces if name == event]
        if not any(all(word.lower() in text.lower() for word in words) for text in found):
            raise Failed(f'the trace of {event} has: {found or "nothing"}')

    def do_traced(self, event, count):
        self.machine.drain()
        found = [name for name, _ in self.machine.traces].count(event)
        if found != count:
            raise Failed(f'the trace has the event {found} times')

    def do_tree(self, path, name, words):
        """Check a property of the device tree that QEMU made for the guest."""
        blob = pathlib.Path(self.home, 'guest.dtb')
        self.machine.query('dumpdtb', filename=str(blob))
        found = properties(blob.read_bytes())
        values = [value for (node, prop), value in found.items()
                  if prop == name and fnmatch.fnmatchcase(node, path)]
        if words == ['absent']:
            if values:
                raise Failed(f'the property exists, as {values[0].hex()}')
            return
        wanted = (bytes.fromhex(words[0][4:]) if words[0].startswith('hex:')
                  else b''.join(struct.pack('>I', int(word, 0)) for word in words))
        if not values or any(value != wanted for value in values):
            raise Failed(f'the property is {", ".join(value.hex() for value in values) or "absent"}, '
                         f'not {wanted.hex()}')

    def do_migrated(self, how):
        if self.outcome != how:
            raise Failed(f'the migration has {self.outcome}: '
                         f'{" / ".join(self.target.messages[-4:])}')

    def do_ioctls(self, kind, relation, limit, a_vcpu):
        """Compare the ioctls of PHASE or PHASE/IOCTL with a number, or with that number for each vCPU."""
        phase, _, name = kind.partition('/')
        counts = self.phases.get(phase, {})
        number = counts.get(name, 0) if name else sum(
            n for ioctl, n in counts.items() if ioctl != 'KVM_RUN')
        limit *= vcpus_of(self.source.settings) if a_vcpu else 1
        if not {'<=': number <= limit, '==': number == limit, '>=': number >= limit}[relation]:
            raise Failed(f'{number} ioctls were made')


MIGRATED = ('completed', 'failed')

assert all(hasattr(Run, f'do_{verb}') for verb in STEPS)


def migration(machine):
    """The last status of the migration on this side, from its events."""
    found = [e['data']['status'] for e in machine.events if e['event'] == 'MIGRATION']
    return found[-1] if found else None


def summary(names):
    """a a a b -> a*3 b"""
    runs = []
    for name in names:
        if runs and runs[-1][0] == name:
            runs[-1][1] += 1
        else:
            runs.append([name, 1])
    return [name if count == 1 else f'{name}*{count}' for name, count in runs]


def properties(blob):
    """{(node path, name): value} of a flattened device tree."""
    _, _, at, names = struct.unpack_from('>4I', blob)
    path, found = [], {}

    def string(start):
        return blob[start:blob.index(b'\0', start)].decode()
    while True:
        token, = struct.unpack_from('>I', blob, at)
        at += 4
        if token == 1:
            path.append(string(at))
            at += len(path[-1]) + 4 & ~3
        elif token == 2:
            path.pop()
        elif token == 3:
            size, name = struct.unpack_from('>II', blob, at)
            found['/'.join(path) or '/', string(names + name)] = blob[at + 8:at + 8 + size]
            at += 8 + (size + 3 & ~3)
        elif token == 9:
            return found


def perform(scenario, qemu, path, trace=None, **options):
    """Run SCENARIO, with OPTIONS for Machine; return what --json prints."""
    began = time.monotonic()
    result = {'scenario': scenario.name, 'rows': scenario.rows, 'qemu': qemu,
              'outcome': 'passed', 'reason': None}
    with tempfile.TemporaryDirectory(prefix='kvmsim-') as home:
        run = None
        try:
            run = Run(scenario, qemu, path, pathlib.Path(home), trace, **options)
            run.run()
        except (Failed, Surprise) as e:
            result.update(outcome='failed', reason=str(e))
        except (Error, OSError) as e:
            result.update(outcome='broken', reason=str(e))
        finally:
            if run:
                run.close()
                result.update(steps=run.record, ioctls=run.phases,
                              messages=[m for machine in run.machines for m in machine.messages])
    result['seconds'] = round(time.monotonic() - began, 1)
    return result
