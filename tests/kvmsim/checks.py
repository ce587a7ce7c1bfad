# SPDX-License-Identifier: GPL-2.0-or-later
"""The steps that check the result of an action: each takes the Run, and what the step expects."""

import fnmatch
import itertools
import json
import operator
import pathlib
import struct

from tests.kvmsim import power
from tests.kvmsim.actions import migration
from tests.kvmsim.machine import Failed

RELATIONS = {'<=': operator.le, '==': operator.eq, '>=': operator.ge}


def missing(words, text):
    return [word for word in words if word.lower() not in text.lower()]


def exits(run, how):
    run.machine.wait_exit()
    if run.machine.how_ended() != how:
        raise Failed(f'QEMU ended with {run.machine.how_ended()}: {run.last_words()}')
    run.error = None


def state(run, wanted):
    now = run.machine.state()
    if now != wanted:
        raise Failed(f'the machine is in state {now}: {run.last_words()}')


def returns(run, name):
    result = run.guest.result()
    if result != power.RETURNS[name]:
        raise Failed(f'the guest got {result}: {run.last_words()}')


def migrated(run, how):
    if migration(run.source) != how:
        raise Failed(f'the migration has {migration(run.source)}: {" / ".join(run.target.messages[-4:])}')


def value(run, wanted):
    if run.value != wanted:
        raise Failed(f'the value is {json.dumps(run.value)}')


def modes(run, wanted):
    """WANTED is the mode of all vCPUs, or a list."""
    held = [mode for _, mode, _ in run.machine.modes()]
    if held != (wanted if isinstance(wanted, list) else [wanted] * len(held)):
        counts = ((name, len(list(same))) for name, same in itertools.groupby(map(power.mode_name, held)))
        raise Failed('KVM holds ' + ' '.join(name if count == 1 else f'{name}*{count}' for name, count in counts))


def runnable(run, wanted):
    can = [runs for _, _, runs in run.machine.modes()]
    now = 'all' if all(can) else 'some' if any(can) else 'none'
    if now != wanted:
        raise Failed(f'of the vCPUs, {now} can run')


def refused(run, words):
    if not run.error or run.machine.exit is not None:
        raise Failed('the command was not refused')
    error, run.error = run.error, None
    if lost := missing(words, error):
        raise Failed(f'"{lost[0]}" is not in: {error}')


def prints(run, words):
    text = run.printed()
    if lost := missing(words, text):
        raise Failed(f'"{lost[0]}" is not in the messages of QEMU: {text[:600] or "there is none"}')


def omits(run, words):
    text = run.printed()
    if found := {*words} - {*missing(words, text)}:
        raise Failed(f'"{found.pop()}" is in the messages of QEMU: {text[:600]}')


def silent(run):
    if run.messages():
        raise Failed(f'QEMU printed: {" / ".join(run.messages())[:600]}')


def traces_of(run, event):
    run.machine.drain()
    return [text for name, text in run.machine.traces if name == event]


def traces(run, event, words):
    found = traces_of(run, event)
    if all(missing(words, text) for text in found):
        raise Failed(f'the trace of {event} has: {found or "nothing"}')


def traced(run, event, count):
    found = len(traces_of(run, event))
    if found != count:
        raise Failed(f'the trace has the event {found} times')


def properties(blob):
    """{(node path, name): value} of a flattened device tree."""
    _, _, at, names = struct.unpack_from('>4I', blob)
    path, found = [], {}

    def string(start):
        return blob[start:blob.index(b'\0', start)].decode()
    while True:
        token, = struct.unpack_from('>I', blob, at)
        at += 4
        if token == 1:
            path.append(string(at))
            at += len(path[-1]) + 4 & ~3
        elif token == 2:
            path.pop()
        elif token == 3:
            size, name = struct.unpack_from('>II', blob, at)
            found['/'.join(path) or '/', string(names + name)] = blob[at + 8:at + 8 + size]
            at += 8 + (size + 3 & ~3)
        elif token == 9:
            return found


def tree(run, path, name, words):
    """Check a property of the device tree that QEMU made for the guest: cells, or hex:..."""
    blob = pathlib.Path(run.home, 'guest.dtb')
    run.machine.query('dumpdtb', filename=str(blob))
    found = [value for (node, prop), value in properties(blob.read_bytes()).items()
             if prop == name and fnmatch.fnmatchcase(node, path)]
    wanted = (bytes.fromhex(words[0][4:]) if words[0].startswith('hex:')
              else b''.join(struct.pack('>I', int(word, 0)) for word in words))
    if not found or any(value != wanted for value in found):
        raise Failed(f'the property is {", ".join(value.hex() for value in found) or "absent"}, not {wanted.hex()}')


def ioctls(run, what, relation, limit, a_vcpu):
    """Compare the ioctls of PHASE or PHASE/IOCTL with a number, or with that number for each vCPU."""
    phase, _, name = what.partition('/')
    counts = run.phases.get(phase, {})
    number = counts.get(name, 0) if name else sum(n for ioctl, n in counts.items() if ioctl != 'KVM_RUN')
    if not RELATIONS[relation](number, limit * (int(run.source.settings['smp'].split(',')[0]) if a_vcpu else 1)):
        raise Failed(f'{number} ioctls were made')
