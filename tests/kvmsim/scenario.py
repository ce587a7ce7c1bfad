# SPDX-License-Identifier: GPL-2.0-or-later
"""The scenarios of a file; a mistake in it is reported with its line."""

import dataclasses
import pathlib
import re
import shlex
from typing import NamedTuple

from scripts.lib.system import Unknown
from scripts.queue.commits import over_upstream
from tests.kvmsim import grammar

HERE = pathlib.Path(__file__).resolve().parent
ENDING = '.scenarios'


class Mistake(Unknown):
    """A mistake in a scenario file, as FILE:LINE: what was expected."""

    def __init__(self, path, line, words):
        super().__init__(f'{path}:{line}: {words}')


@dataclasses.dataclass
class Stanza:
    """[NAME], and its keys: for each the lines of its value, as (number, text)."""
    line: int
    name: str | None
    keys: dict

    def text(self, key):
        return ' '.join(text for _, text in self.keys[key]).strip()

    def filled(self, values):
        """The stanza with VALUES in place of its variables."""
        def fill(text):
            return re.sub(r'\$([A-Z])', lambda found: values.get(found[1], found[0]), text)
        return Stanza(self.line, fill(self.name), {
            key: [(line, fill(text)) for line, text in lines] for key, lines in self.keys.items()})


class Step(NamedTuple):
    """A step: the QEMU that it is for, one of PREFIXES or None, its side of a migration, its verb and arguments."""
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
    behavior: list
    guest: list
    mmu: str
    source: dict
    target: dict | None
    steps: list

    def steps_for(self, qemu):
        wanted = [None, qemu]
        if qemu == 'patched' and not over_upstream():
            wanted.append('over-plain')
        return [step for step in self.steps if step.qemu in wanted]

    @property
    def differs(self):
        """Whether unpatched QEMU is expected to behave differently."""
        return any(step.qemu == 'distro' for step in self.steps)


def steps_of(line, text):
    """The steps of a line: [QEMU:] [to:] STEP[; STEP]..."""
    lexer = shlex.shlex(text, posix=True, punctuation_chars=';')
    lexer.whitespace_split = True
    words, qemu, target = list(lexer), None, False
    if words and words[0][-1:] == ':' and words[0][:-1] in grammar.PREFIXES:
        qemu = words.pop(0)[:-1]
    if words[:1] == ['to:']:
        target = bool(words.pop(0))
    if (qemu or target) and not words:
        raise ValueError('expected a step after the prefix')
    while words:
        end = words.index(';') if ';' in words else len(words)
        (verb, *rest), words = words[:end] or [''], words[end + 1:]
        grammar.one_of(*grammar.STEPS)(verb)
        yield Step(line, shlex.join([verb, *rest]), qemu, target, verb, grammar.arguments(verb, rest))


def stanzas(path, content):
    """Yield a Stanza for the lines above all stanzas, whose name is None, then each stanza."""
    stanza, key = Stanza(0, None, {}), None
    for line, text in enumerate(content.splitlines(), 1):
        bare = text.strip()
        if not bare or bare.startswith('#'):
            continue
        head = re.fullmatch(r'\[([a-z0-9+$A-Z-]+)\] (B[B0-9 ]*): (.+)', text)
        pairs = [re.fullmatch(r'([a-z.-]+)\s*=\s*(.*)', part) for part in re.split(r';\s*(?=[a-z.-]+\s*=)', text)]
        if text[0].isspace() and key:
            stanza.keys[key].append((line, bare))
        elif head:
            yield stanza
            stanza, key = Stanza(line, head[1], {'behavior': [(line, head[2])], 'title': [(line, head[3])]}), None
        elif all(pair and (stanza.name or pair[1] == 'topic') for pair in pairs):
            for pair in pairs:
                key = pair[1]
                if key in stanza.keys:
                    where = f'in [{stanza.name}]' if stanza.name else 'for all stanzas'
                    raise Mistake(path, line, f'expected {key} once {where}')
                stanza.keys[key] = [(line, pair[2].strip())]
        else:
            raise Mistake(path, line, 'expected [NAME] BEHAVIOR...: TITLE, KEY = VALUE or an indented line, '
                          f'found "{bare}"')
    if not stanza.name:
        raise Mistake(path, 1, 'expected a stanza, which begins with [NAME]')
    yield stanza


