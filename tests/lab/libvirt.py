# SPDX-License-Identifier: GPL-2.0-or-later
"""libvirt on an emulated host: its daemon runs in L1, and the lab types virsh commands, which STEPS lists."""

import json
import pathlib
import re
import shlex
import time
from typing import NamedTuple

from scripts.debian import roots
from tests.lab import images, life, matrix, options, stack
from tests.lab.commands import APIS, COMMAND_LINE, HOSTS, MODES, fill, near
from tests.lab.guest import NOISE, Guest

HERE = pathlib.Path(__file__).resolve().parent
PROGRAMS = ('usr/sbin/libvirtd', 'usr/bin/virsh', 'usr/lib/libvirt/libvirt_iohelper',
            'usr/lib/powerpc64le-linux-gnu/libvirt/connection-driver/libvirt_driver_qemu.so')
# CPUs that the libvirt of trixie (11.3) has no model for, and that of sid (12.8) has
UNKNOWN = ('power11',)
# QEMU's output in the logs of both hosts, marked for Guest
LOGS = '/one/var/log/libvirt/qemu/guest.log /two/var/log/libvirt/qemu/guest.log'
WATCH = f'''tail -q -n +1 -F {LOGS} 2>/dev/null | sed -n \
-e '/terminating on signal/d' -e 's/^[^ ]*Z \\(qemu-system\\)/qemu: \\1/p' -e 's/^error: kvm run failed/qemu: &/p' \
-e 's/.*: shutting down, reason=crashed/qemu: exit crashed/p' &'''
SOCKET = 'qemu+unix:///system?socket=/{}/run/libvirt/libvirt-sock'
ERRORS = "sed -n 's/.* error : [^ ]* : /error: /p' /one/var/log/libvirt/qemu/libvirtd.log"
OWN_CPU = f"virsh -q -c {SOCKET.format('one')} capabilities | sed -n '/<cpu>/,/<.cpu>/p'"
# libvirt's message about an unknown CPU
NO_MODEL = "refused: .*CPU mode 'host-model' .* is not supported by hypervisor"

ALWAYS, UNLIMITED, NEVER = 'on every host', 'on a host without a limit', 'nowhere'


class Step(NamedTuple):
    """An action of a user.

    {mode} is the host's, {below} and {above} are its neighbors, and {limit} is
    {mode} if the host is limited.  Hosts that lack one of these skip the step.
    """
    name: str
    # a regular expression for the expected result
    sees: str
    # commands of virsh
    virsh: tuple = ()
    # define the domain again with this <cpu> ('': none) and more options of -machine, and start it
    cpu: str = None
    machine: str = ''
    # the command that makes the guest report; '': the guest reports when it boots
    tells: str = None
    # the libvirtd that virsh talks to
    to: str = 'one'
    # a command for L1's shell that runs first
    shell: str = None
    # the expected result if libvirt does not know the host's CPU
    unknown: str = ''
    hosts: tuple = HOSTS
    # where the result is also right with Debian's QEMU
    distro: str = UNLIMITED


def machine_property(name):
    arguments = {'path': '/machine', 'property': name}
    return f"qemu-monitor-command guest '{json.dumps({'execute': 'qom-get', 'arguments': arguments})}'"


def host_model(model):
    return f"<cpu mode='host-model'><model>{model}</model></cpu>"


