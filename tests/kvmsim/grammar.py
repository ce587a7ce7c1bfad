# SPDX-License-Identifier: GPL-2.0-or-later
"""The keys and steps of a scenario, and the values that they take: see README.md.

A converter takes text, or all remaining words of a step, and raises ValueError if that is not a value.
"""

import functools
import json
import re

from scripts.queue.topics import queue
from tests.kvmsim import actions, checks, power
from tests.kvmsim.actions import MIGRATED

# Before the steps of a line: the QEMU that they are for; over-plain is ours, if its base lacks upstream's own version
PREFIXES = ('patched', 'distro', 'over-plain')


def number(text):
    try:
        return int(text, 0)
    except ValueError:
        raise ValueError(f'expected a number, found "{text}"') from None


def one_of(*names):
    def convert(text):
        if text not in names:
            raise ValueError(f'expected one of {", ".join(names)}, found "{text}"')
        return text
    return convert


def matching(pattern, expected):
    """A converter to the groups of PATTERN, which EXPECTED describes."""
    def convert(text):
        found = re.fullmatch(pattern, text.strip())
        if not found:
            raise ValueError(f'expected {expected}, found "{text}"')
        return found.groups()
    return convert


def list_of(convert):
    return lambda text: [convert(word) for word in text.split()]


def value(text):
    """A string as it is, or JSON."""
    try:
        return json.loads(text) if text[:1] in ('[', '{') else text
    except ValueError:
        raise ValueError(f'expected JSON, found {text}') from None


def mode(text):
    """The value of a mode: a name, raw, or a logical PVR as a number."""
    if text == 'raw':
        return 0
    if text in power.MODES:
        return power.MODES[text]
    if re.fullmatch('0x[0-9a-f]{1,8}', text):
        return int(text, 16)
    raise ValueError(f'expected raw, {", ".join(power.MODES)} or 0x..., found "{text}"')


def list_entry(text):
    """Equal entries of a CAS list; raw depends on the host and stays "host" until it is sent."""
    if text in ('end-of-ram', 'unterminated'):
        return text
    name, mask, count = matching(r'([^*/]+)(/0x[0-9a-f]{1,8})?(\*[0-9]+)?',
                                 'NAME, 0xPVR or 0xPVR/0xMASK, optionally with *COUNT')(text)
    usual = power.RAW_MASK if name == 'raw' else 0xffffffff
    return ('host' if name == 'raw' else mode(name), int(mask[1:], 16) if mask else usual,
            int(count[1:]) if count else 1)


def refusals(text):
    """(vCPU, value, errno, poison) of each refusal."""
    found = []
    for part in text.split(',') if text != 'nothing' else []:
        name, error, poison, vcpu = matching(r'(\S+)\s+(\S+)(\s+poison)?(?:\s+vcpu\s+([0-9]+))?',
                                             'MODE ERRNO [poison] [vcpu ID]')(part)
        found.append((power.ANY if vcpu is None else int(vcpu), power.ANY if name == 'any' else mode(name),
                      one_of(*power.ERRNOS)(error), bool(poison)))
    return found


def caps_bits(text):
    """The names of modes, or the 64 bits as a number."""
    if re.fullmatch('0x[0-9a-f]{1,16}', text):
        return int(text, 16)
    return sum(power.CAPS[name] for name in list_of(one_of(*power.CAPS))(text))


def caps_error(text):
    """The error of the ioctl, how many times it fails, and the size that it writes back; -1 for any."""
    error, once, size = matching(r'(\S+)(\s+once)?(?:\s+size\s+([0-9]+))?', 'ERRNO [once] [size N]')(text)
    return one_of(*power.ERRNOS)(error), 1 if once else -1, int(size or -1)


def device_tree(text):
    """A cpu-version for each CPU node."""
    kinds = ('absent', 'truncated', 'long', 'raw')
    return [] if text == 'none' else [name if name in kinds else mode(name) for name in text.split()]


def smp(text):
    matching('[0-9]+(,[a-z]+=[0-9]+)*', 'what -smp takes, the number first')(text)
    return text


@functools.cache
def topic(text):
    return one_of(*queue())(text)


def some(words):
    if not words:
        raise ValueError('expected more words')
    return words


