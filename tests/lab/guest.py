# Copyright (c) 2026 QEMU contributors
# SPDX-License-Identifier: GPL-2.0-or-later
"""L2, as it is seen from outside and from its own report."""

import json
import re

from tests.lab.commands import L2_TRACE
from tests.lab.stack import Refused, Report, Timeout

# A QEMU in L1: what its words are marked with, its guest's console, its monitor
PLACES = (('qemu', 'l2', 'qmp'), ('qemu-to', 'l2-to', 'qmp-to'))
# What QEMU prints of a vCPU after "kvm run failed"
REGISTER_DUMP = re.compile(r'(NIP|MSR|HID0|TB|GPR\d+|CR|FPR\d+|FPSCR|SRR0|CTR|VRSAVE|XER|CFAR|LPCR|PTCR|DAR|SPRG\d|'
                           r'SDR1|CIABR|HSRR0|PURR|PIDR|DSISR)\b| |$')
# What QEMU says of any nested guest on such a host, limited or not
NOISE = re.compile(r'(-accel kvm: )?warning: (Many guests require at least 64kiB|kernel_irqchip allowed but '
                   r'unavailable|Number of \w+ cpus requested)|'
                   r'Falling back to kernel-irqchip=off')
WIDE_ELEMENTS = "couldn't set guest wide elements"


class Guest:
    """L2, as far as it can be told from outside and from its own report."""

    def __init__(self, stack, place=PLACES[0], extra=()):
        self.stack, self.place, self.extra = stack, place, extra
        self.mark, self.console, self.monitor = place
        self.report = Report()
        self.words, self.kernel_words = [], []
        self.events, self.answers, self.asked = [], {}, 0
        self.greeted = self.exited = False
        stack.listeners.append(self)

    def start(self):
        self.stack.launch(self)

    def take(self, name, text):
        """One line of one console, which may be another's."""
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
                # QEMU need not notice
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
        """A command whose answer, if any, is for _qmp()."""
        self.stack.send(self.monitor, json.dumps({'execute': command}))

    def ask(self, command, **arguments):
        """What the monitor answers to COMMAND."""
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
        """Give tests/lab/probe.c in L2 an order, and return the report that it answers with."""
        self.report = Report()
        self.stack.send(self.console, words)
        self.wait(lambda: self.report.complete)
        return self.report.values

    def wait(self, condition):
        while not condition():
            if self.exited:
                raise Refused(self.message() or 'QEMU ended without a word')
            self.stack.step()

    def wait_exit(self):
        while not self.exited:
            self.stack.step()

    def end(self):
        """Returns True when QEMU has ended; a monitor that is silent is left to the end of L0."""
        if not self.exited:
            self.tell('quit')
        try:
            self.wait_exit()
        except Timeout:
            return False
        return True

    def until_up(self):
        """Up to L2's first report, or whatever else becomes of it."""
        while not (self.report.complete or self.exited):
            self.stack.step()
        if self.report.complete:
            self.stack.progress('L2 userspace')

    def message(self):
        """QEMU's own words; the kernel's where those say more, or QEMU has none."""
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
        return 'refused' if self.exited else 'hung'
