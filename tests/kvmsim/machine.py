# Copyright (c) 2026 QEMU contributors
# SPDX-License-Identifier: GPL-2.0-or-later
"""A QEMU under user-mode emulation, on the simulated KVM, driven by QMP."""

import collections
import concurrent.futures
import contextlib
import json
import os
import pathlib
import re
import selectors
import shutil
import signal
import socket
import struct
import subprocess
import threading
import time

from scripts.debian import roots
from scripts.lib.system import BUILD, Error, locked, not_installed, run
from tests import qcow2
from tests.kvmsim import power

HERE = pathlib.Path(__file__).resolve().parent
LIBRARY = BUILD / 'kvmsim' / 'libkvmsim.so'
COMPILER = 'powerpc64le-linux-gnu-gcc'
# Longer than any step takes, even on a loaded machine.
PATIENCE = 300
# SIGTERM lets an instrumented QEMU write its counters
END = signal.SIGKILL
TRACE_LINE = re.compile(r'^(?:\d+@[\d.]+:)?((?:kvm_host_|spapr_cas_|ppc_host_)\w+) (.*)$')

live = set()
live_lock = threading.Lock()
interrupted = threading.Event()
# Start processes one at a time, so that none inherits the sockets of another.
spawn_lock = threading.Lock()


class Surprise(Exception):
    """QEMU ended, or did not do what a step waits for."""


