# SPDX-License-Identifier: GPL-2.0-or-later
"""The lab on a POWER machine that is a KVM host itself, without L0 and L1.

It and its imports have to run on any distribution, without Debian's tools; check_here.py says with which Python.
"""

import contextlib
import gzip
import itertools
import lzma
import os
import pathlib
import platform
import re
import shutil
import subprocess
import tempfile
import textwrap
import time
from typing import NamedTuple

from scripts.lib.system import Error, run as tool
from tests import qcow2
from tests.lab import images, life, matrix, stack
from tests.lab.commands import L1_PAGES, MODES, fill, l2_options, near
from tests.lab.guest import PLACES

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
# Properties that QEMU derives from its host; QEMU without the series lacks most of them
PROPERTIES = ('host-compat-modes', 'host-compat-source', 'max-cpu-compat')
# Short outcomes for the table; QEMU's messages are below it
SHORT = {None: '-', 'kvm-run-failed': 'fails', 'guest-wide-elements': 'fails', 'hung': 'hangs', **{
    mode: mode.replace('power', 'Power' if mode == 'power11' else 'POWER') for mode in MODES}}


class Row(NamedTuple):
    """QEMU's options, the expected outcome, and the steps of the guest; a name in braces is a key of modes()."""
    machine: str
    cpu: str
    outcome: str
    do: tuple = ()

    def expected(self):
        """(QEMU's options or the guest's next step, the outcome in the words of matrix.table)"""
        yield self.machine or f'-cpu {self.cpu}', self.outcome
        for step in self.do:
            yield f'then {step}', self.outcome and self.outcome.replace('booted', step)


ROWS = (
    # no step follows one that fails, so the step that demands most of the guest's kernel comes last
    Row('', 'host', 'booted:{mode}', ('reboot', 'savevm', 'migrate', 'hotplug')),
    Row('max-cpu-compat={mode}', 'host', 'booted:{mode}'),
    Row('max-cpu-compat={below}', 'host', 'booted:{below}'),
    Row('max-cpu-compat={above}', 'host', 'refused'),
    Row('', '{mode}', 'booted:{mode}'),
)


class Host(stack.Stack):
    """This machine takes the place of L1; each guest's QEMU is a process."""

    def __init__(self, row, command, folder, progress):
        super().__init__(row, self.renew, [])
        self.command, self.shown, self.sockets_folder = command, progress, folder
        self.processes = {}

    def __enter__(self):
        # not every user may read the kernel's log
        with contextlib.suppress(OSError):
            self.listen('l1', open('/dev/kmsg', 'rb', buffering=0))
            os.lseek(self.sockets['l1'].fileno(), 0, os.SEEK_END)
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
        words, *ends = (self.connect(name) for name in (guest.mark, guest.console, guest.monitor))
        chardevs = [word for name, end in zip(('l2', 'qmp'), ends)
                    for word in ('-chardev', f'socket,id={name},fd={end.fileno()}')]
        # pylint: disable-next=consider-using-with
        self.processes[guest.mark] = subprocess.Popen(
            [*self.command, *chardevs, *guest.extra], stdin=subprocess.DEVNULL, stdout=words,
            stderr=subprocess.STDOUT, pass_fds=[end.fileno() for end in ends], start_new_session=True)
        for end in (words, *ends):
            end.close()

    def closed(self, key):
        """QEMU closes its sockets when it ends; only the one for its output reports the exit."""
        self.selector.unregister(key.fileobj)
        name = key.data[0]
        if name in MARKS:
            self.pending.append((name, f'exit {self.processes[name].wait()}'))

    def next_line(self):
        name, text = super().next_line()
        if name in MARKS:
            return 'l1', f'{name}: {text}'
        # the kernel's log has fields before the text
        return name, text.partition(';')[2] if name == 'l1' else text


def check():
    """Check that this machine is a KVM host."""
    if platform.machine() != 'ppc64le':
        raise Error(f'this machine is {platform.machine()}: run this on ppc64le Linux that has /dev/kvm')
    if not os.path.exists('/dev/kvm'):
        raise Error('this machine has no /dev/kvm: load the module kvm-hv; a partition must also be allowed to run '
                    'guests')
    if not os.access('/dev/kvm', os.R_OK | os.W_OK):
        raise Error('this user may not open /dev/kvm: run this as root, or in the group that owns /dev/kvm')


def find_kernel():
    """The file of the running kernel, for QEMU to load."""
    places = [place.format(platform.release()) for place in KERNELS]
    for place in places:
        if os.access(place, os.R_OK):
            return place
    raise Error(f'cannot read a kernel in {", ".join(places)}: give one with --kernel')


