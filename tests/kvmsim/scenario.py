# Copyright (c) 2026 QEMU contributors
# SPDX-License-Identifier: GPL-2.0-or-later
"""The parser of scenario files, which reports the exact line of a mistake."""

import dataclasses
import functools
import json
import pathlib
import re
import shlex

from scripts.lib.system import Unknown
from scripts.queue import upstream
from scripts.queue.topics import queue
from tests.kvmsim import power

HERE = pathlib.Path(__file__).resolve().parent
ROWS = [f'B{n}' for n in range(1, 21)]
STATES = ('running', 'paused', 'internal-error', 'prelaunch', 'inmigrate', 'postmigrate',
          'restore-vm')


class Mistake(Unknown):
    """A mistake in a scenario file, as FILE:LINE: what was expected."""


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


def word(text):
    return text


def json_value(text):
    try:
        return json.loads(text)
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


def any_mode(text):
    return power.ANY if text == 'any' else mode(text)


def returned(text):
    return power.RETURNS[text] if text in power.RETURNS else number(text)


def pvr_entry(text):
    """One or more equal entries of a CAS list; raw depends on the host and stays "host" until it is sent."""
    found = re.fullmatch(r'([^*/]+)(/0x[0-9a-f]{1,8})?(\*[0-9]+)?', text)
    if not found:
        raise ValueError(f'expected NAME, 0xPVR or 0xPVR/0xMASK, optionally with *COUNT, found "{text}"')
    name, mask, count = found.groups()
    if name in ('end-of-ram', 'unterminated') and not mask and not count:
        return name
    value = ('host' if name == 'raw' else power.HOSTS[name[4:]]
             if name.startswith('raw-') and name[4:] in power.HOSTS else mode(name))
    if name.startswith('raw') and not mask:
        mask = f'/{power.RAW_MASK:#x}'
    return (value, int(mask[1:], 16) if mask else 0xffffffff, int(count[1:]) if count else 1)


def refusal(text):
    """MODE ERRNO [poison] [vcpu N]"""
    words = text.split()
    if len(words) < 2:
        raise ValueError(f'expected MODE ERRNO [poison] [vcpu N], found "{text}"')
    value, error = any_mode(words[0]), one_of(*power.ERRNOS)(words[1])
    rest, poison, vcpu = words[2:], False, power.ANY
    while rest:
        if rest[0] == 'poison':
            poison, rest = True, rest[1:]
        elif rest[0] == 'vcpu' and len(rest) > 1:
            vcpu, rest = number(rest[1]), rest[2:]
        else:
            raise ValueError(f'expected poison or vcpu N, found "{" ".join(rest)}"')
    return (vcpu, value, error, poison)


def refuse_list(text):
    return [] if text == 'nothing' else [refusal(part) for part in text.split(',')]


def caps_bits(text):
    """The names of modes, or the 64 bits as a number."""
    if re.fullmatch('0x[0-9a-f]{1,16}', text):
        return int(text, 16)
    return sum(power.CAPS[one_of(*power.CAPS)(name)] for name in text.split())


def caps_error(text):
    """ERRNO [once] [size N]: the error of the ioctl, and the size that it writes back."""
    words = text.split()
    error, rest, times, size = one_of(*power.ERRNOS)(words[0] if words else ''), words[1:], -1, -1
    if rest and rest[0] == 'once':
        times, rest = 1, rest[1:]
    if len(rest) == 2 and rest[0] == 'size':
        size, rest = number(rest[1]), []
    if rest:
        raise ValueError(f'expected ERRNO [once] [size N], found "{text}"')
    return (error, times, size)


def device_tree(text):
    """A cpu-version for each CPU node: MODE, raw, 0xPVR, absent, truncated or long; none: no nodes."""
    if text == 'none':
        return []
    return [name if name in ('absent', 'truncated', 'long', 'raw') else mode(name) for name in text.split()]


def smp(text):
    if not re.fullmatch(r'[0-9]+(,[a-z]+=[0-9]+)*', text):
        raise ValueError(f'expected what -smp takes, the number first, found "{text}"')
    return text


@functools.cache
def topics():
    return tuple(queue())


def topic(text):
    return one_of(*topics())(text)


def words_of(convert):
    def split(text):
        return [convert(part) for part in text.split()]
    return split


