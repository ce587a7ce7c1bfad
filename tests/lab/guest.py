# SPDX-License-Identifier: GPL-2.0-or-later
"""L2, observed from outside and through its own report."""

import json
import re

from tests.lab.commands import L2_TRACE
from tests.lab.stack import Refused, Report, Timeout

# A QEMU in L1: the mark of its output lines, its guest's console, its monitor
PLACES = (('qemu', 'l2', 'qmp'), ('qemu-to', 'l2-to', 'qmp-to'))
# The registers that QEMU prints after "kvm run failed"
REGISTER_DUMP = re.compile(r'(NIP|MSR|HID0|TB|GPR\d+|CR|FPR\d+|FPSCR|SRR0|CTR|VRSAVE|XER|CFAR|LPCR|PTCR|DAR|SPRG\d|'
                           r'SDR1|CIABR|HSRR0|PURR|PIDR|DSISR)\b| |$')
# Warnings that QEMU prints for any nested guest, on any host
NOISE = re.compile(r"(-\S+ \S+: )?warning: ('-mon' is deprecated|Many guests require at least 64kiB|"
                   r'hub 0 is not connected|kernel_irqchip allowed but unavailable|Number of \w+ cpus requested)|'
                   r'Falling back to kernel-irqchip=off')
WIDE_ELEMENTS = "couldn't set guest wide elements"
# What a QEMU says that is too old for the CPU of the host
TOO_OLD = "unable to find CPU model"


class Guest:
    """L2 and the QEMU that runs it."""

    def __init__(self, stack, place=PLACES[0], extra=()):
        self.stack, self.place, self.extra = stack, place, extra
        self.mark, self.console, self.monitor = place
        self.report = Report()
        self.words, self.kernel_words = [], []
        self.events, self.answers, self.asked = [], {}, 0
        self.greeted = self.exited = False
        stack.listeners.append(self)

    def take(self, name, text):
        """Handle a line of a console, which may belong to another guest."""
        if name == 'l1':
            self._l1(text)
        elif name == self.console:
            self.report.take(text)
        elif name == self.monitor:
            self._qmp(text)

    def _l1(self, text):
        name, _, said = text.partition(': ')
        if name == self.mark and said.startswith('exit '):
            self.exited = True
        elif name == self.mark and L2_TRACE in said:
            self.stack.progress('CAS')
        elif name == self.mark:
            self.words.append(said)
        elif 'KVM' in text and not name.startswith('qemu'):
            self.kernel_words.append(text)
            if WIDE_ELEMENTS in text:
                # QEMU may not notice
                self.tell('quit')

    def _qmp(self, text):
        try:
            message = json.loads(text)
        except ValueError:
            return
        if 'QMP' in message:
            self.greeted = True
            self.tell('qmp_capabilities')
            self.stack.progress('L2 firmware')
        elif 'event' in message:
            self.events.append(message)
            if message['event'] == 'STOP':
                self.tell('query-status')
        elif 'id' in message:
            self.answers[message['id']] = message
        elif isinstance(message.get('return'), dict) and message['return'].get('status') == 'internal-error':
            self.tell('quit')

    def tell(self, command):
        """Send a command; _qmp() handles the answer, if any."""
        self.stack.send(self.monitor, json.dumps({'execute': command}))

    def ask(self, command, **arguments):
        """Send COMMAND to the monitor, and return the answer."""
        self.wait(lambda: self.greeted)
        self.asked += 1
        number = self.asked
        self.stack.send(self.monitor, json.dumps({'execute': command, 'arguments': arguments, 'id': number}))
        self.wait(lambda: number in self.answers)
        answer = self.answers.pop(number)
        if 'error' in answer:
            raise Refused(answer['error']['desc'])
        return answer['return']

    def order(self, words):
        """Send a command to tests/lab/probe.c in L2, and return the report that it answers with."""
        self.report = Report()
        self.stack.send(self.console, words)
        self.wait(lambda: self.report.complete)
        return self.report.values

    def wait(self, condition):
        while not condition():
            if self.exited:
                raise Refused(self.message() or 'QEMU ended without a message')
            self.stack.step()

    def wait_exit(self):
        self.stack.until(lambda: self.exited)

    def end(self):
        """Return True if QEMU ends; if its monitor does not answer, QEMU ends with L0."""
        if not self.exited:
            self.tell('quit')
        try:
            self.wait_exit()
        except Timeout:
            return False
        return True

    def until_up(self):
        """Wait for L2's first report, or for the end of QEMU."""
        self.stack.until(lambda: self.report.complete or self.exited)
        if self.report.complete:
            self.stack.progress('L2 userspace')

    def message(self):
        """The message of QEMU, or of the kernel if that says more or QEMU says nothing."""
        kernel = [re.sub(r'^\[ *[\d.]+\] ', '', word) for word in self.kernel_words]
        said = [re.sub(r'^qemu-(system-\w+|kvm): ', '', word) for word in self.words]
        said = [word for word in said if not REGISTER_DUMP.match(word) and not NOISE.match(word)]
        if self.outcome() == 'guest-wide-elements':
            said = [word for word in kernel if WIDE_ELEMENTS in word][:1] + said
        elif self.outcome() != 'booted':
            said = said or kernel
        return ' '.join(word.strip() for word in said) or None

    def outcome(self):
        if self.report.complete:
            return 'booted'
        if any(WIDE_ELEMENTS in word for word in self.kernel_words):
            return 'guest-wide-elements'
        if any('kvm run failed' in word for word in self.words):
            return 'kvm-run-failed'
        return 'hung' if not self.exited else 'cannot' if any(TOO_OLD in word for word in self.words) else 'refused'