def loadable(kernel, folder):
    """KERNEL as QEMU can load it: if it is compressed, a plain copy in FOLDER."""
    data = pathlib.Path(kernel).read_bytes()
    for magic, packer in ((b'\x1f\x8b', gzip), (b'\xfd7zXZ\0', lzma)):
        if data.startswith(magic):
            (folder / 'vmlinux').write_bytes(packer.decompress(data))
            return folder / 'vmlinux'
    if not data.startswith(b'\x7fELF'):
        raise Error(f'{kernel} is not a kernel that QEMU can load: give a vmlinux with --kernel')
    return kernel


def prober(folder):
    """The program built from probe.c: from the kit, or compiled on this host."""
    shipped, made = HOME / 'probe', folder / 'probe'
    if shipped.exists():
        return shipped
    advice = 'install gcc and the static C library (libc6-dev, glibc-static), or use the tarball of make host-kit'
    if not shutil.which('cc'):
        raise Error(f'there is no C compiler here: {advice}')
    try:
        tool(['cc', '-static', '-O2', '-o', made, HOME / 'probe.c'])
    except Error as e:
        raise Error(f'cannot compile the init of the guests ({e}): {advice}') from None
    return made


def api(values):
    """The nested API of this host, as far as userspace can tell."""
    if values['machine'].startswith('PowerNV') or values['kvm_type'] == 'PR':
        return 'none'
    if values['nests'] == '1':
        return 'v1'
    # no nests capability means v2, unless the administrator disabled nesting
    return 'v2' if NESTED.exists() and NESTED.read_text().strip() in ('Y', '1') else 'unknown'


def identify(probe):
    """This host, and its mode."""
    report = stack.Report()
    for line in tool([probe]).splitlines():
        report.take(line)
    values = report.values
    if 'kvm' in values:
        raise Error(f'KVM cannot create a guest here ({values["kvm"]}): check the kernel log for messages of KVM')
    # either a logical PVR, or that of a CPU
    version = int(values.get('cpu_version', values['pvr']), 16)
    return {**values, 'pages': os.sysconf('SC_PAGE_SIZE'), 'api': api(values),
            'mode': matrix.LOGICAL.get(version) or FAMILIES.get(version >> 16)}


def modes(host):
    """What near() says of the host's mode; KVM PR has none."""
    if not host['mode'] or host['kvm_type'] == 'PR':
        return {}
    allowed = MODES[1:]
    if 'compat_caps' in host:
        allowed = [mode for mode in allowed if int(host['compat_caps'], 16) & BITS[mode]]
    elif host['api'] != 'v1' and not host['machine'].startswith('PowerNV'):
        # the hypervisor may not offer every older mode to nested guests
        allowed = []
    return near(host['mode'], allowed)


def derived(guest):
    found = {}
    for name in PROPERTIES:
        with contextlib.suppress(stack.Refused, stack.Timeout):
            found[name] = guest.ask('qom-get', path='/machine', property=name)
    return {'took': found}


def run_row(row, result, kernel, programs, folder, progress):
    """Run ROW on KERNEL with each of PROGRAMS, and return its lines of the table."""
    lines = [{'options': options, 'expected': outcome} for options, outcome in row.expected()]
    machine = result['machine'] + (f',{row.machine}' if row.machine else '')
    options = [*l2_options(row, machine, folder / 'disk', kernel, folder / 'initrd'),
               '-cpu', row.cpu, '-smp', '1,maxcpus=2', '-m', '512M']
    for name, path in programs.items():
        def stage(text, path=path):
            progress(f'{path.name}, {lines[0]["options"]}: {text},')
        (folder / 'disk').write_bytes(qcow2.qcow2())
        with Host(row, [path, *options], folder, stage) as host:
            found, _ = life.run_guest(host, {'l1': {}, 'seconds': {}}, derived)
        result['qemus'][name].setdefault('took', found['took'])
        l2 = found['l2']
        cells = [(matrix.outcome_of({'l2': l2}), l2['outcome'] != 'booted' and l2['message'] or None)]
        cells += [(matrix.outcome_of({'l2': l2, 'do': [step]}), step['message']) for step in found.get('do', ())]
        for line, (outcome, message) in itertools.zip_longest(lines, cells, fillvalue=(None, None)):
            line[name] = {'outcome': outcome, 'message': message}
    return lines