STEPS = (
    Step('capabilities', "<domain type='kvm'/>", ('capabilities',), distro=ALWAYS),
    Step('domcapabilities', "'host-passthrough' supported='yes'.*'host-model' supported='yes'",
         ('domcapabilities --virttype kvm --machine pseries',), distro=ALWAYS,
         unknown="'host-passthrough' supported='yes'.*'host-model' supported='no'"),
    Step('errors in the log', '^says: $', shell=ERRORS, distro=ALWAYS,
         unknown='^refused: (operation failed: Cannot find CPU model with PVR 0x0082[0-9]{4} ?)+$'),
    Step('cpu-compare, cpu-baseline', "identical to host CPU.*<model fallback='forbid'>{cpu}</model>",
         ('cpu-compare /run/cpu.xml', 'cpu-baseline /run/cpu.xml'), shell=f'{OWN_CPU} >/run/cpu.xml', distro=ALWAYS,
         unknown='refused: .*Missing CPU model name'),
    Step('no <cpu>', 'guest: {mode}, 1 vCPU', cpu='', tells=''),
    Step('host-compat-modes', r'"return":\[{modes}\]', (machine_property('host-compat-modes'),), distro=NEVER),
    Step('host-compat-source', '"return":"{source}"', (machine_property('host-compat-source'),), distro=NEVER),
    Step('reset', 'guest: {mode}, 1 vCPU', ('reset guest',), tells=''),
    Step('setvcpus --live', 'guest: {mode}, 2 vCPUs', ('setvcpus guest 2 --live',), tells='online 1'),
    Step('save, restore', 'guest: {mode}, 2 vCPUs', ('save guest /run/saved', 'restore /run/saved'), tells='report'),
    Step('managedsave, start', 'guest: {mode}, 2 vCPUs', ('managedsave guest', 'start guest'), tells='report'),
    Step('snapshot, revert', 'guest: {mode}, 2 vCPUs',
         ('snapshot-create-as guest lab', 'snapshot-revert guest lab', 'snapshot-delete guest lab'), tells='report'),
    Step('second libvirtd', 'Running hypervisor: QEMU', ('version',), to='two', shell='sh /libvirt/start two',
         distro=ALWAYS),
    # libvirt cannot know that both hosts share the disk
    Step('migrate --live', 'guest: {mode}, 2 vCPUs',
         (f'migrate --live --unsafe guest {SOCKET.format("two")} unix:///run/to-two',), tells='report'),
    Step('destroy', '^says: $', ('destroy guest', 'list --all --name'), to='two'),
    Step('host-passthrough', 'guest: {mode}, 1 vCPU', cpu="<cpu mode='host-passthrough'/>", tells=''),
    Step('host-model', 'guest: {mode}, 1 vCPU', cpu="<cpu mode='host-model'/>", tells='', unknown=NO_MODEL),
    *(Step(f'host-model, {model}', f'guest: {model}, 1 vCPU', cpu=host_model(model), tells='', unknown=NO_MODEL,
           distro=ALWAYS) for model in ('{mode}', '{below}')),
    Step('host-model, {above}', 'refused: .*(Cannot use max-cpu-compat={above}: this host.*CPU modes of this host: '
         '{names}|Unknown compatibility mode power11)', cpu=host_model('{above}'), unknown=NO_MODEL),
    # libvirt cannot set a mode on such a host, so use -machine
    Step('-machine max-cpu-compat={below}', 'guest: {below}, 1 vCPU', cpu='', machine=',max-cpu-compat={below}',
         tells='', hosts=UNKNOWN, distro=ALWAYS),
    Step('-machine max-cpu-compat={above}', 'refused: .*Cannot use max-cpu-compat={above}: this host does not allow.*'
         'CPU modes of this host: {names}.*Add max-cpu-compat={limit}', cpu='', machine=',max-cpu-compat={above}',
         hosts=UNKNOWN, distro=NEVER),
)


def rows(*hosts, qemus=matrix.QEMUS, apis=tuple(APIS), libvirts=('trixie',)):
    return [options.Run(host, compat, api, qemu=qemu, timeout=600, libvirt=libvirt)
            for host, compat in hosts for api in apis for qemu in qemus for libvirt in libvirts]


ROWS = rows(('power11', 'power10'), ('power10', 'power9'), ('power11', 'none'), ('power10', 'none'))
ROWS += rows(('power11', 'power10'), ('power11', 'none'), apis=['v2'], libvirts=['sid'])
# What make check runs
SMOKE = rows(('power11', 'power10'), qemus=['patched'], apis=['v2'])


