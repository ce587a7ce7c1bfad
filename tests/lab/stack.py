# SPDX-License-Identifier: GPL-2.0-or-later
"""L0, L1 and L2 on this machine, and what becomes of L2.

L0 is QEMU itself, as the hypervisor of a pseries machine; or Linux KVM HV on
an emulated PowerNV machine, where L1 is a QEMU of its own. L0 gives L1 a
console that carries L1's kernel and the commands that the lab types into L1's
shell, and two for each QEMU that runs L2: L2's console and the QMP monitor.
"""

import contextlib
import json
import os
import re
import selectors
import shlex
import signal
import socket
import subprocess
import threading
import time

from lib import binaries, roots
from lib.system import Error, run as tool
from tests.lab import images

# What a raw L0 CPU reads as in L1 does not matter here: L0 is named by family.
HOSTS = ('power9', 'power10', 'power11')
MODES = ('power8', 'power9', 'power10', 'power11')
APIS = {'v1': 'cap-nested-hv=on', 'v2': 'cap-nested-papr=on'}
# The machines that Linux KVM HV runs on as L0, and their CPUs
POWERNV = {'powernv10': 'power10', 'powernv11': 'power11'}
# L1's /dev/hvc0 and on, and after its own those of Linux as L0; the last two
# belong to the QEMU that L2 migrates to
CONSOLES = ('l1', 'l2', 'qmp', 'l2-to', 'qmp-to')
# A QEMU in L1: what its words are marked with, its guest's console, its monitor
PLACES = (('qemu', 'l2', 'qmp'), ('qemu-to', 'l2-to', 'qmp-to'))
# Checking the kernel's own certificate takes half a second under TCG
COMMAND_LINE = 'console=hvc0 quiet panic=-1 initcall_blacklist=load_system_certificate_list'
# Under an unpatched L0, an L2 stands still as soon as L1 clears reference bits
L0_NEEDS = {'distro': ' damon_stat.enabled=0', 'patched': ''}
# What L2's init is told: a guest that goes through steps works meanwhile
L2_WORK = ' -- work'
# The firmware of an emulated PowerNV machine names no mitigation that KVM could pass on
POWERNV_GUEST = ',cap-cfpc=broken,cap-sbbc=broken,cap-ibs=broken,cap-ccf-assist=off'
# A kernel with 4 KiB pages cannot give the 64 KiB that the machine has by default
L1_PAGES = {'4k': ',cap-hpt-max-page-size=4096', '64k': ''}
# What QEMU prints of a vCPU after "kvm run failed"
REGISTER_DUMP = re.compile(r'(NIP|MSR|HID0|TB|GPR\d+|CR|FPR\d+|FPSCR|SRR0|CTR|VRSAVE|XER|CFAR|LPCR|PTCR|DAR|SPRG\d|'
                           r'SDR1|CIABR|HSRR0|PURR|PIDR|DSISR)\b| |$')
# What QEMU says of any nested guest on such a host, limited or not
NOISE = re.compile(r'(-accel kvm: )?warning: (Many guests require at least 64kiB|kernel_irqchip allowed but '
                   r'unavailable|Number of \w+ cpus requested)|'
                   r'Falling back to kernel-irqchip=off')
L2_TRACE = 'spapr_cas_pvr'
WIDE_ELEMENTS = "couldn't set guest wide elements"
# What L1's kernel says of an L0 that lacks a call, or that gives it a wrong answer, and of what breaks the kernel
COMPLAINT = re.compile(r"KVM: TLB \w+ invalidation hcall failed|couldn't register the L2 VPA|trap=0xffffffea|"
                       r'\bOops\b|\bBUG: |soft lockup')


running = set()
# Processes are made one at a time, so that none inherits another's sockets
starting = threading.Lock()
# No run starts its L0 any more
ending = threading.Event()


class Broken(Error):
    """The lab itself failed, whatever the guest would have done."""


def end_all():
    """End every L0 of this process, for good; its runs then fail."""
    with starting:
        ending.set()
        for process in list(running):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


class Timeout(Exception):
    """Nothing that was waited for came in time."""


class Refused(Exception):
    """QEMU did not do what it was asked; the text is its own."""


class Line:
    """The lines that come from one console, as they come."""

    def __init__(self, name):
        self.name, self.rest = name, b''

    def feed(self, data):
        *lines, self.rest = (self.rest + data).split(b'\n')
        return [line.decode(errors='replace').strip('\r') for line in lines]


