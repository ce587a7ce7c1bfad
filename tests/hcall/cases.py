# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU as L0 of the nested APIs, seen by guests of a few instructions: what it answers, and how L2 exits."""

import contextlib
import functools
import itertools
import os
import pathlib
import re
import selectors
import shutil
import signal
import socket
import subprocess
import tempfile
import time

from scripts.debian import roots
from scripts.lib.system import TOP, Error, run
from tests.hcall import calls
from tests.qcow2 import empty_disk

CROSS = 'powerpc64le-linux-gnu-'
FLAGS = ('-mbig -mcpu=power8 -mno-altivec -mno-vsx -O1 -Wall -Wextra -Werror -ffreestanding -fno-pic -no-pie '
         '-fno-stack-protector -fno-asynchronous-unwind-tables -nostdlib -static').split()
LAYOUT = ('-Wl,-EB,--section-start=.start=0,--section-start=.interrupts=0x300,-Ttext=0x1000,-Tdata=0x8000,'
          '--section-start=.data.rel.ro=0x9000,-Tbss=0xa000,--build-id=none,-e,0x100,-z,noexecstack,'
          '--no-warn-rwx-segments')
# {program: its sources, the capability that it is for}
PROGRAMS = {
    'calls-v1': (('partition', 'calls'), 'ic-mode=xive,cap-nested-hv'),
    'calls-v2': (('partition', 'calls'), 'ic-mode=xive,cap-nested-papr'),
    'v1': (('partition', 'l2', 'l2-hv'), 'cap-nested-hv'),
    'v2': (('partition', 'l2', 'l2-papr'), 'cap-nested-papr'),
}

SUCCESS = '0'
VALUES = ('00000000', '0f000004', '0f000005', '0f000006', '0f000007', '0f000008', '00820200', 'ffffffff')
# (CPU, max-cpu-compat): the values that L1 may give to L2
LIMITS = {
    ('power11', None): ('0f000005', '0f000006', '0f000007'),
    ('power11', 'power11'): ('0f000005', '0f000006', '0f000007'),
    ('power11', 'power10'): ('0f000005', '0f000006'),
    ('power11', 'power9'): ('0f000005',),
    ('power10', None): ('0f000005', '0f000006'),
    ('power10', 'power9'): ('0f000005',),
}

# {start of a stanza of calls.cfg: (program, first steps)}
STARTS = {'v1': ('calls-v1', ()), 'v2': ('calls-v2', ()), 'guest': ('calls-v2', calls.GUEST)}

