# SPDX-License-Identifier: GPL-2.0-or-later
"""Hypercalls that tests/hcall/calls.c makes, written as steps:

  CALL ARGUMENT... = RESULT [R4 [R5]]   make a hypercall; numbers are hexadecimal
  buffer COUNT ID:VALUE...              write a guest state buffer; VALUE is bytes
  set FLAGS ID:VALUE... = RESULT [R4]   write a buffer, and set the state of guest 1 or its vCPU 0
  shows ID:VALUE...                     these are the elements of the buffer now
  store ADDRESS VALUE                   write a doubleword
  load ADDRESS VALUE                    read it
  each FIRST LAST STEP                  do STEP with each number instead of *
  migrate [debian]                      go on in another QEMU, or in Debian's
"""

import configparser
import contextlib
import itertools
import re

from scripts.lib.system import TOP, Error

CALLS = {
    'GET_CAPABILITIES': 0x460, 'SET_CAPABILITIES': 0x464, 'CREATE': 0x470, 'CREATE_VCPU': 0x474, 'GET': 0x478,
    'SET': 0x47c, 'RUN': 0x480, 'DELETE': 0x488, 'SET_PARTITION_TABLE': 0xf800, 'ENTER_NESTED': 0xf804,
}
RESULTS = {
    'SUCCESS': 0, 'NOT_AVAILABLE': 3, 'PARAMETER': -4, 'NOT_ENOUGH_RESOURCES': -44, 'P2': -55, 'P3': -56, 'P4': -57,
    'P5': -58, 'STATE': -75, 'IN_USE': -77, 'ELEMENT_ID': -79, 'ELEMENT_SIZE': -80, 'ELEMENT_VALUE': -81, 'FLAG': -256,
}
# "wide" is the flag of calls for the whole guest; "none" has no memory, "tima" has registers of XIVE
WORDS = {'buf': 0x400000, 'in': 0x500000, 'none': 1 << 50, 'tima': 0x6030203180000, 'wide': 1 << 63, 'all': 1 << 63}
GUEST = ('SET_CAPABILITIES 0 4000000000000000 = SUCCESS', 'CREATE 0 -1 = SUCCESS 1', 'CREATE_VCPU 0 1 0 = SUCCESS')


def stanzas():
    """The stanzas of calls.cfg."""
    path, config = TOP / 'tests/hcall/calls.cfg', configparser.ConfigParser(interpolation=None, delimiters=['='])
    config.read_string(path.read_text())
    for name in config.sections():
        if sorted(config[name]) != ['debian', 'start', 'steps']:
            raise Error(f'{path.relative_to(TOP)}: [{name}] has {", ".join(config[name])}: it must have start, debian '
                        'and steps')
    return {name: config[name] for name in config.sections()}


def number(word):
    value = WORDS.get(word, RESULTS.get(word))
    return (int(word, 16) if value is None else value) & (1 << 64) - 1


def packed(count, elements):
    """The doublewords of a guest state buffer."""
    data = int(count, 16).to_bytes(4, 'big')
    for ident, value in (element.split(':') for element in elements):
        data += bytes.fromhex(ident) + (len(value) // 2).to_bytes(2, 'big') + bytes.fromhex(value)
    data += bytes(-len(data) % 8)
    return [int.from_bytes(data[at:at + 8], 'big') for at in range(0, len(data), 8)]


def expanded(steps):
    """STEPS, lines that can have several with ";" between them, one by one and without "each"."""
    for step in (step for line in steps for step in line.split('; ')):
        if step.split()[0] == 'each':
            first, last, step = step.split(maxsplit=3)[1:]
            yield from (step.replace('*', f'{n:x}') for n in range(int(first, 16), int(last, 16) + 1))
        elif step.startswith('set '):
            flags, elements, result = re.fullmatch(r'set (\w+) (.*) = (.*)', step).groups()
            yield from (f'buffer {len(elements.split()):x} {elements}', f'SET {flags} 1 0 buf 1000 = {result}')
        else:
            yield step


def typed(step):
    """The lines that STEP types, and the words of each answer."""
    what, *words = step.split()
    if what == 'store':
        return [f'p {number(words[0]):x} {number(words[1]):x}'], []
    if what == 'load':
        return [f'g {number(words[0]):x}'], [[f'{number(words[1]):016x}']]
    if what == 'buffer':
        return [f'p {at:x} {value:x}' for at, value in zip(itertools.count(WORDS['buf'], 8),
                                                           packed(words[0], words[1:]))], []
    if what == 'shows':
        values = packed(f'{len(words):x}', words)
        return ([f'g {WORDS["buf"] + 8 * i:x}' for i in range(len(values))], [[f'{value:016x}'] for value in values])
    arguments, results = re.fullmatch('(.*) = (.*)', ' '.join(words)).groups()
    return ([f'c {CALLS[what]:x} ' + ' '.join(f'{number(word):x}' for word in arguments.split())],
            [[f'{number(word):016x}' for word in results.split()]])


def wrong(steps, answers):
    """The step that gets another answer than it says, or None; ANSWERS takes what to type, and how many to expect."""
    steps = list(expanded(steps))
    told = [typed(step) for step in steps]
    all_wanted = [(step, words) for step, (_, expected) in zip(steps, told) for words in expected]
    # the console of a partition that is loaded loses what comes before
    with contextlib.closing(answers('\n' * 16 + '\n'.join(line for lines, _ in told for line in lines),
                                    len(all_wanted))) as got:
        for step, wanted in all_wanted:
            found = next(got, ['='])[1:]
            if found[:len(wanted)] != wanted:
                return f'{step}: {" ".join(found) or "no answer"}'
        # QEMU can have complaints at the end
        next(got, None)
    return None