class Stack:
    """One L0 with all that runs in it; a context, so that nothing is left."""

    def __init__(self, config, progress, log):
        self.config, self.progress, self.log = config, progress, log
        self.sockets, self.pending, self.listeners = {}, [], []
        self.selector = selectors.DefaultSelector()
        self.process = self.started = self.deadline = self.kernel = self.l0 = None
        # where QEMUs that migrate to each other meet
        self.sockets_folder = '/run'

    def __enter__(self):
        config = self.config
        self.kernel = images.newest_kernel(config.kernel, config.pages)
        qemu = binaries.patched_qemu() if config.qemu == 'patched' else roots.distro_qemu()
        initrd = config.l1_initrd(self.kernel, qemu)
        if config.l0_stack:
            command = powernv_command(config, self.kernel, images.l0_initrd(self.kernel, initrd))
            consoles, attach = ('l0', *CONSOLES), powernv_console
        else:
            command = [*l0_command(config.l0), '-accel', 'tcg', *l1_options(config, self.kernel.vmlinux, initrd)]
            consoles, attach = CONSOLES, pseries_console
        command += ['-no-reboot']
        self.l0 = command
        with starting:
            theirs = []
            for name in consoles:
                ours, other = socket.socketpair()
                self.sockets[name] = ours
                self.selector.register(ours, selectors.EVENT_READ, Line(name))
                theirs.append(other)
                command += ['-chardev', f'socket,id={name},fd={other.fileno()}', *attach(name)]
            if ending.is_set():
                raise Broken('the lab was told to end')
            # what is built or fetched first is no part of a run
            self.started = time.monotonic()
            self.deadline = self.started + config.timeout
            # the kernel ends L0 with us, also where we get no chance to
            self.process = subprocess.Popen(
                ['setpriv', '--pdeathsig', 'KILL', '--', *command], stdin=subprocess.DEVNULL, start_new_session=True,
                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, pass_fds=[s.fileno() for s in theirs])
            running.add(self.process)
            for other in theirs:
                other.close()
        self.progress('L0 up')
        return self

    def __exit__(self, *_):
        if self.process:
            if self.process.poll() is None:
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            running.discard(self.process)
            self.process.stderr.close()
        for ours in self.sockets.values():
            ours.close()
        self.selector.close()

    def _read(self):
        """Wait for the next data; queue its lines as (console, text)."""
        left = self.deadline - time.monotonic()
        ready = self.selector.select(max(left, 0))
        if not ready:
            raise Timeout
        for key, _ in ready:
            try:
                data = key.fileobj.recv(65536)
            except ConnectionResetError:
                # it ended, and had not read all that it was told
                data = b''
            if data:
                self.pending += [(key.data.name, line) for line in key.data.feed(data)]
            else:
                self.closed(key)

    def closed(self, _):
        """A console closes with L0."""
        self.process.wait()
        words = self.process.stderr.read().decode(errors='replace').strip().splitlines()
        words = words or [text for _, text in self.pending] or self.log
        raise Broken(f'L0 ended by itself: {words[-1] if words else "without a word"}')

    def next_line(self):
        """The next (console, text); every one of them goes into the log."""
        while not self.pending:
            self._read()
        name, text = self.pending.pop(0)
        self.log.append(f'{name:3} {text}')
        return name, text

    def step(self):
        """Hand the next line to all who listen."""
        name, text = self.next_line()
        for listener in self.listeners:
            listener.take(name, text)

    def send(self, name, text):
        self.sockets[name].sendall(text.encode() + b'\n')

    def turn_to(self, config, log):
        """From now on, CONFIG says what L2 is told; its lines go to LOG."""
        self.config, self.log = config, log
        self.listeners.clear()
        self.deadline = time.monotonic() + config.timeout

    def shell(self, command):
        """Type COMMAND into L1's shell."""
        self.send('l1', command)

    def launch(self, guest):
        """Start the QEMU of GUEST in L1."""
        # sed marks what QEMU says; its exit comes after its last word, on a line of its own
        command = l2_command(self.config, guest.console, guest.monitor, guest.extra)
        self.shell(f'{{ {command}; status=$?; echo; echo "exit $status"; }} </dev/null 2>&1 | '
                   f"sed 's/^/{guest.mark}: /' &")


def l0_command(which):
    """L0's QEMU: ours, or Debian's."""
    root = roots.emulator_root()
    if which == 'patched':
        return [str(binaries.native_qemu()), '-L', str(root / 'usr/share/qemu')]
    return roots.emulator_command(root)


def l1_options(config, kernel, initrd):
    """L1's QEMU, but for its accelerator and consoles."""
    mode = '' if config.compat == 'none' else f',max-cpu-compat={config.compat}'
    caps, cpu = (POWERNV_GUEST + L1_PAGES[config.pages], 'host') if config.l0_stack else ('', config.host)
    return ['-nodefaults', '-no-user-config', '-display', 'none', '-smp', config.l1_smp,
            '-m', config.l1_memory,
            '-cpu', cpu, '-machine', f'pseries,{APIS[config.api]},x-vof=on{mode}{caps}', '-kernel', str(kernel),
            '-initrd', str(initrd), '-append', COMMAND_LINE + L0_NEEDS[config.l0]]


