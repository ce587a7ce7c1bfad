# Copyright (c) 2026 QEMU contributors
# SPDX-License-Identifier: GPL-2.0-or-later
"""The lab on a POWER machine that is a KVM host itself, without L0 and L1.

This module and its imports have to run on any distribution, without Debian's
tools; tests/lab/check_here.py says with which Python.
"""

import contextlib
import os
import pathlib
import platform
import re
import selectors
import shutil
import socket
import subprocess
import tempfile
import textwrap
import time
from typing import NamedTuple

from scripts.lib.system import Error, run as tool
from tests import qcow2
from tests.lab import images, life, matrix, stack
from tests.lab.commands import COMMAND_LINE, L1_PAGES, L2_WORK, MODES
from tests.lab.guest import PLACES, Guest

HOME = pathlib.Path(__file__).resolve().parent
KERNELS = ('/boot/vmlinux-{0}', '/boot/vmlinuz-{0}', '/usr/lib/modules/{0}/vmlinux', '/usr/lib/modules/{0}/vmlinuz')
NESTED = pathlib.Path('/sys/module/kvm_hv/parameters/nested')
WIDTH = 76
# Seconds for each stage of a guest; SLOF alone takes half a minute if the host is emulated
PATIENCE = 180
QEMUS = ('qemu', 'other')
MARKS = tuple(place[0] for place in PLACES)
# By the upper half of the PVR, and the bits of KVM_PPC_GET_COMPAT_CAPS
FAMILIES = {0x4b: 'power8', 0x4c: 'power8', 0x4d: 'power8', 0x4e: 'power9', 0x80: 'power10', 0x82: 'power11'}
BITS = {'power9': 1 << 62, 'power10': 1 << 61, 'power11': 1 << 60}
# Short outcomes for the table; QEMU's messages are below it
SHORT = {'kvm-run-failed': 'fails', 'guest-wide-elements': 'fails', 'hung': 'hangs', **{
    mode: mode.replace('power', 'Power' if mode == 'power11' else 'POWER') for mode in MODES}}


class Row(NamedTuple):
    """QEMU's options and the expected outcome; a name in braces is a key of modes()."""
    machine: str
    cpu: str
    outcome: str
    steps: tuple = ()

    def fill(self, known):
        """The row for a host with the modes KNOWN, or None if the host lacks a mode that the row needs."""
        try:
            machine, cpu = self.machine.format(**known), self.cpu.format(**known)
        except KeyError:
            return None
        return Row(machine, cpu, self.outcome.format(**known) if known else None, self.steps)

    def expected(self):
        """(QEMU's options or the guest's next step, the outcome in the words of matrix.table)"""
        yield self.machine or f'-cpu {self.cpu}', self.outcome
        for step in self.steps:
            yield f'then {step}', self.outcome and self.outcome.replace('booted', step)


ROWS = (
    # no step follows one that fails, so the step that demands most of the guest's kernel comes last
    Row('', 'host', 'booted:{own}', ('reboot', 'savevm', 'migrate', 'hotplug')),
    Row('max-cpu-compat={own}', 'host', 'booted:{own}'),
    Row('max-cpu-compat={below}', 'host', 'booted:{below}'),
    Row('max-cpu-compat={above}', 'host', 'refused'),
    Row('', '{own}', 'booted:{own}'),
)


class Config(NamedTuple):
    """How a guest is started."""
    qemu: pathlib.Path
    kernel: pathlib.Path
    initrd: pathlib.Path
    machine: str
    cpu: str
    init: str


class KernelLog:
    """New messages of the kernel's log, read like a socket."""

    def __init__(self):
        self.fd = os.open('/dev/kmsg', os.O_RDONLY | os.O_NONBLOCK)
        os.lseek(self.fd, 0, os.SEEK_END)

    def fileno(self):
        return self.fd

    def recv(self, size):
        try:
            record = os.read(self.fd, size)
        except BrokenPipeError:
            # messages were overwritten; the next read continues after the gap
            return b'\n'
        return record.partition(b';')[2].partition(b'\n')[0] + b'\n'

    def close(self):
        os.close(self.fd)