# Seconds without output until a guest counts as hung: if it must exit, and if it must not once it has started
PATIENCE, STILL = 20, 0.5
# SIGTERM for an instrumented QEMU, which must write its counts
END = signal.SIGKILL
NESTED, MMU = 'nested-l0', 'ppc-radix'
OURS, THEIRS = 'ours', 'Debian\'s'
BOTH, V2 = ('v1', 'v2'), ('v2',)
# {case of tests/hcall/l2.c: (topic, APIs, L2's exit on ours, and on Debian's if it differs)}: an exit is the vector
# and a value from the case; None for a guest that never exits
LEAVES = {
    'nothing': (NESTED, BOTH, ('00000980', '00000000')),
    'punctual': (NESTED, BOTH, ('00000980', '00000000')),
    'decrementer': (NESTED, V2, ('00000980', '00000000'), ('00000980', 'ffff....')),
    'set': (NESTED, V2, ('00000980', '00000001')),
    'own-timer': (NESTED, V2, ('00000980', '00000000')),
    'narrow': (NESTED, V2, ('00000980', '00000000'), ('00000980', 'ffffffc.')),
    # Debian's takes years
    'over': (NESTED, BOTH, ('00000980', '00000000'), None),
    'never': (NESTED, BOTH, ('00000c00', '00000900')),
    'beyond': (NESTED, BOTH, ('00000c00', '00000900'), ('00000980', '00000000')),
    'mediated': (NESTED, BOTH, ('00000c00', '00000500'), ('00000980', '00000000')),
    'masked': (NESTED, BOTH, ('00000980', '00000000')),
    'unmasked': (NESTED, BOTH, ('00000c00', '00000500'), ('00000980', '00000000')),
    'external': (NESTED, BOTH, ('00000ea0', '00000000')),
    'doorbell': (NESTED, BOTH, ('00000c00', '00000a00'), ('00000980', '00000000')),
    'held': (NESTED, BOTH, ('00000980', '00000001')),
    'own': (NESTED, BOTH, ('00000980', '00000001'), ('00000c00', '00000000')),
    'own-external': (NESTED, BOTH, ('00000980', '00000001')),
    'vpa': (NESTED, V2, ('00000980', '00123000'), ('00000980', '00000000')),
    'stale': (NESTED, BOTH, ('00000e00', '40000000'), None),
    'stale-own': (NESTED, V2, ('00000e00', '40000000'), None),
    'crowded': (NESTED, V2, ('00000e00', '40000000')),
    'alone': (NESTED, BOTH, ('00000980', '00000000')),
    'uncapped': (NESTED, V2, ('00000980', 'fffffffe')),
    # the partition, not L2, restarts; Debian's aborts
    'reboot': (NESTED, BOTH, ('00000100', '00000000')),
    'traced': (NESTED, BOTH, ('00000c00', '00000d00'), ('00000980', '00000000')),
    'watched': (NESTED, BOTH, ('00000c00', '00000340'), ('00000980', '00000040')),
    'watched-twice': (NESTED, BOTH, ('00000c00', '00000300'), ('00000980', '00000000')),
    'own-watched': (NESTED, BOTH, ('00000980', '00000111')),
    'counted': (NESTED, BOTH, ('00000980', '00000111'), ('00000980', '00000000')),
    'cycles': (NESTED, V2, ('00000980', '00000003')),
    'offset': (NESTED, BOTH, ('00000980', '00000001')),
    'alerted': (NESTED, V2, ('00000c00', '00000f00'), ('00000980', '00000000')),
    'alerted-late': (NESTED, V2, ('00000c00', '00000f00'), ('00000980', '00000000')),
    'own-alert': (NESTED, V2, ('00000980', '00000000'), ('00000c00', '00000f00')),
    'branched': (NESTED, BOTH, ('00000c00', '00000f00')),
    # Debian's crashes
    'cancelled': (NESTED, BOTH, ('00000980', '00000000')),
    'set-mode': (NESTED, BOTH, ('00000980', '00000000'), None),
    'waiting': (NESTED, BOTH, ('00000980', '00000000'), None),
    'woken': (NESTED, BOTH, ('00000c00', '00000000')),
    'deleted': (NESTED, V2, ('ffc90980', '00000002')),
    'gone': (NESTED, V2, ('ffc90e20', '00000000')),
    'signalled': (NESTED, BOTH, ('00000100', '00000001'), None),
    'shifted': (NESTED, V2, ('00000e00', '00000000')),
    'invalid': (NESTED, BOTH, ('00000e40', '07ffffff'), ('00000e40', '00000000')),
    'valid': (NESTED, ('v1',), ('00000980', '00001234')),
    'unchanged': (MMU, BOTH, ('00000e00', '02040000'), ('00000980', '........')),
    # the value shows that the exit was not before the store
    'own-unchanged': (MMU, BOTH, ('00000c00', '00000301'), ('00000980', '........')),
    # Debian's loops forever in L0
    'unreferenced': (MMU, BOTH, ('00000e00', '00060000'), None),
}
# {case: additional options of its machine}; with -icount, the guest's time does not depend on this machine's load
MORE = {'uncapped': ['-machine', 'cap-rpt-invalidate=off'],
        **dict.fromkeys(('punctual', 'set', 'own-timer', 'counted', 'cycles', 'alerted-late', 'branched'),
                        ['-icount', 'shift=0'])}
# What L2 writes to when it runs
LOADED = 'xp /1gx 0x200000'
MIGRATE, SAVE = 'migrate "exec:cat >/dev/null"', ('savevm now', 'loadvm now', 'cont')
# {(API, case, commands of the monitor while L2 runs): (L2's exit, what the monitor prints)}
TYPED = {
    ('v1', 'announced', 'stop', 'cont'): (('00000980', '00001000'), ''),
    ('v2', 'announced', 'stop', 'cont'): (('00000980', '00001000'), ''),
    ('v1', 'again', *('stop', 'cont') * 200, 'nmi'): (('00000100', '00000001'), ''),
    ('v2', 'again', *('stop', 'cont') * 200, 'nmi'): (('00000100', '00000001'), ''),
    ('v1', 'announced', 'nmi'): (('00000100', '00000001'), ''),
    ('v2', 'announced', 'nmi'): (('00000100', '00000001'), ''),
    ('v2', 'announced', 'stop', 'system_reset', 'savevm now', 'cont'): (('00000100', '00000000'), ''),
    ('v1', 'announced', MIGRATE, 'info migrate', 'cont'): (('00000980', '00001000'), 'completed'),
    ('v2', 'announced', MIGRATE, 'stop', 'cont'): (('00000980', '00001000'), 'stop them first'),
    ('v1', 'announced', *SAVE): (('00000980', '00001000'), ''),
    ('v2', 'announced', *SAVE): (('00000980', '00001000'), 'stop them first'),
}
# {what L0 does not support: (options, what the monitor reads, words of the error message, whether Debian's starts)}
REFUSED = {
    'an L1 with SMT': (['-smp', '2,threads=2'], '', ('with SMT', 'threads=1', 'cap-nested-papr=off'), True),
    'a guest of an L1 that must migrate': (['-only-migratable'], '', ('H_GUEST_CREATE answers 3 ffffffff',), True),
    'a guest of an L1 that migrates': (
        ['-S'], 'migrate_set_parameter max-bandwidth 1k\nmigrate -d "exec:cat >/dev/null"\ncont\n',
        ('H_GUEST_CREATE answers 9902 ffffffff',), True),
    'H_RPT_INVALIDATE without nested PAPR': (['-machine', 'cap-nested-papr=off,cap-rpt-invalidate=on'], '',
                                             ('only with nested PAPR',), False),
}