def powernv_command(config, kernel, initrd):
    """The machine that Linux as L0 runs on, with its default PCI host bridges."""
    root = roots.powernv_root(config.l0_stack)
    return [*roots.emulator_command(root), '-machine', config.l0_stack, '-cpu', config.host, '-accel', 'tcg',
            '-smp', '1', '-m', '4G', '-no-user-config', '-display', 'none', '-net', 'none', '-monitor', 'none',
            '-kernel', str(kernel.vmlinux), '-initrd', str(initrd), '-append', COMMAND_LINE + L0_NEEDS[config.l0],
            '-device', f'virtio-serial-pci,bus=pcie.0,max_ports={len(CONSOLES) + 1}']


def pseries_console(name):
    return ['-serial', f'chardev:{name}']


def powernv_console(name):
    return ['-serial', f'chardev:{name}'] if name == 'l0' else \
        ['-device', f'virtconsole,chardev={name},nr={CONSOLES.index(name) + 1}']


def l1_command(config):
    """What the shell of Linux as L0 runs: L1's QEMU."""
    words = ['qemu-system-ppc64', '-accel', 'kvm', '-L', '/usr/share/qemu',
             *l1_options(config, '/l1/vmlinux', '/l1/initrd')]
    for number, name in enumerate(CONSOLES, 1):
        words += ['-chardev', f'serial,id={name},path=/dev/hvc{number}', '-serial', f'chardev:{name}']
    return shlex.join(words)


class Report:
    """What tests/lab/probe.c says between its first line and 'end'."""

    def __init__(self):
        self.values, self.complete = {}, False

    def take(self, text):
        """Returns True when the report is complete."""
        found = re.match(r'probe: (\w+)=(.*)', text)
        if found:
            self.values[found[1]] = found[2].strip()
        self.complete = text == 'probe: end'
        return self.complete


def boot_linux(stack, console):
    """A Linux with l1-init up to its shell on CONSOLE; returns its report."""
    report, first, name = Report(), True, console.upper()
    while True:
        where, text = stack.next_line()
        if where == 'l0' and text.startswith('lab: exit'):
            words = [line[4:] for line in stack.log if line.startswith('l0  qemu-system-')]
            raise Broken(f'the QEMU that is L1 ended: {(words or ["without a word"])[-1]}')
        if where != console:
            continue
        if first:
            stack.progress(f'{name} kernel')
            first = False
        if 'Kernel panic' in text:
            raise Broken(f'{name} did not come up: {text}')
        report.take(text)
        if text == 'lab: ready':
            stack.progress(f'{name} ready')
            return report.values


def boot_l1(stack):
    """L1 up to its shell, and L0 before it where that is a Linux; returns L1's report."""
    if stack.config.l0_stack:
        boot_linux(stack, 'l0')
        stack.send('l0', f'{l1_command(stack.config)}; echo; echo "lab: exit $?"')
    return boot_linux(stack, 'l1')


def cpus(config):
    """-smp, with room for one more core where one is to be plugged."""
    count, _, rest = config.smp.partition(',')
    if 'hotplug' not in config.do or 'maxcpus' in rest:
        return config.smp
    threads = re.search(r'threads=(\d+)', rest)
    return f'{config.smp},maxcpus={int(count) + int(threads[1] if threads else 1)}'


def l2_command(config, console, monitor, extra):
    machine = f'pseries,x-vof=on{L1_PAGES[config.pages]}{POWERNV_GUEST if config.l0_stack else ""}' + \
        (f',{config.l2_machine}' if config.l2_machine else '')
    words = [
        'qemu-system-ppc64', '-nodefaults', '-no-user-config', '-display', 'none', '-accel', 'kvm',
        '-machine', machine, '-cpu', config.l2_cpu, '-smp', cpus(config), '-m', '256M', '-L', '/usr/share/qemu',
        '-chardev', f'serial,id=l2,path=/dev/hvc{CONSOLES.index(console)}', '-serial', 'chardev:l2',
        '-chardev', f'serial,id=qmp,path=/dev/hvc{CONSOLES.index(monitor)}', '-mon', 'chardev=qmp,mode=control',
        '-blockdev', 'qcow2,node-name=disk,file.driver=file,file.filename=/l2/disk',
        '-trace', L2_TRACE, '-kernel', '/l2/vmlinux', '-initrd', '/l2/initrd',
        '-append', COMMAND_LINE + (L2_WORK if config.do else ''), *extra]
    return shlex.join(words)