class Host(stack.Stack):
    """This machine takes the place of L1; each guest's QEMU is a process."""

    def __init__(self, config, folder, progress):
        super().__init__(config, self.renew, [])
        self.shown = progress
        self.sockets_folder = folder
        self.disk = pathlib.Path(folder, 'disk')
        self.processes = {}

    def __enter__(self):
        self.disk.write_bytes(qcow2.qcow2())
        # not every user may read the kernel's log
        with contextlib.suppress(OSError):
            self.sockets['l1'] = log = KernelLog()
            self.selector.register(log, selectors.EVENT_READ, stack.Line('l1'))
        self.renew('starting')
        return self

    def renew(self, stage):
        """Restart the timeout for a new stage."""
        self.deadline = time.monotonic() + PATIENCE
        self.shown(stage)

    def __exit__(self, *exception):
        for process in self.processes.values():
            process.kill()
            process.wait()
        super().__exit__(*exception)

    def launch(self, guest):
        names = (guest.mark, guest.console, guest.monitor)
        pairs = [socket.socketpair() for _ in names]
        for name, (ours, _) in zip(names, pairs):
            self.sockets[name] = ours
            self.selector.register(ours, selectors.EVENT_READ, stack.Line(name))
        theirs = [other for _, other in pairs]
        self.processes[guest.mark] = self.spawn(*theirs, guest.extra)
        for other in theirs:
            other.close()

    def spawn(self, words, console, monitor, extra):
        """Start QEMU, without options that only some builds have."""
        config, console, monitor = self.config, console.fileno(), monitor.fileno()
        command = [
            str(config.qemu), '-nodefaults', '-no-user-config', '-display', 'none', '-accel', 'kvm',
            '-machine', config.machine, '-cpu', config.cpu, '-smp', '1,maxcpus=2', '-m', '512M',
            '-chardev', f'socket,id=l2,fd={console}', '-serial', 'chardev:l2',
            '-chardev', f'socket,id=qmp,fd={monitor}', '-mon', 'chardev=qmp,mode=control',
            '-blockdev', f'qcow2,node-name=disk,file.driver=file,file.filename={self.disk}',
            '-kernel', str(config.kernel), '-initrd', str(config.initrd),
            '-append', COMMAND_LINE + config.init, *extra]
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=words, stderr=subprocess.STDOUT,
                                pass_fds=[console, monitor], start_new_session=True)

    def send(self, name, text):
        # closed() reports that QEMU has ended
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            super().send(name, text)

    def closed(self, key):
        """QEMU closes its sockets when it ends; only the one for its output reports the exit."""
        self.selector.unregister(key.fileobj)
        if key.data.name in MARKS:
            self.pending.append((key.data.name, f'exit {self.processes[key.data.name].wait()}'))

    def next_line(self):
        name, text = super().next_line()
        return ('l1', f'{name}: {text}') if name in MARKS else (name, text)


def missing():
    """Why this machine is not a KVM host, or None."""
    if platform.machine() != 'ppc64le':
        return f'this machine is {platform.machine()}: run this on ppc64le Linux that has /dev/kvm'
    if not os.path.exists('/dev/kvm'):
        return 'this machine has no /dev/kvm: load the module kvm-hv; a partition must also be allowed to run guests'
    if not os.access('/dev/kvm', os.R_OK | os.W_OK):
        return 'this user may not open /dev/kvm: run this as root, or in the group that owns /dev/kvm'
    return None


def find_kernel():
    """The file of the running kernel, for QEMU to load."""
    places = [pathlib.Path(place.format(platform.release())) for place in KERNELS]
    for place in places:
        if os.access(str(place), os.R_OK):
            return place
    raise Error(f'cannot read a kernel in {", ".join(map(str, places))}: give one with --kernel')


def prober(folder):
    """The program built from tests/lab/*.c: from the kit, or compiled on this host."""
    shipped, made = HOME / 'probe', pathlib.Path(folder, 'probe')
    if shipped.exists():
        return shipped
    advice = 'install gcc and the static C library (libc6-dev, glibc-static), or use the tarball of make host-kit'
    if not shutil.which('cc'):
        raise Error(f'there is no C compiler here: {advice}')
    try:
        tool(['cc', '-static', '-O2', '-o', str(made), *map(str, sorted(HOME.glob('*.c')))])
    except Error as e:
        raise Error(f'cannot compile the init of the guests ({e}): {advice}') from None
    return made


