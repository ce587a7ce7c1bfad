# Copyright (c) 2026 QEMU contributors
# SPDX-License-Identifier: GPL-2.0-or-later
"""L0 and L1 on this machine, and the consoles of all that runs in them.

L0 is QEMU itself, as the hypervisor of a pseries machine; or Linux KVM HV on
an emulated PowerNV machine, where L1 is a QEMU of its own. L0 gives L1 a
console that carries L1's kernel and the commands that the lab types into L1's
shell, and two for each QEMU that runs L2: L2's console and the QMP monitor.
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

from lib import binaries, roots
from lib.system import Error
from tests.lab import images, kernels
from tests.lab.commands import (CONSOLES, l0_command, l1_command, l1_options, l2_command, powernv_command,
                                powernv_console, pseries_console)

# What L1's kernel says of an L0 that lacks a call, or that gives it a wrong answer, and of what breaks the kernel
COMPLAINT = re.compile(r"KVM: TLB \w+ invalidation hcall failed|couldn't register the L2 VPA|trap=0xffffffea|"
                       r'\bOops\b|\bBUG: |soft lockup')
running = set()
# Processes are made one at a time, so that none inherits another's sockets
starting = threading.Lock()
# No run starts its L0 any more
ending = threading.Event()


class Broken(Error):
    """The lab itself failed, whatever the guest would have done."""


def end_all():
    """End every L0 of this process, for good; its runs then fail."""
    with starting:
        ending.set()
        for process in list(running):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


class Timeout(Exception):
    """Nothing that was waited for came in time."""


class Refused(Exception):
    """QEMU did not do what it was asked; the text is its own."""


class Line:
    """The lines that come from one console, as they come."""

    def __init__(self, name):
        self.name, self.rest = name, b''

    def feed(self, data):
        *lines, self.rest = (self.rest + data).split(b'\n')
        return [line.decode(errors='replace').strip('\r') for line in lines]


class Stack:
    """One L0 with all that runs in it; a context, so that nothing is left."""

    def __init__(self, config, progress, log):
        self.config, self.progress, self.log = config, progress, log
        self.sockets, self.pending, self.listeners = {}, [], []
        self.selector = selectors.DefaultSelector()
        self.process = self.started = self.deadline = self.kernel = self.l0 = None
        # where QEMUs that migrate to each other meet
        self.sockets_folder = '/run'

    def __enter__(self):
        config = self.config
        self.kernel = kernels.newest_kernel(config.kernel, config.pages)
        qemu = binaries.patched_qemu() if config.qemu == 'patched' else roots.distro_qemu()
        initrd = config.l1_initrd(self.kernel, qemu)
        if config.l0_stack:
            command = powernv_command(config, self.kernel, images.l0_initrd(self.kernel, initrd))
            consoles, attach = ('l0', *CONSOLES), powernv_console
        else:
            command = [*l0_command(config.l0), '-accel', 'tcg', *l1_options(config, self.kernel.vmlinux, initrd)]
            consoles, attach = CONSOLES, pseries_console
        command += ['-no-reboot']
        self.l0 = command
        with starting:
            theirs = []
            for name in consoles:
                ours, other = socket.socketpair()
                self.sockets[name] = ours
                self.selector.register(ours, selectors.EVENT_READ, Line(name))
                theirs.append(other)
                command += ['-chardev', f'socket,id={name},fd={other.fileno()}', *attach(name)]
            if ending.is_set():
                raise Broken('the lab was told to end')
            # what is built or fetched first is no part of a run
            self.started = time.monotonic()
            self.deadline = self.started + config.timeout
            # the kernel ends L0 with us, also where we get no chance to
            self.process = subprocess.Popen(
                ['setpriv', '--pdeathsig', 'KILL', '--', *command], stdin=subprocess.DEVNULL, start_new_session=True,
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
                data = key.fileobj.recv(65536)
            except ConnectionResetError:
                # it ended, and had not read all that it was told
                data = b''
            if data:
                self.pending += [(key.data.name, line) for line in key.data.feed(data)]
            else:
                self.closed(key)

    def closed(self, _):
        """A console closes with L0."""
        self.process.wait()
        words = self.process.stderr.read().decode(errors='replace').strip().splitlines()
        words = words or [text for _, text in self.pending] or self.log
        raise Broken(f'L0 ended by itself: {words[-1] if words else "without a word"}')

    def next_line(self):
        """The next (console, text); every one of them goes into the log."""
        while not self.pending:
            self._read()
        name, text = self.pending.pop(0)
        self.log.append(f'{name:3} {text}')
        return name, text

    def step(self):
        """Hand the next line to all who listen."""
        name, text = self.next_line()
        for listener in self.listeners:
            listener.take(name, text)

    def send(self, name, text):
        self.sockets[name].sendall(text.encode() + b'\n')

    def turn_to(self, config, log):
        """From now on, CONFIG says what L2 is told; its lines go to LOG."""
        self.config, self.log = config, log
        self.listeners.clear()
        self.deadline = time.monotonic() + config.timeout

    def shell(self, command):
        """Type COMMAND into L1's shell."""
        self.send('l1', command)

    def launch(self, guest):
        """Start the QEMU of GUEST in L1."""
        # sed marks what QEMU says; its exit comes after its last word, on a line of its own
        command = l2_command(self.config, guest.console, guest.monitor, guest.extra)
        self.shell(f'{{ {command}; status=$?; echo; echo "exit $status"; }} </dev/null 2>&1 | '
                   f"sed 's/^/{guest.mark}: /' &")


class Report:
    """What tests/lab/probe.c says between its first line and 'end'."""

    def __init__(self):
        self.values, self.complete = {}, False

    def take(self, text):
        """Returns True when the report is complete."""
        found = re.match(r'probe: (\w+)=(.*)', text)
        if found:
            self.values[found[1]] = found[2].strip()
        self.complete = text == 'probe: end'
        return self.complete


def boot_linux(stack, console):
    """A Linux with l1-init up to its shell on CONSOLE; returns its report."""
    report, first, name = Report(), True, console.upper()
    while True:
        where, text = stack.next_line()
        if where == 'l0' and text.startswith('lab: exit'):
            words = [line[4:] for line in stack.log if line.startswith('l0  qemu-system-')]
            raise Broken(f'the QEMU that is L1 ended: {(words or ["without a word"])[-1]}')
        if where != console:
            continue
        if first:
            stack.progress(f'{name} kernel')
            first = False
        if 'Kernel panic' in text:
            raise Broken(f'{name} did not come up: {text}')
        report.take(text)
        if text == 'lab: ready':
            stack.progress(f'{name} ready')
            return report.values


def boot_l1(stack):
    """L1 up to its shell, and L0 before it where that is a Linux; returns L1's report."""
    if stack.config.l0_stack:
        boot_linux(stack, 'l0')
        stack.send('l0', f'{l1_command(stack.config)}; echo; echo "lab: exit $?"')
    return boot_linux(stack, 'l1')


def complaints(log):
    """What KVM in L1 said of L0, each once."""
    said = (re.sub(r'^l1 +(\[ *[\d.]+\] )?', '', line) for line in log
            if line.startswith('l1 ') and COMPLAINT.search(line))
    return list(dict.fromkeys(said))