class Guest:
    """L2, as far as it can be told from outside and from its own report."""

    def __init__(self, stack, place=PLACES[0], extra=()):
        self.stack, self.place, self.extra = stack, place, extra
        self.mark, self.console, self.monitor = place
        self.report = Report()
        self.words, self.kernel_words = [], []
        self.events, self.answers, self.asked = [], {}, 0
        self.greeted = self.exited = False
        stack.listeners.append(self)

    def start(self):
        self.stack.launch(self)

    def take(self, name, text):
        """One line of one console, which may be another's."""
        if name == 'l1':
            self._l1(text)
        elif name == self.console:
            self.report.take(text)
        elif name == self.monitor:
            self._qmp(text)

    def _l1(self, text):
        name, _, said = text.partition(': ')
        if name == self.mark and said.startswith('exit '):
            self.exited = True
        elif name == self.mark and L2_TRACE in said:
            self.stack.progress('CAS')
        elif name == self.mark:
            self.words.append(said)
        elif 'KVM' in text and not name.startswith('qemu'):
            self.kernel_words.append(text)
            if WIDE_ELEMENTS in text:
                # QEMU need not notice
                self.tell('quit')

    def _qmp(self, text):
        try:
            message = json.loads(text)
        except ValueError:
            return
        if 'QMP' in message:
            self.greeted = True
            self.tell('qmp_capabilities')
            self.stack.progress('L2 firmware')
        elif 'event' in message:
            self.events.append(message)
            if message['event'] == 'STOP':
                self.tell('query-status')
        elif 'id' in message:
            self.answers[message['id']] = message
        elif isinstance(message.get('return'), dict) and message['return'].get('status') == 'internal-error':
            self.tell('quit')

    def tell(self, command):
        """A command whose answer, if any, is for _qmp()."""
        self.stack.send(self.monitor, json.dumps({'execute': command}))

    def ask(self, command, **arguments):
        """What the monitor answers to COMMAND."""
        self.wait(lambda: self.greeted)
        self.asked += 1
        number = self.asked
        self.stack.send(self.monitor, json.dumps({'execute': command, 'arguments': arguments, 'id': number}))
        self.wait(lambda: number in self.answers)
        answer = self.answers.pop(number)
        if 'error' in answer:
            raise Refused(answer['error']['desc'])
        return answer['return']

    def order(self, words):
        """Give tests/lab/probe.c in L2 an order, and return the report that it answers with."""
        self.report = Report()
        self.stack.send(self.console, words)
        self.wait(lambda: self.report.complete)
        return self.report.values

    def wait(self, condition):
        while not condition():
            if self.exited:
                raise Refused(self.message() or 'QEMU ended without a word')
            self.stack.step()

    def wait_exit(self):
        while not self.exited:
            self.stack.step()

    def end(self):
        """Returns True when QEMU has ended; a monitor that is silent is left to the end of L0."""
        if not self.exited:
            self.tell('quit')
        try:
            self.wait_exit()
        except Timeout:
            return False
        return True

    def until_up(self):
        """Up to L2's first report, or whatever else becomes of it."""
        while not (self.report.complete or self.exited):
            self.stack.step()
        if self.report.complete:
            self.stack.progress('L2 userspace')

    def message(self):
        """QEMU's own words; the kernel's where those say more, or QEMU has none."""
        kernel = [re.sub(r'^\[ *[\d.]+\] ', '', word) for word in self.kernel_words]
        said = [re.sub(r'^qemu-(system-\w+|kvm): ', '', word) for word in self.words]
        said = [word for word in said if not REGISTER_DUMP.match(word) and not NOISE.match(word)]
        if self.outcome() == 'guest-wide-elements':
            said = [word for word in kernel if WIDE_ELEMENTS in word][:1] + said
        elif self.outcome() != 'booted':
            said = said or kernel
        return ' '.join(word.strip() for word in said) or None

    def outcome(self):
        if self.report.complete:
            return 'booted'
        if any(WIDE_ELEMENTS in word for word in self.kernel_words):
            return 'guest-wide-elements'
        if any('kvm run failed' in word for word in self.words):
            return 'kvm-run-failed'
        return 'refused' if self.exited else 'hung'


def complaints(log):
    """What KVM in L1 said of L0, each once."""
    said = (re.sub(r'^l1 +(\[ *[\d.]+\] )?', '', line) for line in log
            if line.startswith('l1 ') and COMPLAINT.search(line))
    return list(dict.fromkeys(said))


def l0_version(command):
    """L0's QEMU, as it names itself."""
    program = command[:command.index('-L')]
    return tool([*program, '--version']).splitlines()[0]