def variants(path, stanza):
    """Yield the stanza, or one for each row of values that "each" gives to its variables."""
    if 'each' not in stanza.keys:
        yield stanza
        return
    (line, first), *more = stanza.keys['each']
    names, rows = first.split(), [shlex.split(text) for _, text in more]
    if not more:
        names, rows = names[:1], [[value] for value in names[1:]]
    if not rows or not all(re.fullmatch('[A-Z]', name) for name in names):
        raise Mistake(path, line, 'each: expected capital letters as variables, and their values')
    for row in rows:
        if len(row) != len(names):
            raise Mistake(path, line, f'each: expected {len(names)} values in a line, found "{" ".join(row)}"')
        yield stanza.filled(dict(zip(names, row)))


def convert(path, stanza, known, prefix=''):
    """The values of the KNOWN keys, by name, with defaults."""
    done = {}
    for key, (converter, default) in known.items():
        given = prefix + key in stanza.keys
        value = stanza.text(prefix + key) if given else default
        try:
            done[key] = None if value is None else converter(value)
        except ValueError as e:
            raise Mistake(path, stanza.keys[prefix + key][0][0], f'{key}: {e}') from None
    return done


def build(path, stanza):
    for key, ((line, _), *_) in stanza.keys.items():
        if key not in grammar.KEYS:
            raise Mistake(path, line, f'expected one of {", ".join(sorted(grammar.KEYS))}, found "{key}"')
    for key in ('topic', 'steps'):
        if not (key in stanza.keys and stanza.text(key)):
            raise Mistake(path, stanza.line, f'expected [{stanza.name}] to have {key}')
    steps = []
    for line, text in stanza.keys['steps']:
        try:
            steps += steps_of(line, text)
        except ValueError as e:
            raise Mistake(path, line, e) from None
    own = convert(path, stanza, grammar.SCENARIO_KEYS)
    source, target = convert(path, stanza, grammar.MACHINE_KEYS), None
    if any(step.target or step.verb == 'migrate' for step in steps):
        changed = {key for key in grammar.MACHINE_KEYS if f'to.{key}' in stanza.keys}
        target = {**source, **convert(path, stanza, {key: grammar.MACHINE_KEYS[key] for key in changed}, 'to.')}
    return Scenario(stanza.name, str(path), own['title'], own['topic'], own['behavior'], own['guest'], own['mmu'],
                    source, target, steps)


def parse(path, content):
    """The scenarios in CONTENT, the text of PATH, by name and in order."""
    before, found = {}, {}
    for_all, *named = stanzas(path, content)
    for stanza in named:
        if 'like' in stanza.keys:
            model = stanza.text('like')
            if model not in before:
                raise Mistake(path, stanza.keys['like'][0][0],
                              f'like: expected an earlier stanza of this file, found "{model}"')
            stanza = dataclasses.replace(stanza, keys={**before[model], **stanza.keys})
        before[stanza.name] = {key: lines for key, lines in stanza.keys.items() if key != 'each'}
        for variant in variants(path, dataclasses.replace(stanza, keys={**for_all.keys, **stanza.keys})):
            if variant.name in found:
                raise Mistake(path, stanza.line, f'expected a new name, found [{variant.name}] again')
            found[variant.name] = build(path, variant)
    return found


def read(path):
    try:
        return parse(path, pathlib.Path(path).read_text())
    except (OSError, UnicodeDecodeError) as e:
        raise Mistake(path, 1, f'expected a readable scenario file: {e}') from None


def read_all():
    """All scenarios of this directory by name."""
    found = {}
    for path in sorted(HERE.glob(f'*{ENDING}')):
        for name, scenario in read(path).items():
            if name in found:
                raise Mistake(path, 1, f'expected a new name, found [{name}], which {found[name].file} has')
            found[name] = scenario
    return found