# Settings of QEMU and its kernel; a key with the prefix "to." is for the target of a migration.
MACHINE_KEYS = {
    'host': (one_of(*power.HOSTS), 'power11'),
    'mode': (one_of('none', *power.CAPS), 'none'),
    'kernel': (one_of(*power.KERNELS), '7.3'),
    'kvm': (one_of('hv', 'pr'), 'hv'),
    'extension': (number, None), 'caps': (caps_bits, None), 'caps-size': (number, '24'),
    'caps-error': (caps_error, None), 'device-tree': (device_tree, None),
    'refuse': (refuse_list, None),
    'smp': (smp, '1'), 'memory': (number, '256'), 'machine': (word, ''), 'cpu': (word, 'host'),
    'firmware': (one_of('slof', 'vof'), 'slof'),
}
SCENARIO_KEYS = {
    'title': (word, None), 'topic': (topic, None), 'row': (words_of(one_of(*ROWS)), None), 'like': (word, None),
    'each': (word, None), 'guest': (words_of(pvr_entry), 'raw power9 power10 power11'),
    'mmu': (one_of('radix', 'hash', 'old', 'no-vectors', 'no-vector-5'), 'radix'), 'steps': (word, None),
}

# Steps: the converters of their words; a name in quotes takes all further words.
STEPS = {
    # actions
    'cont': (), 'stop': (), 'reset': (), 'quit': (), 'migrate': (), 'cas': ('guest',),
    'plug': (number,), 'unplug': (number,), 'save': (word,), 'load': (word,),
    'get': (word, word), 'describe': (word, word), 'set': (word, word, word), 'monitor': ('words',),
    'kernel': ('setting',),
    # checks
    'exits': (word,), 'state': (one_of(*STATES),), 'returns': (returned,), 'modes': ('modes',),
    'runs': (one_of('all', 'none', 'some'),), 'says': ('words',), 'lacks': ('words',),
    'silent': (), 'refused': ('words',),
    'value': (json_value,), 'traces': ('words',), 'traced': (word, number), 'tree': (word, word, 'words'),
    'migrated': (one_of('completed', 'failed'),),
    'ioctls': (word, one_of('<=', '==', '>='), number, 'per'),
}
# Before a step: the QEMU that it is for; or, for ours, whether the base has upstream's own version
PREFIXES = ('patched', 'distro', 'upstream', 'over-upstream', 'over-plain')
SETTINGS = {'refuse': refuse_list, 'caps': caps_bits}


def modes_list(words):
    """all MODE, or a list of MODE[*COUNT]"""
    if len(words) == 2 and words[0] == 'all':
        return ('all', mode(words[1]))
    listed = []
    for text in words:
        name, _, count = text.partition('*')
        listed += [mode(name)] * (number(count) if count else 1)
    return ('each', listed)


def convert_words(verb, words):
    done = []
    for convert in STEPS[verb]:
        if convert == 'guest':
            done, words = [[pvr_entry(text) for text in words]], []
        elif convert == 'modes' and words:
            done, words = [modes_list(words)], []
        elif convert == 'setting' and len(words) > 1:
            key = one_of(*SETTINGS)(words[0])
            done, words = [key, SETTINGS[key](' '.join(words[1:]))], []
        elif convert == 'per':
            done.append({'': False, 'a vcpu': True}.get(' '.join(words)))
            if done[-1] is None:
                raise ValueError(f'expected nothing or "a vcpu", found "{" ".join(words)}"')
            words = []
        elif not words:
            raise ValueError(f'expected more words after {verb}')
        elif convert == 'words':
            done, words = [*done, words], []
        else:
            done, words = [*done, convert(words[0])], words[1:]
    if words:
        raise ValueError(f'expected nothing more after {verb}, found "{" ".join(words)}"')
    return done


@dataclasses.dataclass
class Step:
    """One line of steps: its prefix, one of PREFIXES or None, its side of a migration, its verb and arguments."""
    line: int
    text: str
    qemu: str | None
    target: bool
    verb: str
    args: list


@dataclasses.dataclass
class Scenario:
    """One stanza, checked and converted."""
    name: str
    file: str
    title: str
    topic: str
    rows: list
    guest: list
    mmu: str
    source: dict
    target: dict | None
    steps: list

    def steps_for(self, qemu):
        wanted = [None, qemu]
        if qemu == 'patched':
            wanted.append('over-upstream' if upstream.below() else 'over-plain')
        return [step for step in self.steps if step.qemu in wanted]

    @property
    def differs(self):
        """Whether unpatched QEMU is expected to behave differently."""
        return any(step.qemu == 'distro' for step in self.steps)


def step_of(line, text):
    words, qemu, target = shlex.split(text, comments=True), None, False
    if words and words[0][-1:] == ':' and words[0][:-1] in PREFIXES:
        qemu, words = words[0][:-1], words[1:]
    if words and words[0] == 'to:':
        target, words = True, words[1:]
    if not words:
        raise ValueError('expected a step after the prefix')
    verb = one_of(*STEPS)(words[0])
    return Step(line, text, qemu, target, verb, convert_words(verb, words[1:]))