@functools.cache
def debian():
    return roots.emulator_command(roots.emulator_root())


def program(scratch, name, sources):
    """Build a program of tests/hcall; returns the image that replaces the firmware."""
    elf, image = pathlib.Path(scratch, f'{name}.elf'), pathlib.Path(scratch, f'{name}.bin')
    run([CROSS + 'gcc', *FLAGS, LAYOUT, '-o', str(elf), *(str(TOP / f'tests/hcall/{part}.c') for part in sources)])
    run([CROSS + 'objcopy', '-O', 'binary', str(elf), str(image)])
    return str(image)


def end(qemu, complained):
    qemu.send_signal(END)
    try:
        qemu.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        qemu.kill()
    if (qemu.returncode or 0) > 0:
        raise Error(f'QEMU fails: {complained()}')


def lines(command, options, said, patience=None, fds=()):
    """The words of each line that the program prints in answer to SAID, until END or until it stops printing."""
    # not a pipe: nobody reads it while the guest can make QEMU complain
    with tempfile.TemporaryFile() as complaints, \
            subprocess.Popen([*command, '-nodefaults', '-display', 'none', '-accel', 'tcg', '-serial', 'stdio',
                              *options],
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=complaints,
                             env={**os.environ, 'MALLOC_PERTURB_': '218'}, pass_fds=fds) as qemu, \
            selectors.DefaultSelector() as selector:
        def complained():
            complaints.seek(0)
            return complaints.read().decode(errors='replace').strip()
        selector.register(qemu.stdout, selectors.EVENT_READ)
        rest, wait = b'', PATIENCE
        with contextlib.ExitStack() as stack:
            stack.callback(end, qemu, complained)
            qemu.stdin.write(f'{said}\n'.encode())
            qemu.stdin.flush()
            while selector.select(wait):
                data = qemu.stdout.read1()
                if not data:
                    raise Error(f'QEMU ended unexpectedly: {complained()}')
                *whole, rest = (rest + data).split(b'\n')
                for line in whole:
                    words = line.decode().split()
                    # L2 runs once between this and READY
                    wait = PATIENCE if words[0] == 'CREATE' else patience or PATIENCE
                    if words == ['END']:
                        end(qemu, complained)
                        complaint = re.search('.*GLib.*', complained())
                        if complaint:
                            raise Error(complaint[0])
                        return
                    if words[0] == 'CREATE' and words[1] != SUCCESS:
                        raise Error(f'H_GUEST_CREATE answers {" ".join(words[1:])}')
                    yield words


def machine(image, capability, cpu, limit=None):
    # Debian's QEMU and all bases have this version
    options = f'pseries-10.0,{capability}=on,cap-cfpc=broken,cap-sbbc=broken,cap-ibs=broken,cap-ccf-assist=off'
    options += f',max-cpu-compat={limit}' if limit else ''
    return ['-machine', options, '-cpu', cpu, '-smp', '2', '-m', '256M', '-bios', image]


def in_one_qemu(command, options, steps, state, patience=None):
    """The first of STEPS that is wrong, or None; then the partition migrates to the file STATE, if that is set."""
    with tempfile.TemporaryDirectory() as home:
        def answers(asked, count):
            got = lines(command, [*options, '-monitor', f'unix:{home}/monitor,server=on,wait=off'],
                        asked if state else f'{asked}\ne', patience)
            yield from itertools.islice(got, count)
            if state:
                typed(f'{home}/monitor', f'migrate "exec:cat >{state}"')
            else:
                yield from got
            got.close()
        return calls.wrong(steps, answers)