def measure(args, progress):
    """The host, its QEMUs and the table, as --json prints them."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        probe = prober(folder)
        images.pack({'init': probe}, folder / 'initrd')
        host = identify(probe)
        known = modes(host)
        programs = {name: getattr(args, name) for name in QEMUS if getattr(args, name)}
        machine = ['pseries' + (L1_PAGES['4k'] if host['pages'] == 4096 else ''), args.l2_machine]
        result = {'host': host, 'kernel': str(args.kernel or find_kernel()),
                  'machine': ','.join(filter(None, machine)), 'qemus': {
                      name: {'path': str(path), 'version': tool([path, '--version']).splitlines()[0]}
                      for name, path in programs.items()}}
        # without modes, nothing is expected
        rows = [*filter(None, (fill(row, known) for row in ROWS))] if known else [ROWS[0]._replace(outcome=None)]
        kernel, result['rows'], began = loadable(result['kernel'], folder), [], time.monotonic()
        for done, row in enumerate(rows):
            left = (time.monotonic() - began) * (len(rows) - done) / done / 60 if done else None
            words = f'about {left:.0f} min left, ' if left else ''
            result['rows'] += run_row(row, result, kernel, programs, folder,
                                      lambda text, words=words: progress(words + text))
    result['right'] = all(line['expected'] in (None, line['qemu']['outcome']) for line in result['rows'])
    return result


def facts(result):
    """What describes this host and its QEMUs: (name, text)"""
    host = result['host']
    answer = host.get('compat_caps') or host['compat_caps_error']
    if 'compat_caps' in host:
        known = [SHORT[mode] for mode, bit in BITS.items() if int(answer, 16) & bit]
        answer += f' ({", ".join(known) or "no known mode"})'
    yield 'Host', f'{host["machine"]}, {host["cpu"]}, PVR {host["pvr"]}, ' \
                  f'cpu-version {host.get("cpu_version", "unknown")}'
    yield 'KVM', f'{host["kvm_type"]}, nested API {host["api"]}, KVM_PPC_GET_COMPAT_CAPS: {answer}'
    yield 'Linux', f'{host["kernel"]}, {host["pages"] // 1024} KiB pages'
    yield 'Guest', f'-accel kvm -machine {result["machine"]} -kernel {result["kernel"]}'
    for letter, qemu in zip('AB', result['qemus'].values()):
        took = [f'{name}: {(" ".join(value) if isinstance(value, list) else value) or "empty"}'
                for name, value in qemu['took'].items()]
        yield f'QEMU {letter}', f'{qemu["path"]}, {qemu["version"]}; {", ".join(took)}'.rstrip('; ')


def short(outcome):
    word = outcome and (outcome.partition(':')[2] or re.sub(f'^({"|".join(life.STEPS)})-', '', outcome))
    return SHORT.get(word, word)


def table(result):
    """(the cells of each line, the notes for them)"""
    rows, qemus = result['rows'], result['qemus']
    notes = [*dict.fromkeys(row[name]['message'] for row in rows for name in qemus if row[name]['message'])]

    def cell(row, name):
        outcome, note, expected = row[name]['outcome'], row[name]['message'], row['expected']
        wrong = ', wrong' if name == 'qemu' and outcome and expected not in (None, outcome) else ''
        return short(outcome) + wrong + (f' [{notes.index(note) + 1}]' if note else '')
    return [['guest', 'expected', *(f'QEMU {letter}' for letter, _ in zip('AB', qemus))]] + [
        [row['options'], short(row['expected']), *(cell(row, name) for name in qemus)] for row in rows], notes


def mail(result):
    """The lines of a mail with the results."""
    for name, text in facts(result):
        yield from textwrap.wrap(text, WIDTH, initial_indent=f'{name + ":":<8}', subsequent_indent=' ' * 8,
                                 break_long_words=False, break_on_hyphens=False)
    yield ''
    lines, notes = table(result)
    widths = [max(map(len, column)) for column in zip(*lines)]
    lines.insert(1, ['-' * width for width in widths])
    for line in lines:
        yield '  '.join(f'{cell:<{width}}' for cell, width in zip(line, widths)).rstrip()
    yield ''
    for number, note in enumerate(notes, 1):
        yield from textwrap.wrap(note, WIDTH, initial_indent=f'[{number}] ', subsequent_indent='    ')
    if result['right'] and any(row['expected'] for row in result['rows']):
        # not every user has told git a name
        with contextlib.suppress(Error):
            name, address = (tool(['git', 'config', f'user.{key}']).strip() for key in ('name', 'email'))
            yield from ['', f'Tested-by: {name} <{address}>']
