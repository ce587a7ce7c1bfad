# SPDX-License-Identifier: GPL-2.0-or-later
"""L0 and L1 on this machine, and their consoles.

L0 is either QEMU itself, as the hypervisor of a pseries machine, or Linux KVM HV on an emulated PowerNV machine, which
runs L1 in another QEMU.  L0 gives L1 one console for its kernel messages and its shell, into which the lab types, and
two for each QEMU that runs L2: L2's console and the QMP monitor.
"""

import contextlib
import os
import re
import selectors
import signal
import socket
import subprocess
import threading
import time

from scripts.debian import kernels
from scripts.lib.system import Error
from tests.lab import images
from tests.lab.commands import CONSOLES, attach, l0_command, l1_command, l1_options, l2_command, powernv_command, wired

# Messages of L1's kernel about a call that L0 lacks or answers wrong, and about its own crashes
COMPLAINT = re.compile(r"KVM: TLB \w+ invalidation hcall failed|couldn't register the L2 VPA|trap=0xffffffea|"
                       r'\bOops\b|\bBUG: |soft lockup')
running = set()
# Start processes one at a time, so that none inherits the sockets of another
starting = threading.Lock()
# If set, no run may start its L0
ending = threading.Event()


class Broken(Error):
    """The lab itself failed, so there is no result of the guest."""


def end_all():
    """Kill every L0 of this process, and let no new one start; all runs then fail."""
    with starting:
        ending.set()
        for process in list(running):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


class Timeout(Exception):
    """The deadline passed without the expected output."""


@contextlib.contextmanager
def coming_up(what, seconds):
    """Name WHAT and the option if it takes too long."""
    try:
        yield
    except Timeout:
        raise Broken(f'{what} was not up after {seconds} seconds: allow more with --timeout') from None


class Refused(Exception):
    """QEMU refused a request; the text is QEMU's message."""