def mode_of(version):
    """The mode of a PVR, which is either logical or that of a CPU."""
    return matrix.LOGICAL.get(version) or FAMILIES.get(version >> 16)


def api(values):
    """The nested API of this host, as far as userspace can tell."""
    if values['machine'].startswith('PowerNV') or values['kvm_type'] == 'PR':
        return 'none'
    if values['nests'] == '1':
        return 'v1'
    # no nests capability means v2, unless the administrator disabled nesting
    return 'v2' if NESTED.exists() and NESTED.read_text().strip() in ('Y', '1') else 'unknown'


def look(probe):
    """Identify this host."""
    report = stack.Report()
    for line in tool([str(probe)]).splitlines():
        report.take(line)
    values = report.values
    if 'kvm' in values:
        raise Error(f'KVM cannot create a guest here ({values["kvm"]}): check the kernel log for messages of KVM')
    return {**values, 'pages': os.sysconf('SC_PAGE_SIZE'), 'api': api(values),
            'mode': mode_of(int(values.get('cpu_version', values['pvr']), 16))}


def modes(host):
    """{own, below, above: a mode}, without those that this host lacks; KVM PR has none."""
    own = host['mode']
    if not own or host['kvm_type'] == 'PR':
        return {}
    number = MODES.index(own)
    older, newer = MODES[1:number], MODES[number + 1:]
    if 'compat_caps' in host:
        older = [mode for mode in older if int(host['compat_caps'], 16) & BITS[mode]]
    elif host['api'] != 'v1' and not host['machine'].startswith('PowerNV'):
        # the hypervisor may not offer every older mode to nested guests
        older = []
    return {'own': own, **({'below': older[-1]} if older else {}), **({'above': newer[0]} if newer else {})}


def taken(guest):
    """The properties that QEMU derived from its host; QEMU without the series lacks most of them."""
    found = {}
    for name in ('host-compat-modes', 'host-compat-source', 'max-cpu-compat'):
        with contextlib.suppress(stack.Refused, stack.Timeout):
            found[name] = guest.ask('qom-get', path='/machine', property=name)
    return found


def whole_life(config, row, folder, progress):
    """Run a guest under one QEMU; return (the outcome and message of each line of ROW, the result of taken())."""
    with Host(config, folder, progress) as host:
        guest = Guest(host)
        guest.start()
        took = taken(guest)
        with contextlib.suppress(stack.Timeout):
            guest.until_up()
        up = guest.report.complete
        result = {'l2': {'outcome': guest.outcome(), 'message': guest.message(), **(guest.report.values if up else {})}}
        steps = life.lead(guest, row.steps)[1] if up else []
    cells = [{'outcome': matrix.came_to(result), 'message': None if up else result['l2']['message']}]
    for count, step in enumerate(steps, 1):
        cells.append({'outcome': matrix.came_to({**result, 'do': steps[:count]}), 'message': step['message']})
    cells += [{'outcome': None, 'message': None}] * (1 + len(row.steps) - len(cells))
    return cells, took


def machine_of(host, options):
    """The value of -machine for guests of HOST."""
    # see L1_PAGES
    return 'pseries' + (L1_PAGES['4k'] if host['pages'] == 4096 else '') + (f',{options}' if options else '')


def run_row(row, result, programs, files, progress):
    """Run ROW with each of PROGRAMS, and return its lines of the table; FILES are the guests' kernel and initrd."""
    lines = [{'options': options, 'expected': outcome} for options, outcome in row.expected()]
    for name, path in programs.items():
        def stage(text, path=path):
            progress(f'{path.name}, {lines[0]["options"]}: {text},')
        config = Config(path, *files, result['machine'] + (f',{row.machine}' if row.machine else ''), row.cpu,
                        L2_WORK if row.steps else '')
        cells, took = whole_life(config, row, files[1].parent, stage)
        result['qemus'][name].setdefault('took', took)
        for line, cell in zip(lines, cells):
            line[name] = cell
    return lines