def check_calls(command, options, steps, patience=None):
    """Check STEPS; another QEMU makes those after a step "migrate", or Debian's those after "migrate debian"."""
    first, *rest = re.split('\n(migrate|migrate debian)\n', '\n'.join(steps))
    with tempfile.NamedTemporaryFile() as state:
        said = in_one_qemu(command, options, first.splitlines(), state.name if rest else None, patience)
        if rest and not said:
            said = in_one_qemu(command if rest[0] == 'migrate' else debian(),
                               [*options, '-incoming', f'exec:cat {state.name}'], rest[1].splitlines(), None)
    return said and f'expected {said}'


def check_wrong(command, options, steps, wanted):
    """Check that QEMU gets STEPS wrong, and that what is wrong matches WANTED."""
    patience = 2 * STILL if 'no answer' in wanted else None
    said = outcome(lambda command: check_calls(command, options, steps, patience), command) or 'nothing'
    return None if re.search(wanted, said) else f'wrong is {said}; expected {wanted}'


def lpvr_steps(allowed, newest=None):
    """A refused value is not stored, so that the previous one remains: at first NEWEST."""
    stored = newest
    for value in VALUES:
        stored = value if value in allowed else stored
        yield f'set wide 0003:{value} = {"SUCCESS" if value in allowed else "ELEMENT_VALUE 0"}'
        yield f'GET wide 1 0 buf 1000 = SUCCESS; shows 0003:{stored}'


def check_lpvr(command, options, allowed, logs):
    """Check that L1 may give L2 only the values ALLOWED, and that QEMU logs the refused ones if LOGS is set."""
    with tempfile.NamedTemporaryFile('r') as log:
        said = check_calls(command, [*options, '-d', 'guest_errors', '-D', log.name],
                           [*calls.GUEST, *lpvr_steps(allowed, allowed[-1])])
        logged = re.findall('L1 must not run L2 with logical PVR 0x(.{8}) |0003 has an invalid value', log.read())
    refused = [words for value in VALUES if logs and value not in allowed for words in (value, '')]
    return said or (f'the log has {logged}; expected {refused}' if logged != refused else None)


def check_l2(command, options, case, wanted):
    found, started = None, False
    for words in lines(command, options, case, None if wanted else STILL):
        started |= words == ['READY']
        if words[0] == 'RUN':
            found = tuple(words[1:])
    if not started:
        return 'the partition does not start'
    if found == wanted or (found and wanted and all(map(re.fullmatch, wanted, found))):
        return None
    return f'L2 exits with {found}; expected {wanted}'


def until(stream, mark):
    """What the socket STREAM says up to MARK."""
    said = b''
    stream.settimeout(PATIENCE)
    while mark not in said:
        data = stream.recv(4096)
        if not data:
            raise Error(f'QEMU ended unexpectedly, after {said.decode(errors="replace")}')
        said += data
    return said.decode(errors='replace')


def typed(path, command):
    """What the monitor at PATH prints when COMMAND is typed."""
    with socket.socket(socket.AF_UNIX) as monitor:
        monitor.connect(path)
        until(monitor, b'(qemu) ')
        monitor.sendall(f'{command}\n'.encode())
        return until(monitor, b'(qemu) ')


def check_monitor(command, options, case, commands, wanted, words):
    """Type COMMANDS while L2 of CASE runs; check that L2 exits with WANTED, and that the monitor prints WORDS."""
    said, found = '', None
    with tempfile.TemporaryDirectory() as home:
        path, disk = f'{home}/monitor', shutil.copy(empty_disk(), f'{home}/disk')
        for line in lines(command, [*options, '-smp', '1,maxcpus=2', '-monitor', f'unix:{path},server=on,wait=off',
                                    '-drive', f'if=none,file={disk}'], case):
            if line == ['L2']:
                start = time.monotonic()
                while '0: 0x0000000000000000' in typed(path, LOADED) and time.monotonic() - start < PATIENCE:
                    pass
                said = ''.join(typed(path, what) for what in commands)
            elif line[0].endswith('RUN'):
                # loadvm may have interrupted an earlier one
                found = tuple(line[-2:])
    if words not in said or (not words and 'Error' in said):
        return f'the monitor prints {said}; expected {words or "no error"}'
    return None if found == wanted else f'L2 exits with {found}; expected {wanted}'