def library():
    """The simulated KVM, rebuilt if its sources are newer."""
    sources = [*HERE.glob('*.[ch]')]
    with locked('kvmsim'):
        newest = max(path.stat().st_mtime for path in sources)
        if not LIBRARY.exists() or LIBRARY.stat().st_mtime < newest:
            LIBRARY.parent.mkdir(parents=True, exist_ok=True)
            half = LIBRARY.with_suffix('.part')
            try:
                made = subprocess.run(
                    [COMPILER, '-Wall', '-Werror', '-O2', '-g', '-shared', '-fPIC', '-o', half,
                     *sorted(path for path in sources if path.suffix == '.c'), '-ldl', '-pthread'],
                    stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
            except FileNotFoundError:
                raise not_installed(COMPILER) from None
            if made.returncode:
                raise Error(f'building the simulated KVM failed:\n{made.stderr}')
            half.rename(LIBRARY)
    return LIBRARY


def cpu_version(kind, host):
    """The bytes of the property, or None if it is absent."""
    if kind == 'absent':
        return None
    if kind == 'truncated':
        return b'\x0f\x00'
    if kind == 'long':
        return struct.pack('>II', power.MODES['power10'], 0)
    value = power.HOSTS[host] | 0x0200 if kind == 'raw' else kind
    return struct.pack('>I', value)


def write_device_tree(root, settings):
    """Write proc/device-tree/cpus as the host's kernel shows it."""
    nodes = settings['device-tree']
    effective = settings['host'] if settings['mode'] == 'none' else settings['mode']
    if nodes is None:
        nodes = [power.MODES[effective]]
    cpus = root / 'proc/device-tree/cpus'
    for i, kind in enumerate(nodes):
        node = cpus / f'PowerPC,{settings["host"].upper()}@{8 * i:x}'
        node.mkdir(parents=True)
        version = cpu_version(kind, settings['host'])
        for name, value in {'device_type': b'cpu\0', 'reg': struct.pack('>I', 8 * i),
                            'clock-frequency': struct.pack('>I', 4000000000),
                            'ibm,dec-bits': struct.pack('>I', 56), 'cpu-version': version}.items():
            if value is not None:
                (node / name).write_bytes(value)
    if nodes:
        # PowerVM has cache nodes beside the CPUs, which QEMU must skip, like a type as long as "cpu".
        # With several nodes, some are read before a CPU and some after.
        for name, kind in (*((f'l{level}-cache@{level}00{n}', b'cache\0') for level in (2, 3) for n in range(4)),
                           ('pic@4000', b'pic\0')):
            (cpus / name).mkdir()
            (cpus / name / 'device_type').write_bytes(kind)


def kernel_commands(settings):
    """The commands for the control socket that set up the simulated kernel."""
    host, version = settings['host'], settings['kernel']
    effective = host if settings['mode'] == 'none' else settings['mode']
    has_ioctl = power.KERNELS[version][0] and settings['kvm'] == 'hv'
    extension = int(has_ioctl) if settings['extension'] is None else settings['extension']
    bits = power.up_to(effective) if settings['caps'] is None else settings['caps']
    yield f'pr {int(settings["kvm"] == "pr")}'
    yield f'extension {power.CAP_COMPAT_CAPS} {extension}'
    yield f'caps {bits:#x} {settings["caps-size"]}'
    if settings['caps-error']:
        yield ' '.join(map(str, ('caps-error', *settings['caps-error'])))
    elif not has_ioctl and not extension:
        yield 'caps-error ENOTTY -1 -1'
    if power.MODES[effective] < power.MODES['power10']:
        yield f'extension {power.CAP_DAWR1} 0'
    yield from refuse_commands(power.refusals(version, host, effective)
                               if settings['refuse'] is None else settings['refuse'])


def refuse_commands(rows):
    for vcpu, value, error, poison in rows:
        yield f'refuse {vcpu} {value} {error} {int(poison)}'


def emulator(qemu, home):
    """The user-mode emulator, with the library to preload into QEMU."""
    command = [roots.user_emulator(), '-E', f'LD_PRELOAD={library()}']
    if b'libubsan.so' not in pathlib.Path(qemu).read_bytes():
        return command
    # link only the compiler's runtimes: their directory also has an older C library
    runtimes = home / 'runtimes'
    runtimes.mkdir()
    for name in ('libubsan.so', 'libstdc++.so.6'):
        real = pathlib.Path(run([COMPILER, f'-print-file-name={name}']).strip()).resolve()
        (runtimes / '.'.join(real.name.split('.')[:3])).symlink_to(real)
    return [*command, '-E', f'LD_LIBRARY_PATH={runtimes}', '-E', 'UBSAN_OPTIONS=print_stacktrace=1']


def host_cpu(host):
    """The emulator's options for HOST; where the emulator has no such CPU, the library changes the PVR."""
    if host != 'future':
        return ['-cpu', host]
    return ['-cpu', 'power11', '-E', f'KVMSIM_PVR={power.HOSTS[host]:#x}']


def vcpus_of(settings):
    return int(settings['smp'].split(',')[0])


class Machine:
    """A running QEMU; close() ends it in any state."""

    def __init__(self, qemu, settings, home, *, incoming=False, disk=None, trace=None, env=None, patience=None):
        self.settings, self.home = settings, home
        self.env, self.patience = env or {}, patience or PATIENCE
        self.stderr, self.messages, self.traces, self.events = [], [], [], []
        self.replies, self.unmodeled = collections.deque(), []
        self.qmp, self.qmp_replies = b'', collections.deque()
        self.greeted = self.negotiated = False
        self.control_rest = self.stderr_rest = b''
        self.exit = None
        self.process = None
        home.mkdir()
        root = home / 'root'
        root.mkdir()
        guest = roots.guest_root()
        for entry in guest.iterdir():
            if entry.name != 'proc':
                (root / entry.name).symlink_to(entry)
        write_device_tree(root, settings)
        command = self.command(qemu, root, guest, incoming, disk)
        self.control, theirs = socket.socketpair()
        self.watch = selectors.DefaultSelector()
        try:
            # close our copy of QEMU's end, or we would not notice when QEMU ends
            with theirs:
                self.spawn(command, theirs)
            for source, handler in ((self.process.stdout, self.on_qmp),
                                    (self.process.stderr, self.on_stderr),
                                    (self.control, self.on_control)):
                os.set_blocking(source.fileno(), False)
                self.watch.register(source, selectors.EVENT_READ, handler)
            for line in ([f'trace {trace}'] if trace else []) + [*kernel_commands(settings), 'go']:
                self.command_kvm(line)
        except BaseException:
            self.close()
            raise

    def command(self, qemu, root, guest, incoming, disk):
        settings = self.settings
        machine = 'pseries' + (',x-vof=on' if settings['firmware'] == 'vof' else '')
        if settings['machine']:
            machine += ',' + settings['machine']
        command = [*emulator(qemu, self.home), *host_cpu(settings['host']), '-L', root, qemu,
                   # the simulated kernel has no interrupt controller
                   '-accel', 'kvm,kernel-irqchip=off', '-machine', machine, '-cpu', settings['cpu'],
                   '-smp', settings['smp'], '-m', f'{settings["memory"]}M',
                   '-nodefaults', '-display', 'none', '-qmp', 'stdio',
                   '-L', guest / 'usr/share/qemu',
                   '-trace', 'kvm_host_c*', '-trace', 'ppc_host_compat_*', '-trace', 'spapr_cas_no*']
        command += ['-incoming', 'defer'] if incoming else ['-S']
        if disk:
            if not disk.exists():
                shutil.copyfile(qcow2.empty_disk(), disk)
            command += ['-blockdev', 'qcow2,node-name=disk,file.driver=file,'
                                     f'file.filename={disk}']
        return [str(word) for word in command]

    def spawn(self, command, control):
        with spawn_lock:
            if interrupted.is_set():
                raise Error('interrupted')
            try:
                # pylint: disable-next=consider-using-with
                self.process = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                    pass_fds=[control.fileno()], start_new_session=True, cwd=self.home,
                    env={**os.environ, **self.env, 'KVMSIM_FD': str(control.fileno())})
            except OSError as e:
                raise Error(f'cannot start {command[0]}: {e}') from None
        with live_lock:
            live.add(self.process)

    # Input.

    def on_qmp(self, data):
        *lines, self.qmp = (self.qmp + data).split(b'\n')
        for line in lines:
            try:
                message = json.loads(line)
            except ValueError:
                # QEMU prints some messages on standard output
                self.messages.append(line.decode(errors='replace'))
                continue
            if 'QMP' in message:
                self.greeted = True
            elif 'event' in message:
                self.events.append(message)
            else:
                self.qmp_replies.append(message)

    def on_stderr(self, data):
        *lines, self.stderr_rest = (self.stderr_rest + data).split(b'\n')
        for line in lines:
            text = line.decode(errors='replace')
            self.stderr.append(text)
            trace = TRACE_LINE.match(text)
            if trace:
                self.traces.append(trace.groups())
            elif text.strip():
                self.messages.append(text)

    def on_control(self, data):
        *lines, self.control_rest = (self.control_rest + data).split(b'\n')
        for line in lines:
            kind, _, rest = line.decode().partition(' ')
            if kind != 'event':
                self.replies.append((kind, rest))
            elif rest.startswith('unmodeled'):
                self.unmodeled.append(rest)
            else:
                self.events.append({'event': rest})

    def pump(self, timeout):
        """Handle available input; wait for it up to TIMEOUT seconds."""
        for key, _ in self.watch.select(timeout):
            try:
                data = os.read(key.fd, 1 << 20)
            except BlockingIOError:
                continue
            except ConnectionResetError:
                data = b''
            if data:
                key.data(data)
            else:
                self.watch.unregister(key.fileobj)
        if self.exit is None and not self.watch.get_map():
            self.exit = self.process.wait()

    def drain(self):
        """Handle all that QEMU has written so far."""
        while self.exit is None and self.watch.select(0):
            self.pump(0)

    def wait(self, what, ready, dead_is_fine=False):
        """Wait until READY() is true; WHAT describes that in an error."""
        limit = time.monotonic() + self.patience
        while not ready():
            if self.exit is not None:
                if dead_is_fine:
                    return
                words = ' / '.join(self.messages[-4:]) or 'no message'
                raise Surprise(f'QEMU has ended ({self.how_ended()}) before {what}: {words}')
            if time.monotonic() > limit:
                raise Surprise(f'no {what} in {self.patience:.0f} seconds')
            self.pump(min(10, max(0, limit - time.monotonic())))
        self.drain()

    def how_ended(self):
        if self.exit is not None and self.exit < 0:
            return signal.Signals(abs(self.exit)).name
        return str(self.exit)

    # Output.

    def command_kvm(self, line):
        """Send a command to the simulated kernel, and return the words of its answer."""
        try:
            self.control.sendall(line.encode() + b'\n')
        except OSError:
            self.wait_exit()
            raise Surprise(f'QEMU has ended ({self.how_ended()})') from None
        self.wait('answer of the simulated kernel', lambda: self.replies)
        kind, rest = self.replies.popleft()
        if kind != 'ok':
            raise Error(f'the simulated kernel does not accept "{line[:60]}": {rest}')
        return rest.split()

    def ask(self, name, **arguments):
        """Send a QMP command, and return the reply, {'return': ...} or {'error': ...}."""
        self.ready()
        self.send_qmp(name, arguments)
        self.wait(f'reply to {name}', lambda: self.qmp_replies)
        return self.qmp_replies.popleft()

    def ready(self):
        if not self.negotiated:
            self.wait('QMP greeting', lambda: self.greeted)
            self.negotiated = True
            self.send_qmp('qmp_capabilities', {})
            self.wait('reply to qmp_capabilities', lambda: self.qmp_replies)
            self.qmp_replies.popleft()

    def send_qmp(self, name, arguments):
        text = json.dumps({'execute': name, 'arguments': arguments}) + '\n'
        try:
            self.process.stdin.write(text.encode())
            self.process.stdin.flush()
        except OSError:
            self.wait_exit()
            raise Surprise(f'QEMU has ended ({self.how_ended()}) before {name}') from None

    def query(self, name, **arguments):
        """Send a QMP command that must succeed, and return its result."""
        reply = self.ask(name, **arguments)
        if 'error' in reply:
            raise Surprise(f'{name}: {reply["error"]["desc"]}')
        return reply['return']

    def state(self):
        return self.query('query-status')['status']

    def wait_exit(self):
        self.wait('end of QEMU', lambda: self.exit is not None, dead_is_fine=True)

    def happened(self, event, since=0):
        return any(e['event'] == event for e in self.events[since:])

    def counts(self):
        """The ioctls since the last call, by kind."""
        pairs = (pair.rpartition('=') for pair in self.command_kvm('counts'))
        return {name: int(count) for name, _, count in pairs}

    def modes(self):
        """(id, mode, runs) of each vCPU in KVM."""
        rows = (word.split(':') for word in self.command_kvm('modes'))
        return [(int(vcpu), int(mode, 16), runs == '1') for vcpu, mode, runs in rows]

    def close(self):
        if self.process:
            end(self.process)
            for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
                try:
                    stream.close()
                except OSError:
                    pass
        self.control.close()
        self.watch.close()
        shutil.rmtree(self.home, ignore_errors=True)


def end(process):
    if process.poll() is None:
        process.send_signal(END)
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()
    with live_lock:
        live.discard(process)


def end_all():
    """Kill all QEMUs of an interrupted run, and let no new one start."""
    interrupted.set()
    with spawn_lock, live_lock:
        left = [*live]
    for process in left:
        process.kill()


@contextlib.contextmanager
def workers(jobs):
    """Threads that run QEMUs; if one fails or the run is interrupted, all QEMUs are killed."""
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        try:
            yield pool
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            end_all()
            raise