def measure(args, progress):
    """The host, its QEMUs and the table, as --json prints them."""
    with tempfile.TemporaryDirectory() as folder:
        probe, initrd = prober(folder), pathlib.Path(folder, 'initrd')
        images.pack({'init': probe}, {}, initrd)
        host, kernel = look(probe), args.kernel or find_kernel()
        programs = {name: getattr(args, name) for name in QEMUS if getattr(args, name)}
        result = {'host': host, 'kernel': str(kernel), 'machine': machine_of(host, args.l2_machine), 'qemus': {
            name: {'path': str(path), 'version': tool([str(path), '--version']).splitlines()[0]}
            for name, path in programs.items()}}
        rows = filter(None, (row.fill(modes(host)) for row in ROWS))
        result['rows'] = [line for row in rows for line in run_row(row, result, programs, (kernel, initrd), progress)]
    result['right'] = all(line['expected'] in (None, line['qemu']['outcome']) for line in result['rows'])
    return result


def entry(name, text):
    return textwrap.fill(text, WIDTH, initial_indent=f'{name + ":":<8}', subsequent_indent=' ' * 8,
                         break_long_words=False, break_on_hyphens=False).split('\n')


def bits(answer):
    return ', '.join(SHORT[mode] for mode, bit in BITS.items() if int(answer, 16) & bit) or 'no known mode'


def in_words(took):
    """The result of taken() as text."""
    return ', '.join(f'{name}: {(" ".join(value) if isinstance(value, list) else value) or "empty"}'
                     for name, value in took.items())


def describe(result):
    """The lines that describe this host and its QEMUs."""
    host = result['host']
    answer = f'{host["compat_caps"]} ({bits(host["compat_caps"])})' if 'compat_caps' in host else \
        host['compat_caps_error']
    yield from entry('Host', f'{host["machine"]}, {host["cpu"]}, PVR {host["pvr"]}, '
                             f'cpu-version {host.get("cpu_version", "unknown")}')
    yield from entry('KVM', f'{host["kvm_type"]}, nested API {host["api"]}, KVM_PPC_GET_COMPAT_CAPS: {answer}')
    yield from entry('Linux', f'{host["kernel"]}, {host["pages"] // 1024} KiB pages')
    yield from entry('Guest', f'-accel kvm -machine {result["machine"]} -kernel {result["kernel"]}')
    for letter, qemu in zip('AB', result['qemus'].values()):
        yield from entry(f'QEMU {letter}', f'{qemu["path"]}, {qemu["version"]}; {in_words(qemu["took"])}'.rstrip('; '))


def shown(outcome):
    if not outcome:
        return '-'
    word = outcome.partition(':')[2] or re.sub(f'^({"|".join(life.STEPS)})-', '', outcome)
    return SHORT.get(word, word)


def table(result):
    """(the cells of each line, the notes for them)"""
    lines, notes = [['guest', 'expected', *(f'QEMU {letter}' for letter, _ in zip('AB', result['qemus']))]], []
    for row in result['rows']:
        line = [row['options'], shown(row['expected'])]
        for name in result['qemus']:
            text, note = shown(row[name]['outcome']), row[name]['message']
            if name == 'qemu' and row[name]['outcome'] and row['expected'] not in (None, row[name]['outcome']):
                text += ', wrong'
            if note:
                notes += [] if note in notes else [note]
                text += f' [{notes.index(note) + 1}]'
            line.append(text)
        lines.append(line)
    return lines, notes


def author():
    """The user's name and address from git, or None."""
    with contextlib.suppress(Error):
        name, address = (tool(['git', 'config', f'user.{key}']).strip() for key in ('name', 'email'))
        return f'{name} <{address}>'
    return None


def mail(result):
    """The lines of a mail with the results."""
    yield from describe(result)
    yield ''
    lines, notes = table(result)
    widths = [max(map(len, column)) for column in zip(*lines)]
    lines.insert(1, ['-' * width for width in widths])
    for line in lines:
        yield '  '.join(f'{cell:<{width}}' for cell, width in zip(line, widths)).rstrip()
    yield ''
    for number, note in enumerate(notes, 1):
        yield from textwrap.wrap(note, WIDTH, initial_indent=f'[{number}] ', subsequent_indent='    ')
    # a host without modes, as with KVM PR, has no expected results
    who = author() if result['right'] and any(row['expected'] for row in result['rows']) else None
    if who:
        yield from ['', f'Tested-by: {who}']