def stanzas(path, content):
    """Yield (name, line, {key: (line, [(line, text)])}) for the lines above all stanzas (name None), then for each."""
    name, at, keys, key = None, 0, {}, None
    for line, text in enumerate(content.splitlines(), 1):
        bare = text.strip()
        if not bare or bare.startswith('#'):
            continue
        head = re.fullmatch(r'\[([a-z0-9+$A-Z-]+)\]', bare)
        pair = re.fullmatch(r'([a-z.-]+)\s*=\s*(.*)', bare)
        if text[0].isspace() and key:
            keys[key][1].append((line, bare))
        elif head:
            yield name, at, keys
            name, at, keys, key = head.group(1), line, {}, None
        elif pair and (name or pair[1] == 'topic') and not text[0].isspace():
            key, value = pair.groups()
            if key in keys:
                raise Mistake(f'{path}:{line}: expected {key} once ' + (f'in [{name}]' if name else 'for all stanzas'))
            keys[key] = (line, [(line, value)] if value else [])
        else:
            raise Mistake(f'{path}:{line}: expected [NAME], KEY = VALUE or an indented line, '
                          f'found "{bare}"')
    if name:
        yield name, at, keys
    else:
        raise Mistake(f'{path}:1: expected a stanza, which begins with [NAME]')


def convert_keys(path, keys, known, prefix=''):
    """The values of the KNOWN keys, by name, with defaults."""
    done = {}
    for key, (convert, default) in known.items():
        line, parts = keys.get(prefix + key, (0, None))
        value = ' '.join(text for _, text in parts) if parts is not None else default
        try:
            done[key] = None if value is None else convert(value)
        except ValueError as e:
            raise Mistake(f'{path}:{line}: {key}: {e}') from None
    return done


def variants(path, name, keys):
    """Yield the stanza, or one for each value of its variable: each = X VALUE..."""
    line, parts = keys.get('each', (0, None))
    if parts is None:
        yield name, keys
        return
    variable, *values = ' '.join(text for _, text in parts).split()
    if not re.fullmatch('[A-Z]', variable) or not values or f'${variable}' not in name:
        raise Mistake(f'{path}:{line}: each: expected a capital letter that the name has after $, '
                      'and its values')
    for value in values:
        def fill(text, value=value):
            return text.replace(f'${variable}', value)

        yield fill(name), {key: (at, [(no, fill(text)) for no, text in parts])
                           for key, (at, parts) in keys.items()}


def build(path, name, at, keys):
    known = {*SCENARIO_KEYS, *MACHINE_KEYS, *(f'to.{key}' for key in MACHINE_KEYS)}
    for key, (line, _) in keys.items():
        if key not in known:
            raise Mistake(f'{path}:{line}: expected one of {", ".join(sorted(known))}, found "{key}"')
    for key in ('title', 'topic', 'row', 'steps'):
        if not keys.get(key, (0, []))[1]:
            raise Mistake(f'{path}:{at}: expected [{name}] to have {key}')
    steps = []
    for line, text in keys['steps'][1]:
        try:
            steps.append(step_of(line, text))
        except ValueError as e:
            raise Mistake(f'{path}:{line}: {e}') from None
    own = convert_keys(path, keys, SCENARIO_KEYS)
    target = any(step.target or step.verb == 'migrate' for step in steps)
    # the target has the source's settings unless a "to." key overrides them
    to_keys = {**{f'to.{key}': value for key, value in keys.items() if key in MACHINE_KEYS}, **keys}
    return Scenario(name, str(path), own['title'], own['topic'], own['row'], own['guest'], own['mmu'],
                    convert_keys(path, keys, MACHINE_KEYS),
                    convert_keys(path, to_keys, MACHINE_KEYS, 'to.') if target else None, steps)


def read(path):
    """The scenarios of a file, in order."""
    try:
        return parse(path, pathlib.Path(path).read_text())
    except (OSError, UnicodeDecodeError) as e:
        raise Mistake(f'{path}:1: expected a readable scenario file: {e}') from None


def parse(path, content):
    """The scenarios in CONTENT, the text of PATH."""
    raw, found = {}, {}
    (_, _, for_all), *named = stanzas(path, content)
    for name, at, keys in named:
        line, parts = keys.get('like', (0, None))
        if parts is not None:
            model = ' '.join(text for _, text in parts)
            if model not in raw:
                raise Mistake(f'{path}:{line}: like: expected an earlier stanza of this file, '
                              f'found "{model}"')
            keys = {**raw[model], **keys}
        raw[name] = {key: value for key, value in keys.items() if key != 'each'}
        for variant, filled in variants(path, name, {**for_all, **keys}):
            if variant in found:
                raise Mistake(f'{path}:{at}: expected a new name, found [{variant}] again')
            found[variant] = build(path, variant, at, filled)
    return found


def files():
    return sorted(HERE.glob('*.cfg'))


def read_all():
    """All scenarios of this directory by name."""
    found = {}
    for path in files():
        for name, scenario in read(path).items():
            if name in found:
                raise Mistake(f'{path}:1: expected a new name, found [{name}], which '
                              f'{found[name].file} has')
            found[name] = scenario
    return found