def check_debugger(command, options, words):
    """Check that a debugger that stops at L2's decrementer interrupt finds L2; it cannot be saved then, in WORDS."""
    def packets(*texts):
        return ''.join(f'+${text}#{sum(text.encode()) % 256:02x}' for text in texts).encode()
    found, said = None, ''
    ours, theirs = socket.socketpair()
    with ours, theirs, tempfile.TemporaryDirectory() as home:
        monitor, disk = f'{home}/monitor', shutil.copy(empty_disk(), f'{home}/disk')
        ours.sendall(packets('Z0,900,4', 'c'))
        more = ['-S', '-chardev', f'socket,id=gdb,fd={theirs.fileno()}', '-gdb', 'chardev:gdb',
                '-monitor', f'unix:{monitor},server=on,wait=off', '-drive', f'if=none,file={disk}']
        for line in lines(command, [*options, *more], 'never', fds=[theirs.fileno()]):
            if line == ['READY']:
                until(ours, b'T05')
                said = typed(monitor, 'info registers') + typed(monitor, 'savevm now')
                ours.sendall(packets('z0,900,4', 'c'))
            found = tuple(line[1:])
    if not all(word in said for word in ('NIP 0000000000000900', *words)):
        return f'the monitor prints {said}; expected NIP 0000000000000900, and {words}'
    return None if found == ('00000c00', '00000900') else f'L2 exits with {found}'


def check_refused(command, options, commands, wanted):
    """Check that QEMU does not start and prints WANTED, or that it starts if that is empty."""
    with tempfile.NamedTemporaryFile('w') as monitor:
        monitor.write(commands)
        monitor.flush()
        options = [*options, '-chardev', f'file,id=input,path=/dev/null,input-path={monitor.name}', '-mon', 'input']
        try:
            next(lines(command, options, 'e'), None)
            said = ''
        except Error as e:
            said = str(e)
    right = all(word in said for word in wanted) if wanted else not said
    return None if right else f'QEMU says: {said or "nothing"}'


def nested_checks(options):
    for (cpu, limit), limited in LIMITS.items():
        for whose, allowed in ((OURS, limited), (THEIRS, VALUES)):
            yield (whose, f'{cpu}, max-cpu-compat={limit or ""}: L1 may give L2 {", ".join(allowed)}',
                   functools.partial(check_lpvr, options=options('calls-v2', cpu, limit), allowed=allowed,
                                     logs=whose == OURS))
    for what, (more, commands, words, starts) in REFUSED.items():
        for whose, wanted in ((OURS, words), *([(THEIRS, ())] if starts else [])):
            yield (whose, f'v2: {what} is {"refused" if wanted else "started"}',
                   functools.partial(check_refused, options=[*options('v2'), *more], commands=commands,
                                     wanted=wanted))
    for api, *words in ('v1', 'let it run', 'resource busy'), ('v2', 'stop them first'):
        yield (OURS, f'{api}: a debugger stops in L2',
               functools.partial(check_debugger, options=options(api), words=words))
    for (api, case, *commands), (wanted, words) in TYPED.items():
        yield (OURS, f'{api}: {", ".join(dict.fromkeys(commands))} while L2 runs', functools.partial(
            check_monitor, options=options(api), case=case, commands=commands, wanted=wanted, words=words))
    for name, stanza in calls.stanzas().items():
        first, guest = STARTS[stanza['start']]
        steps = (*guest, *stanza['steps'].strip().splitlines())
        yield OURS, f'hypercalls: {name}', functools.partial(check_calls, options=options(first), steps=steps)
        yield (THEIRS, f'hypercalls: {name} is wrong', functools.partial(
            check_wrong, options=options(first), steps=steps, wanted=stanza['debian']))


def checks(scratch, topic=None):
    """(whose QEMU, what is checked, function of its command) for all topics or for one."""
    @functools.cache
    def options(name, cpu='power11', limit=None):
        sources, capability = PROGRAMS[name]
        return machine(program(scratch, name, sources), capability, cpu, limit)
    if topic in (None, NESTED):
        yield from nested_checks(options)
    for case, (of, apis, *wanted) in LEAVES.items():
        for api in apis if topic in (None, of) else ():
            for whose, leave in zip((OURS, THEIRS), wanted):
                yield (whose, f'{api}, {case}: L2 ' + (f'exits with {", ".join(leave)}' if leave else 'never exits'),
                       functools.partial(check_l2, options=[*options(api), *MORE.get(case, ())], case=case,
                                         wanted=leave))


def outcome(check, command):
    """What is wrong, or None."""
    try:
        return check(command)
    except (Error, OSError) as e:
        return str(e) or type(e).__name__