class Stack:
    """One L0 and all that runs in it; a context manager, so that no process is left behind."""

    def __init__(self, config, progress, log, l1_initrd=images.l1_initrd, memory='1G'):
        self.config, self.progress, self.log = config, progress, log
        self.l1_initrd, self.memory = l1_initrd, memory
        self.sockets, self.pending, self.listeners = {}, [], []
        self.selector = selectors.DefaultSelector()
        self.process = self.started = self.deadline = self.qemu = self.l0 = None
        # the directory of the socket for migration
        self.sockets_folder = '/run'
        # the stack of the host of --to, our end of the wire between both, and our address
        self.peer = self.wire = self.address = None

    def __enter__(self):
        config = self.config
        self.qemu = config.binary()
        kernel = kernels.newest_kernel(config.kernel, config.pages)
        initrd = self.l1_initrd(config, kernel, self.qemu)
        if config.l0_stack:
            command = powernv_command(config, kernel, images.l0_initrd(kernel, initrd))
            consoles = ('l0', *CONSOLES)
        else:
            command = [*l0_command(config.l0), '-accel', 'tcg',
                       *l1_options(config, kernel.vmlinux, initrd, self.memory)]
            consoles = CONSOLES
        self.l0 = [*command, '-no-reboot']
        with starting:
            theirs = [self.connect(name) for name in consoles]
            for name, other in zip(consoles, theirs):
                self.l0 += ['-chardev', f'socket,id={name},fd={other.fileno()}', *attach(config, name)]
            if self.wire:
                self.l0 += wired(self.wire.fileno(), self.address)
                theirs.append(self.wire)
            if ending.is_set():
                raise Broken('interrupted')
            # building and downloading do not count as time of the run
            self.started = time.monotonic()
            self.deadline = self.started + config.timeout
            # the kernel kills L0 when this process ends, even if this process is killed
            self.process = subprocess.Popen(
                ['setpriv', '--pdeathsig', 'KILL', '--', *self.l0], stdin=subprocess.DEVNULL, start_new_session=True,
                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, pass_fds=[s.fileno() for s in theirs])
            running.add(self.process)
            for other in theirs:
                other.close()
        self.progress('L0 up')
        return self

    def __exit__(self, *_):
        if self.process:
            if self.process.poll() is None:
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            running.discard(self.process)
            self.process.stderr.close()
        for ours in self.sockets.values():
            ours.close()
        self.selector.close()

    def _read(self):
        """Wait for the next data; queue its lines as (console, text)."""
        left = self.deadline - time.monotonic()
        ready = self.selector.select(max(left, 0))
        if not ready:
            raise Timeout
        for key, _ in ready:
            try:
                data = os.read(key.fd, 65536)
            except ConnectionResetError:
                # it ended before it had read all input
                data = b''
            except BrokenPipeError:
                # the kernel's log was overwritten: continue after the gap
                continue
            if data:
                name, rest = key.data
                *lines, key.data[1] = (rest + data).split(b'\n')
                self.pending += [(name, line.decode(errors='replace').strip('\r')) for line in lines]
            else:
                self.closed(key)

    def listen(self, name, source):
        self.sockets[name] = source
        # the data are the name, and the start of the next line
        self.selector.register(source, selectors.EVENT_READ, [name, b''])

    def connect(self, name):
        """Add a console, and return the other end of its socket."""
        ours, theirs = socket.socketpair()
        self.listen(name, ours)
        return theirs

    def closed(self, _):
        """A console is closed only if L0 ended."""
        self.process.wait()
        words = self.process.stderr.read().decode(errors='replace').strip().splitlines()
        words = words or [text for _, text in self.pending] or self.log
        raise Broken(f'L0 ended unexpectedly: {words[-1] if words else "no message"}')

    def next_line(self):
        """Return the next (console, text), and add it to the log."""
        while not self.pending:
            self._read()
        name, text = self.pending.pop(0)
        self.log.append(f'{name:3} {text}')
        return name, text

    def step(self):
        """Pass the next line to all listeners."""
        name, text = self.next_line()
        for listener in self.listeners:
            listener.take(name, text)

    def until(self, condition):
        while not condition():
            self.step()

    def send(self, name, text):
        # closed() reports that the other end is gone
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.sockets[name].sendall(text.encode() + b'\n')

    def turn_to(self, config, log):
        """Use CONFIG for the next L2, and write its lines to LOG."""
        self.config, self.log = config, log
        self.listeners.clear()
        self.deadline = time.monotonic() + config.timeout

    def launch(self, guest):
        # sed marks QEMU's output; the exit status follows on a separate line
        command = l2_command(self.config, guest.console, guest.monitor, guest.extra)
        self.send('l1', f'{{ {command}; status=$?; echo; echo "exit $status"; }} </dev/null 2>&1 | '
                        f"sed 's/^/{guest.mark}: /' &")


class Report:
    """The output of tests/lab/probe.c up to 'end'."""

    def __init__(self):
        self.values, self.complete = {}, False

    def take(self, text):
        found = re.match(r'probe: (\w+)=(.*)', text)
        if found:
            self.values[found[1]] = found[2].strip()
        self.complete = text == 'probe: end'


def boot_linux(stack, console):
    """Wait until a Linux with l1-init has its shell on CONSOLE, and return its report."""
    report, first, name = Report(), True, console.upper()
    while True:
        where, text = stack.next_line()
        if where == 'l0' and text.startswith('lab: exit'):
            words = [line[4:] for line in stack.log if line.startswith('l0  qemu-system-')]
            raise Broken(f"L1's QEMU ended: {(words or ['no message'])[-1]}")
        if where != console:
            continue
        if first:
            stack.progress(f'{name} kernel')
            first = False
        if 'Kernel panic' in text:
            raise Broken(f'{name} did not boot: {text}')
        report.take(text)
        if text == 'lab: ready':
            stack.progress(f'{name} ready')
            return report.values


def boot_l1(stack):
    """Wait for L1's shell, and first for that of L0 if L0 is Linux; return L1's report."""
    if stack.config.l0_stack:
        boot_linux(stack, 'l0')
        stack.send('l0', f'{l1_command(stack.config, stack.memory)}; echo; echo "lab: exit $?"')
    return boot_linux(stack, 'l1')


def complaints(log):
    """The errors that KVM in L1 logged about L0, without repetitions."""
    said = (re.sub(r'^l1 +(\[ *[\d.]+\] )?', '', line) for line in log
            if line.startswith('l1 ') and COMPLAINT.search(line))
    return list(dict.fromkeys(said))
