# SPDX-License-Identifier: GPL-2.0-or-later
"""Random hosts, random guests, and random steps."""

import itertools
import random

from tests.kvmsim import power

# QEMU does not know the last one
MODES = [*power.CAPS][:-1]
# CAS reads at most this many records of the guest's list
RECORDS = 512


def random_refusals(rng, vcpus, most):
    rows = []
    for _ in range(rng.randrange(most + 1)):
        words = [rng.choice(['any', 'raw', *MODES, *MODES]), rng.choice(power.ERRNOS)]
        words += rng.choice([[], ['poison']])
        words += rng.choice([[], ['vcpu', str(rng.randrange(vcpus))]])
        rows.append(' '.join(words))
    return ', '.join(rows) or 'nothing'


def random_tree(rng):
    if rng.random() < 0.6:
        return rng.choice(MODES)
    kinds = [*MODES, 'raw', 'absent', 'truncated', 'long', 'power8', '0x0f000008', f'{rng.getrandbits(32):#x}']
    return ' '.join([rng.choice(kinds)] * rng.randint(1, 3))


def random_caps(rng):
    bits = sum(rng.choice((0, power.CAPS[name])) for name in MODES)
    return bits | (rng.getrandbits(60) if rng.random() < 0.2 else 0)


def random_entry(rng, old_modes):
    """A mode or another record; most random bits would be an end record, so make that rare."""
    if rng.random() < 0.8:
        return rng.choice(['raw', *MODES, *MODES, '0x0f000008', *(['power8', 'power7'] if old_modes else [])])
    mask = rng.choice((0xffffffff, 0xffff0000, 0x0fffffff, 0, rng.getrandbits(16) << 16))
    value = rng.choice((rng.getrandbits(32), *power.HOSTS.values(), *(power.MODES[name] for name in MODES)))
    return f'{value & (mask if rng.random() < 0.9 else ~0):#x}/{mask:#x}'


def random_list(rng, old_modes):
    entries = []
    for _ in range(rng.choice((0, 1, 1, 2, 3, 5, 8))):
        entries.append(random_entry(rng, old_modes))
        if rng.random() < 0.05:
            entries[-1] += f'*{rng.choice((2, 3, 100))}'
    if rng.random() < 0.02:
        # fill the list, so that the limit falls on one of the entries above
        entries.insert(0, f'0x0f000008*{RECORDS - rng.randint(0, len(entries))}')
    if rng.random() < 0.1:
        entries.append(rng.choice(('unterminated', 'end-of-ram')))
    return ' '.join(entries) or 'power9*0'


def random_steps(rng, host, vcpus, old_modes, kvm):
    """An endless sequence of steps."""
    # QEMU exits at a reset to POWER9 mode with DAWR1
    settable = [name for name in MODES if power.MODES[name] <= power.MODES[host] and
                (old_modes or name != 'power9')] + ['power8'] * old_modes + ["''"]
    kinds = {
        lambda: f'cas {random_list(rng, old_modes)}': 60,
        lambda: f'kernel refuse {random_refusals(rng, vcpus, 3)}': 12, lambda: f'kernel caps {random_caps(rng):#x}': 1,
        lambda: 'reset': 8, lambda: 'cont': 3, lambda: 'stop': 2,
        # one core only: QEMU fails an assertion after cores are plugged and unplugged out of order
        lambda: f'plug {vcpus}': 3, lambda: f'unplug {vcpus}': 2,
        lambda: 'save one': 0.5, lambda: 'load one': 2, lambda: 'get /machine host-compat-modes': 1,
    }
    if kvm == 'hv':
        kinds[lambda: f"set /machine max-cpu-compat {rng.choice(settable)}"] = 4
    while True:
        yield rng.choices([*kinds], [*kinds.values()])[0]()


def generate(seed):
    """The host and the guest of a seed, and an iterator of its steps."""
    rng = random.Random(seed)
    smp = rng.choice(('1', '2', '4', '4,threads=2', '8,threads=8'))
    vcpus = int(smp.split(',')[0])
    host = rng.choice(MODES[1:] * 3 + MODES[:1])
    # QEMU fails an assertion if a guest in a mode before POWER9 has DAWR1
    old_modes = rng.random() < 0.6
    options = ['cap-dawr1=off'] if old_modes else []
    kvm = 'pr' if rng.random() < 0.08 else 'hv'
    if kvm == 'pr':
        options = ['cap-fwnmi=off', 'cap-dawr1=off']
    # KVM PR has no radix
    mmu = rng.choice((*(['radix', 'radix'] if kvm == 'hv' else []), 'hash', 'old', 'no-vectors', 'no-vector-5'))
    if rng.random() < 0.2:
        # QEMU exits at CAS if a guest asks for XIVE on a machine that started in POWER8 mode
        options.append('max-cpu-compat=' + rng.choice(MODES + ['power8'] * (old_modes and mmu == 'old')))
    settings = {
        'topic': 'host-compat', 'host': host, 'kernel': rng.choice(('7.3', '7.3', '7.3', '7.2', '6.12')), 'kvm': kvm,
        'caps': f'{random_caps(rng):#x}', 'device-tree': random_tree(rng),
        'smp': smp if ',' in smp else f'{smp},maxcpus={vcpus + 2}', 'machine': ','.join(options),
        'firmware': 'slof' if rng.random() < 0.8 else 'vof', 'mmu': mmu}
    if rng.random() < 0.25:
        settings['caps-error'] = rng.choice(power.ERRNOS) + rng.choice(('', ' once', ' size 24', ' once size 16'))
    if rng.random() < 0.2:
        settings['refuse'] = random_refusals(rng, vcpus, 2)
    text = '\n'.join([f'[seed-{seed}] B8: a random host and guest',
                      *(f'{key} = {value}' for key, value in settings.items())])
    steps = random_steps(rng, host, vcpus, old_modes, kvm)
    return text, itertools.chain(['cont'], itertools.islice(steps, rng.randint(100, 300)))


def stanza(text, steps):
    return f'{text}\nsteps =\n' + ''.join(f'    {step}\n' for step in steps)