def l1_initrd(config, kernel, qemu):
    """L1's initramfs with libvirt."""
    root = roots.libvirt_root(config.libvirt)
    programs = {name: root / name for name in PROGRAMS}
    maps = {str(path.relative_to(root)): path for path in root.glob('usr/share/libvirt/cpu_map/*.xml')}
    found = images.libraries(root, *programs.values())
    return images.l1_initrd(config, kernel, qemu, f'libvirt-{config.libvirt}', {
        **{f'usr/lib/{name}': path for name, path in found.items()}, 'lib64/ld64.so.2': found['ld64.so.2'],
        **programs, **maps, 'libvirt/start': HERE / 'libvirt-l1', 'libvirt/domain.xml': HERE / 'libvirt-domain.xml'})


def facts(config, l1):
    """The values for the names in braces in STEPS."""
    limited = config.compat != 'none'
    mode = config.compat if limited else config.host
    modes = MODES[1:MODES.index(mode) + 1]
    return {**near(mode, modes), 'modes': ','.join(f'"{name}"' for name in modes), 'names': ', '.join(modes),
            'source': 'kvm' if l1.get('compat_caps') else 'device-tree', 'cpu': config.host.upper(),
            **({'limit': mode} if limited else {})}


def steps_for(config, l1):
    known, unknown = facts(config, l1), config.libvirt == 'trixie' and config.host in UNKNOWN
    filled = [fill(step, known) for step in STEPS if config.host in step.hosts]
    return [step._replace(sees=step.unknown, distro=ALWAYS) if step.unknown and unknown else step
            for step in filled if step]


def virsh(to, *commands):
    # one virsh for each command: a single virsh would continue after an error
    return ' && '.join(shlex.join(['virsh', '-q', '-c', SOCKET.format(to), command]) for command in commands)


def typed(step):
    """STEP as a command for L1's shell."""
    lines = [step.shell] if step.shell else []
    commands = step.virsh
    if step.cpu is not None:
        changes = f's|@CPU@|{step.cpu}|; s|@MACHINE@|{step.machine}|; s|@COMMAND_LINE@|{COMMAND_LINE}|'
        lines.append(f'sed {shlex.quote(changes)} /libvirt/domain.xml >/run/domain.xml')
        lines.append(f'{{ {virsh("one", "destroy guest")} >/dev/null 2>&1 || true; }}')
        commands = ('define /run/domain.xml', 'start guest')
    if commands:
        lines.append(virsh(step.to, *commands))
    return ' && '.join(lines)


def plain(line):
    """LINE without the time stamp, and without the warnings that QEMU prints for any nested guest."""
    line = re.sub(r'\d{4}-[\d-]+T[\d:.]+Z qemu-system-\w+: ((-accel kvm: )?warning: .*)?', '', line).strip()
    return '' if NOISE.match(line) else line


class User:
    """Types STEPS into L1's shell, and reads the results."""

    def __init__(self, lab):
        self.lab, self.count, self.status, self.lines = lab, 0, None, []
        self.guest = Guest(lab)
        lab.listeners.append(self)

    def take(self, name, text):
        # the console can mix a kernel message into the line
        found = re.search(rf'virsh {self.count}: (exit (\d+))?(.*)', text) if name == 'l1' else None
        if found and found[1]:
            self.status = int(found[2])
        elif found:
            self.lines.append(found[3])

    def shell(self, command):
        """Run COMMAND in L1: "says" and its output, or "refused" and the output from the first error on."""
        self.count, self.status, self.lines = self.count + 1, None, []
        self.lab.deadline = time.monotonic() + self.lab.config.timeout
        self.lab.send('l1', f'{{ {{ {command}; }}; status=$?; echo; echo "exit $status"; }} </dev/null 2>&1 | '
                            f"sed 's/^/virsh {self.count}: /'")
        self.lab.until(lambda: self.status is not None)
        words = [word for word in map(plain, self.lines) if word]
        errors = [number for number, word in enumerate(words) if word.startswith('error: ')]
        if errors or self.status:
            return 'refused: ' + ' '.join(word.removeprefix('error: ') for word in words[min(errors, default=0):])
        return 'says: ' + ' '.join(words)

    def do(self, step):
        """Do STEP, and return the result as text."""
        guest = self.guest
        guest.report, guest.exited = stack.Report(), False
        guest.words.clear()
        guest.kernel_words.clear()
        said = self.shell(typed(step))
        if step.tells is None or said.startswith('refused: '):
            return said
        if step.tells:
            self.lab.send(guest.console, step.tells)
        self.lab.until(lambda: guest.outcome() != 'hung')
        if guest.outcome() == 'booted':
            mode = matrix.LOGICAL.get(int(guest.report.values.get('cpu_version', '0'), 16), 'raw')
            count = guest.report.values['cpus']
            return f'guest: {mode}, {count} vCPU{"" if count == "1" else "s"}'
        message = guest.message() or 'no message'
        state = self.shell(virsh(step.to, 'domstate --reason guest', 'destroy guest')).removeprefix('says: ')
        return f'guest: {state.split(" Domain")[0]}: {message}'