def modes(words):
    """The mode of all vCPUs, or the list of their modes."""
    if words[:-1] == ['all']:
        return mode(words[1])
    counted = [text.partition('*') for text in some(words)]
    return [mode(name) for name, _, count in counted for _ in range(number(count or '1'))]


def answer(words):
    """A change of the kernel's answers: the refusals, or else None and the bits of its modes."""
    key, *rest = some(words)
    text = ' '.join(some(rest))
    return (refusals(text), None) if one_of('refuse', 'caps')(key) == 'refuse' else (None, caps_bits(text))


# Settings of QEMU and its kernel, with defaults; a key with the prefix "to." is for the target of a migration.
MACHINE_KEYS = {
    'host': (one_of(*power.HOSTS), 'power11'), 'mode': (one_of('none', *power.CAPS), 'none'),
    'kernel': (one_of(*power.KERNELS), '7.3'), 'kvm': (one_of('hv', 'pr'), 'hv'),
    'extension': (number, None), 'caps': (caps_bits, None), 'caps-error': (caps_error, None),
    'device-tree': (device_tree, None), 'refuse': (refusals, None), 'smp': (smp, '1'), 'memory': (number, '256'),
    'machine': (str, ''), 'cpu': (str, 'host'), 'firmware': (one_of('slof', 'vof'), 'slof'),
}
SCENARIO_KEYS = {
    'behavior': (list_of(one_of(*(f'B{n}' for n in range(1, 20)))), None), 'title': (str, None),
    'topic': (topic, None), 'like': (str, None), 'each': (str, None), 'steps': (str, None),
    'guest': (list_of(list_entry), 'raw power9 power10 power11'),
    'mmu': (one_of('radix', 'hash', 'old', 'no-vectors', 'no-vector-5'), 'radix'),
}
KEYS = {*SCENARIO_KEYS, *MACHINE_KEYS, *(f'to.{key}' for key in MACHINE_KEYS)}


# Steps: the function that does it, the converter of each of its words, and that of all further words, if any.
STEPS = {
    'cont': (actions.cont, [], None),
    'stop': (actions.command('stop'), [], None),
    'reset': (actions.reset, [], None),
    'quit': (actions.end, [], None),
    'migrate': (actions.migrate, [], None),
    'cas': (actions.cas, [], lambda words: [*map(list_entry, words)]),
    'plug': (actions.plug, [number], None),
    'unplug': (lambda run, core: run.command('device_del', id=f'core{core}'), [number], None),
    'save': (lambda run, tag: actions.monitor(run, ['savevm', tag]), [str], None),
    'load': (lambda run, tag: actions.monitor(run, ['loadvm', tag]), [str], None),
    'get': (actions.command('qom-get', 'path', 'property'), [str, str], None),
    'describe': (actions.describe, [str, str], None),
    'set': (actions.command('qom-set', 'path', 'property', 'value'), [str, str, str], None),
    'monitor': (actions.monitor, [], some),
    'kernel': (actions.kernel, [], answer),
    'exits': (checks.exits, [str], None),
    'state': (checks.state, [one_of('running', 'internal-error', 'prelaunch', 'restore-vm')], None),
    'returns': (checks.returns, [one_of(*power.RETURNS)], None),
    'migrated': (checks.migrated, [one_of(*MIGRATED)], None),
    'value': (checks.value, [value], None),
    'modes': (checks.modes, [], modes),
    'runnable': (checks.runnable, [one_of('all', 'some', 'none')], None),
    'refused': (checks.refused, [], some),
    'prints': (checks.prints, [], some),
    'omits': (checks.omits, [], some),
    'silent': (checks.silent, [], None),
    'traces': (checks.traces, [str], some),
    'traced': (checks.traced, [str, number], None),
    'tree': (checks.tree, [str, str], some),
    'ioctls': (checks.ioctls, [str, one_of(*checks.RELATIONS), number],
               lambda words: one_of('', 'a vcpu')(' '.join(words)) != ''),
}


def arguments(verb, words):
    """The values of the WORDS after VERB."""
    _, each, rest = STEPS[verb]
    if len(words) < len(each):
        raise ValueError(f'expected more words after {verb}')
    values, further = [convert(text) for convert, text in zip(each, words)], words[len(each):]
    if further and not rest:
        raise ValueError(f'expected nothing more after {verb}, found "{" ".join(further)}"')
    return [*values, rest(further)] if rest else values
