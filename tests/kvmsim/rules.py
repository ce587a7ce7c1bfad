# SPDX-License-Identifier: GPL-2.0-or-later
"""The rules that hold for every host and guest: see "Random scenarios" in README.md."""

import shlex

from tests.kvmsim import actions, guest, power
from tests.kvmsim.machine import Failed
from tests.kvmsim.model import Expected, records
from tests.kvmsim.scenario import steps_of
from tests.kvmsim.steps import Run

BAD_SIGNS = ('runtime error:', 'AddressSanitizer', 'Assertion', 'assertion failed', 'Bail out',
             'Unexpected error', 'uncaught target signal')


class Guarded(Run):
    """A run whose steps may be refused, but must not break the rules."""

    def __init__(self, scenario, binary, home):
        super().__init__(scenario, 'patched', binary, home)
        self.expected = Expected(scenario.source)
        self.calls = self.refusals = 0
        # the texts of the steps done, the number of the current one, and how many messages were checked
        self.done, self.at, self.heard = [], 0, 0
        self.plugged, self.moved = None, False
        # stopped: KVM refused a mode; lost: half of a guest was loaded; ended: QEMU exited, as it may
        self.running = self.stopped = self.lost = self.ended = False

    def run(self):
        try:
            self.source.ready()
            self.drop_phb()
        except Failed:
            self.check_start()
            return
        for self.at, step in enumerate(self.steps):
            if not self.passed_over(step.verb):
                self.prepare(step.verb)
                self.checked(step)
            if self.ended:
                return

    def passed_over(self, verb):
        # QEMU crashes if a snapshot with other cores than the machine's is loaded twice
        if verb in ('save', 'load') and (self.moved or verb == 'load' and self.expected.saved is None):
            return True
        # a load that failed leaves half of a guest, which nobody continues
        return verb == 'cont' and self.lost

    def prepare(self, verb):
        if verb == 'reset' and self.expected.refuses(self.expected.limit) and self.at % 8:
            # QEMU exits at a refused reset, which ends the run: seldom
            self.checked('kernel refuse nothing')
        if verb in ('cas', 'save'):
            self.bring_up()

    def bring_up(self):
        """Check that a reset to a mode that KVM accepts always gets the machine running again."""
        accept = ['kernel refuse nothing'] if self.expected.refuses(self.expected.limit) else []
        for text in (*([] if self.lost else ['cont']), *accept, 'reset', 'cont'):
            if self.running:
                return
            self.checked(text)
        if not self.running:
            raise Failed(f'the machine does not run after a reset: {self.error or self.last_words()}')

    def drop_phb(self):
        """Unplug the PHB: a search for each PCI slot among all of them takes three quarters of a CAS call."""
        devices = self.source.query('qom-list', path='/machine/unattached')
        phb, = (entry['name'] for entry in devices if entry['type'] == 'child<spapr-pci-host-bridge>')
        self.source.query('device_del', id=f'/machine/unattached/{phb}')
        actions.reset(self)
        if self.source.exit is not None:
            raise Failed('QEMU ended at its second reset')

    def checked(self, step):
        if isinstance(step, str):
            step, = steps_of(0, step)
        self.done.append(step.text)
        try:
            before = self.expected.mode
            self.do(step)
            getattr(self, f'after_{step.verb}', lambda *args: None)(*step.args)
            self.source.drain()
            if self.source.exit is not None and not self.ended:
                raise Failed(f'QEMU ended with {self.source.how_ended()}: {self.last_words()}')
            if not self.ended:
                self.check(step.verb, before)
        except Failed as e:
            raise Failed(f'{step.text}: {e}') from None
        if self.error:
            self.done.append(f'refused {shlex.quote(self.error.split()[0])}')

    # What an action does to the expected state.

    def after_kernel(self, answer):
        refusals, _ = answer
        if refusals is not None:
            self.expected.refusals = refusals

    def after_reset(self):
        self.expected.mode, self.lost = self.expected.limit, False
        self.ended = self.source.exit == 1 and self.expected.refuses(self.expected.limit) and bool(self.messages())

    def after_set(self, _path, _name, value):
        limit = power.MODES.get(value, 0)
        if bool(self.error) == self.expected.host.allows(limit):
            raise Failed(f'refused: {self.error}' if self.error else 'accepted, but the host does not allow it')
        if not self.error:
            self.expected.limit = limit

    def after_get(self, _path, _name):
        if self.value != [power.mode_name(mode) for mode in sorted(self.expected.host.modes or ())]:
            raise Failed(f'the machine shows {self.value or "nothing"} as the modes of the host')

    def after_save(self, _tag):
        if not self.error:
            self.expected.saved = self.expected.mode

    def after_load(self, _tag):
        self.lost = bool(self.error)
        self.expected.mode = None if self.error else self.expected.saved

    def after_plug(self, _core):
        self.moved = True

    def after_cas(self, entries):
        source = self.source.settings
        listed = records(guest.pack(entries, source['host'], self.scenario.mmu, source['memory'])[1])
        shared = self.expected.cas(listed)
        self.calls += 1
        # if the list ends early, the option vectors that follow are garbage, and QEMU may exit
        self.ended = self.source.exit == 1 and len(listed) != sum(e[2] for e in entries if isinstance(e, tuple))
        if self.source.exit is None and not shared:
            returned = self.guest.result()
            if returned != power.RETURNS['H_HARDWARE']:
                raise Failed(f'the guest got {returned}, but shares no mode with the host')

    def check_start(self):
        """Check that QEMU exited at start with a message, and because the mode of the reset was refused."""
        self.source.wait_exit()
        self.check_signs()
        if self.source.exit != 1 or not self.source.messages:
            raise Failed(f'QEMU ended with {self.source.how_ended()}: {self.last_words()}')
        limit = self.expected.limit
        if self.expected.host.allows(limit) and not self.expected.refuses(limit):
            raise Failed(f'QEMU does not start: {self.last_words()}')

    def check_signs(self):
        fresh, self.heard = self.source.messages[self.heard:], len(self.source.messages)
        for line in fresh:
            if any(sign in line for sign in BAD_SIGNS):
                raise Failed(line)

    def check(self, verb, before):
        self.check_signs()
        self.running = self.source.state() == 'running'
        refused = int(self.source.kernel('refused')[0])
        self.refusals += refused
        if refused and not self.printed().strip():
            raise Failed('KVM refused a mode, but QEMU printed no message')
        # a failed plug does not affect the other cores, and a load can replace the whole guest
        if verb in ('reset', 'load'):
            self.stopped = False
        if refused and verb not in ('plug', 'load'):
            self.stopped = True
        if self.running and self.stopped:
            raise Failed('KVM refused the mode, but the machine runs')
        if verb == 'cas' and not self.running:
            if not refused:
                raise Failed('the machine stopped, but KVM refused no mode')
            self.expected.mode = before
            if not self.expected.refuses(before):
                self.check_vcpus()
        if self.running:
            self.check_vcpus()

    def check_vcpus(self):
        if self.plugged is None or self.moved:
            self.plugged = {cpu['cpu-index'] for cpu in self.source.query('query-cpus-fast')}
        vcpus = [(mode, can) for vcpu, mode, can in self.source.modes() if vcpu in self.plugged]
        modes, mode = {mode for mode, _ in vcpus}, self.expected.mode
        names, wanted = ', '.join(map(power.mode_name, modes)), power.mode_name(mode or 0)
        if mode is not None and modes != {mode}:
            raise Failed(f'the vCPUs are in mode {names}, not in {wanted}')
        if len(modes) > 1 or not all(map(self.expected.host.allows, modes)):
            raise Failed(f'the vCPUs are in mode {names}, which this host does not allow')
        if not all(can for _, can in vcpus):
            raise Failed('a vCPU cannot run')
