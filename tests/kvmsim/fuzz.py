# SPDX-License-Identifier: GPL-2.0-or-later
"""Random hosts, random guests: what has to hold whatever they do."""

import dataclasses
import pathlib
import random
import tempfile

import power
import machine
from machine import Surprise, has_asan
from scenario import parse
from steps import Failed, Run

MODES = [*power.CAPS]
# A hang is a finding: a step takes well below a second, sanitizers or not.
PATIENCE = 60
BAD_SIGNS = ('runtime error:', 'AddressSanitizer', 'Assertion', 'assertion failed', 'Bail out',
             'Unexpected error', 'uncaught target signal')
STANZA = '''
[seed-{seed}]
title = random
topic = host-compat
row = B8
host = {host}
mode = {mode}
kernel = {kernel}
kvm = {kvm}
caps = {caps}
caps-size = {size}
device-tree = {tree}
smp = {smp}
machine = {machine}
firmware = {firmware}
mmu = {mmu}
steps =
{steps}
'''


def random_refusals(rng, vcpus):
    rows = []
    for _ in range(rng.randrange(4)):
        words = [rng.choice(['any', 'raw', *MODES, *MODES]), rng.choice(power.ERRNOS)]
        words += rng.choice([[], ['poison']])
        words += rng.choice([[], ['vcpu', str(rng.randrange(vcpus))]])
        rows.append(' '.join(words))
    return ', '.join(rows) or 'nothing'


def random_tree(rng):
    if rng.random() < 0.6:
        return rng.choice(MODES)
    kinds = [*MODES, 'raw', 'absent', 'truncated', 'power8', '0x0f000008', f'{rng.getrandbits(32):#x}']
    return ' '.join(rng.choice(kinds) for _ in range(rng.randint(1, 3)))


def random_caps(rng):
    bits = sum(rng.choice((0, bit)) for bit in power.CAPS.values())
    return bits | (rng.getrandbits(60) if rng.random() < 0.2 else 0)


def random_list(rng, old_modes):
    names = ['raw', *MODES, *MODES, '0x0f000008', '0x0f000009', *(['power8', 'power7'] if old_modes else [])]
    entries = []
    for _ in range(rng.choice((0, 1, 2, 3, 5, 8))):
        entry = rng.choice(names)
        if rng.random() < 0.15:
            entry = f'{rng.getrandbits(32):#x}/{rng.choice((0xffffffff, rng.getrandbits(32))):#x}'
        if rng.random() < 0.1:
            entry += f'*{rng.choice((2, 3, 100, 511, 512, 513))}'
        entries.append(entry)
    if rng.random() < 0.1:
        entries.append(rng.choice(('unterminated', 'end-of-ram')))
    return ' '.join(entries) or 'power9*0'


def random_step(rng, vcpus, old_modes):
    """A step and how often it comes."""
    kinds = {
        lambda: f'cas {random_list(rng, old_modes)}': 10,
        lambda: f'kernel refuse {random_refusals(rng, vcpus)}': 4,
        lambda: 'reset': 4, lambda: 'cont': 5, lambda: 'stop': 1,
        lambda: f'set /machine max-cpu-compat {rng.choice([*MODES, *MODES, "power8"])}': 1,
        lambda: "set /machine max-cpu-compat ''": 1,
        lambda: f'plug {vcpus + rng.randrange(2)}': 1,
        lambda: 'save one': 1, lambda: 'load one': 1,
    }
    return rng.choices([*kinds], [*kinds.values()])[0]()


def generate(seed):
    """The scenario of one seed."""
    rng = random.Random(seed)
    smp = rng.choice(('1', '2', '4', '4,threads=2', '8,threads=8'))
    vcpus = int(smp.split(',')[0])
    # QEMU fails an assertion where a guest in a mode before POWER9 has DAWR1
    old_modes = rng.random() < 0.3
    options = ['cap-dawr1=off'] if old_modes else []
    kvm = 'pr' if rng.random() < 0.08 else 'hv'
    if kvm == 'pr':
        options = ['cap-fwnmi=off', 'cap-dawr1=off']
    if rng.random() < 0.3:
        options.append('max-cpu-compat=' + rng.choice(MODES + (['power8'] if old_modes else [])))
    steps = ['cont', *(random_step(rng, vcpus, old_modes) for _ in range(rng.randint(8, 24)))]
    text = STANZA.format(
        seed=seed, host=rng.choice(MODES[1:] * 3 + MODES[:1]), mode='none',
        kernel=rng.choice(('7.3', '7.3', '7.3', '7.2', '6.12')), kvm=kvm,
        caps=f'{random_caps(rng):#x}', size=rng.choice((24, 24, 32, 64)), tree=random_tree(rng),
        smp=smp if ',' in smp else f'{smp},maxcpus={vcpus + 2}', machine=','.join(options),
        firmware='slof' if rng.random() < 0.8 else 'vof',
        mmu=rng.choice(('radix', 'radix', 'hash', 'old', 'no-vectors', 'no-vector-5')),
        steps='\n'.join(f'    {step}' for step in steps))
    if rng.random() < 0.25:
        error = rng.choice(power.ERRNOS) + rng.choice(('', ' once', ' size 24', ' once size 16'))
        text = text.replace('steps =', f'caps-error = {error}\nsteps =', 1)
    if rng.random() < 0.6:
        text = text.replace('steps =', f'refuse = {random_refusals(rng, vcpus)}\nsteps =', 1)
    scenario, = parse(f'seed {seed}', text).values()
    return text, scenario