def judge(step, seen):
    """STEP as --json prints it, with only the matching part of virsh's output."""
    found = re.search(step.sees, seen)
    kind, _, words = seen.partition(': ')
    shown = {'refused': 'refused', 'says': found[0] if found else seen}.get(kind, seen)
    return {'name': step.name, 'right': bool(found), 'seen': shown, 'libvirt': words if kind == 'refused' else None}


def run(config, progress, log):
    """Do all steps on one host; return the result as --json prints it, as life.run() does."""
    with stack.Stack(config, progress, log, l1_initrd, '2G') as lab:
        result, user = life.boot(lab), User(lab)
        up = time.monotonic()
        progress('libvirt')
        with stack.coming_up('libvirt', config.timeout):
            said = user.shell(f'sh /libvirt/start one && {virsh("one", "version")}')
        lab.send('l1', WATCH)
        found = re.search(r'Using library: libvirt (\S+)', said)
        if not found:
            raise stack.Broken(f'libvirt does not run in L1: {said}')
        result |= {'libvirt': found[1], 'steps': []}
        hung = False
        for step in steps_for(config, result['l1']):
            progress(step.name)
            try:
                seen = 'not reached' if hung else user.do(step)
            except stack.Timeout:
                hung, seen = True, f'no result in {config.timeout} seconds: {user.guest.message() or "no message"}'
            result['steps'].append(judge(step, seen))
        result['hung'] = hung
        result['l1']['complaints'] = stack.complaints(log)
        result['seconds']['steps'] = round(time.monotonic() - up, 1)
        return result


def runs(configs, progress):
    """Run libvirt with each of CONFIGS in a new L1: (result, log) for each."""
    return ((run(config, progress, log), log) for config in configs for log in [[]])


def surprises(config, result):
    """Steps with unexpected results (with our QEMU, all must be right; else see STEPS), a hang, and L1's complaints."""
    right = (ALWAYS, UNLIMITED) if config.compat == 'none' else (ALWAYS,)
    return [done['name'] for step, done in zip(steps_for(config, result['l1']), result['steps'])
            if done['right'] != (config.qemu == 'patched' or step.distro in right)] + \
        ['a step hung'] * result['hung'] + result['l1']['complaints']


def describe(result):
    """The number of right steps, and the steps that are wrong or refused, grouped by result."""
    steps, told = result['steps'], {}
    yield f'libvirt {result["libvirt"]}: {sum(step["right"] for step in steps)} of {len(steps)} steps right, ' \
          f'{sum(result["seconds"].values()):.0f} s'
    for step in steps:
        if step['libvirt'] or not step['right']:
            told.setdefault((step['right'], step['libvirt'] or step['seen']), []).append(step['name'])
    for (right, seen), names in told.items():
        yield f'    {"right" if right else "WRONG"}: {"; ".join(names)}: {seen[:240]}'
