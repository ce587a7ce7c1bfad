# SPDX-License-Identifier: GPL-2.0-or-later
"""A QEMU on the simulated KVM, driven by QMP and by the control socket of the simulator."""

import collections
import contextlib
import json
import os
import re
import selectors
import shutil
import signal
import socket
import subprocess
import threading
import time

from scripts.lib.system import Error
from tests.kvmsim import emulator
from tests.kvmsim.power import kernel_commands

# Longer than any step takes, even on a loaded machine.
PATIENCE = 300
# SIGTERM lets an instrumented QEMU write its counters
END = signal.SIGKILL
TRACE_LINE = re.compile(r'(?:\d+@[\d.]+:)?((?:kvm_host_|spapr_cas_|ppc_host_)\w+) (.*)')

# ends all QEMUs: whoever waits for one closes it
interrupted = threading.Event()


class Failed(Exception):
    """QEMU ended, or did not do what a step expects; the text says what it did instead."""


class Machine:
    """A running QEMU; close() ends it in any state."""

    def __init__(self, qemu, settings, home, *, incoming=False, disk=None, trace=None, env=None, patience=None):
        self.settings, self.home, self.patience = settings, home, patience or PATIENCE
        self.messages, self.traces, self.events, self.unmodeled = [], [], [], []
        # what QMP and the simulated kernel answered; the first line of QMP is its greeting
        self.replies, self.answers = collections.deque(), collections.deque()
        self.greeted, self.process, self.exit = False, None, None
        self.watch, self.rest = selectors.DefaultSelector(), {}
        self.control, theirs = socket.socketpair()
        home.mkdir()
        try:
            # close our copy of QEMU's end, or we would not notice when QEMU ends
            with theirs:
                # pylint: disable-next=consider-using-with
                self.process = subprocess.Popen(
                    emulator.command(qemu, settings, home, incoming, disk), bufsize=0, stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE, stderr=subprocess.PIPE, pass_fds=[theirs.fileno()], start_new_session=True,
                    cwd=home, env={**os.environ, **(env or {}), 'KVMSIM_FD': str(theirs.fileno())})
            for source, handler in ((self.process.stdout, self.on_qmp), (self.process.stderr, self.on_stderr),
                                    (self.control, self.on_control)):
                os.set_blocking(source.fileno(), False)
                self.watch.register(source, selectors.EVENT_READ, handler)
                self.rest[handler] = ''
            for line in ([f'trace {trace}'] if trace else []) + [*kernel_commands(settings), 'go']:
                self.kernel(line)
        except BaseException:
            self.close()
            raise

    def close(self):
        if self.process:
            with self.process:
                self.process.send_signal(END)
                try:
                    self.process.wait(PATIENCE)
                except subprocess.TimeoutExpired:
                    self.process.kill()
        self.control.close()
        self.watch.close()
        shutil.rmtree(self.home, ignore_errors=True)

    def on_qmp(self, line):
        try:
            message = json.loads(line)
        except ValueError:
            # QEMU prints some messages on standard output
            self.messages.append(line)
            return
        if 'event' in message:
            self.events.append((message['event'], message.get('data')))
        else:
            self.replies.append(message)

    def on_stderr(self, line):
        trace = TRACE_LINE.fullmatch(line)
        if trace:
            self.traces.append(trace.groups())
        elif line.strip():
            self.messages.append(line)

    def on_control(self, line):
        kind, _, rest = line.partition(' ')
        if kind != 'event':
            self.answers.append(line.split())
        elif rest.startswith('unmodeled'):
            self.unmodeled.append(rest)
        else:
            self.events.append((rest, None))

    def pump(self, timeout):
        """Handle available input; wait for it up to TIMEOUT seconds."""
        for key, _ in self.watch.select(timeout):
            try:
                data = os.read(key.fd, 1 << 20)
            except BlockingIOError:
                continue
            except ConnectionResetError:
                data = b''
            *lines, self.rest[key.data] = (self.rest[key.data] + data.decode(errors='replace')).split('\n')
            if not data:
                # the last line of a QEMU that died has no end
                lines.append(self.rest[key.data])
                self.watch.unregister(key.fileobj)
            for line in filter(None, lines):
                key.data(line)
        if self.exit is None and not self.watch.get_map():
            self.exit = self.process.wait()

    def drain(self):
        """Handle all that QEMU has written so far."""
        while self.exit is None and self.watch.select(0):
            self.pump(0)

    def wait(self, what, ready, dead_is_fine=False):
        """Wait until READY() is true; WHAT describes that in an error."""
        limit = time.monotonic() + self.patience
        while not ready():
            if interrupted.is_set():
                raise Error('interrupted')
            if self.exit is not None:
                if dead_is_fine:
                    return
                words = ' / '.join(self.messages[-4:]) or 'no message'
                raise Failed(f'QEMU has ended ({self.how_ended()}) before {what}: {words}')
            if time.monotonic() > limit:
                raise Failed(f'no {what} in {self.patience:.0f} seconds')
            # an interrupted run ends within a second
            self.pump(1)
        self.drain()

    def wait_exit(self):
        self.wait('end of QEMU', lambda: self.exit is not None, dead_is_fine=True)

    def how_ended(self):
        return str(self.exit) if self.exit >= 0 else signal.Signals(abs(self.exit)).name

    def happened(self, event, since):
        return any(name == event for name, _ in self.events[since:])

    # QMP.  If QEMU has ended, sending is in vain, and the wait for the reply says so.

    def send(self, name, **arguments):
        with contextlib.suppress(OSError):
            self.process.stdin.write(json.dumps({'execute': name, 'arguments': arguments}).encode() + b'\n')

    def reply(self, what):
        self.wait(what, lambda: self.replies)
        return self.replies.popleft()

    def ready(self):
        """Wait until QEMU has started."""
        if not self.greeted:
            self.reply('QMP greeting')
            self.greeted = True
            self.send('qmp_capabilities')
            self.reply('reply to qmp_capabilities')

    def ask(self, name, **arguments):
        """Send a QMP command, and return the reply, {'return': ...} or {'error': ...}."""
        self.ready()
        self.send(name, **arguments)
        return self.reply(f'reply to {name}')

    def query(self, name, **arguments):
        """Send a QMP command that must succeed, and return its result."""
        reply = self.ask(name, **arguments)
        if 'error' in reply:
            raise Failed(f'{name}: {reply["error"]["desc"]}')
        return reply['return']

    def state(self):
        return self.query('query-status')['status']

    def kernel(self, line):
        """Send a command to the simulated kernel, and return the words of its answer."""
        with contextlib.suppress(OSError):
            self.control.sendall(line.encode() + b'\n')
        self.wait('answer of the simulated kernel', lambda: self.answers)
        *words, kind = self.answers.popleft()
        if kind != 'ok':
            raise Error(f'the simulated kernel does not accept "{line[:60]}": {" ".join(words)}')
        return words

    def counts(self):
        """The ioctls since the last call, by kind."""
        return {name: int(count) for name, _, count in (pair.rpartition('=') for pair in self.kernel('counts'))}

    def modes(self):
        """(id, mode, whether it can run) of each vCPU in KVM."""
        vcpus = (word.split(':') for word in self.kernel('modes'))
        return [(int(vcpu), int(mode, 16), runnable == '1') for vcpu, mode, runnable in vcpus]