@dataclasses.dataclass
class Host:
    """What the design says of a host: its modes (None: not known), and whether they limit."""
    modes: set | None
    limited: bool


def judge(settings):
    """The host as QEMU has to see it, worked out once more and independently."""
    own = power.MODES[settings['host']]
    if settings['kvm'] == 'pr':
        return Host(None, False)
    modes, logical = set(), {power.MODES[name] for name in MODES}
    if power.KERNELS[settings['kernel']][0] and not settings['caps-error']:
        modes = {power.MODES[name] for name, bit in power.CAPS.items() if settings['caps'] & bit}
    modes = {mode for mode in modes if mode <= own}
    if not modes:
        kinds = {'raw': power.HOSTS[settings['host']], 'absent': 0, 'truncated': 0}
        versions = {kinds.get(kind, kind) for kind in settings['device-tree']}
        if len(versions) == 1 and versions <= logical:
            modes = {mode for mode in logical if mode <= min(own, *versions)}
    return Host(modes or None, bool(modes) and own not in modes)


class Fuzz(Run):
    """A run whose steps may be refused, but not break what has to hold."""

    def __init__(self, scenario, binary, home):
        super().__init__(scenario, 'patched', binary, home)
        self.host = judge(scenario.source)
        self.calls = self.refusals = 0

    def run(self):
        self.machine = self.source
        try:
            self.source.ready()
        except Surprise:
            self.check_end()
            return
        for step in self.scenario.steps:
            try:
                if step.verb != 'cas' or self.source.state() == 'running':
                    self.calls += step.verb == 'cas'
                    getattr(self, f'do_{step.verb}')(*step.args)
                self.source.drain()
                if self.source.exit is None:
                    self.check(step)
            except Surprise as e:
                if self.source.exit is None:
                    raise Failed(f'{step.text}: {e}') from None
            except Failed as e:
                raise Failed(f'{step.text}: {e}') from None
            if self.source.exit is not None:
                self.check_end()
                return

    def check_end(self):
        self.source.wait_exit()
        self.check_signs()
        if self.source.exit != 1 or not self.source.messages:
            raise Failed(f'QEMU ended with {self.source.how_ended()}: {self.last_words()}')

    def check_signs(self):
        self.check_modelled()
        for line in self.source.messages:
            if any(sign in line for sign in BAD_SIGNS):
                raise Failed(line)

    def check(self, step):    # pylint: disable=unused-argument
        self.check_signs()
        refused = int(self.source.command_kvm('refused')[0])
        self.refusals += refused
        # PR refuses always, and QEMU goes on in raw mode without a word
        if refused and not (self.said() or self.error):
            raise Failed('KVM refused a mode, and QEMU said nothing')
        if self.source.state() == 'running':
            self.check_vcpus()

    def check_vcpus(self):
        plugged = {cpu['cpu-index'] for cpu in self.source.query('query-cpus-fast')}
        rows = [row for row in self.source.modes() if row[0] in plugged]
        modes = {mode for _, mode, _ in rows}
        if len(modes) > 1:
            raise Failed('a machine half set: ' + ', '.join(map(power.mode_name, modes)))
        if not all(runs for _, _, runs in rows):
            raise Failed('the machine is running, but a vCPU cannot')
        for mode in modes:
            newer = mode >= power.MODES['power9']
            if (self.host.limited and mode == 0) or \
                    (self.host.modes and newer and mode not in self.host.modes):
                raise Failed(f'a vCPU in mode {power.mode_name(mode)}, which the host does not have')


def one(seed, binary):
    """Run one seed: (what went wrong or None, CAS calls, refusals)."""
    machine.PATIENCE = PATIENCE
    text, scenario = generate(seed)
    with tempfile.TemporaryDirectory(prefix='kvmsim-') as home:
        fuzz = None
        try:
            fuzz = Fuzz(scenario, binary, pathlib.Path(home))
            fuzz.run()
        except (Failed, Surprise) as e:
            return f'{e}\n{text}', getattr(fuzz, 'calls', 0), getattr(fuzz, 'refusals', 0)
        finally:
            if fuzz:
                fuzz.close()
    return None, fuzz.calls, fuzz.refusals


def describe(binary):
    """What the build watches over."""
    if has_asan(binary):
        return 'undefined behaviour and addresses are checked'
    return 'undefined behaviour is checked; addresses are not: this QEMU has no AddressSanitizer'
