# SPDX-License-Identifier: GPL-2.0-or-later
"""One run of the stack: start L2, and take it through the steps of --do."""

import contextlib
import socket
import time

from scripts.lib import system
from tests.lab import stack
from tests.lab.guest import PLACES, Guest

SNAPSHOT = 'lab'
DOWNTIME_MS = 1000


def reboot(guest):
    return guest, guest.order('reboot')


def monitor(guest, line):
    """Send a command to the human monitor; output other than errors is only a warning."""
    said = guest.ask('human-monitor-command', **{'command-line': line})
    errors = [words for words in said.splitlines() if words.startswith('Error')]
    if errors:
        raise stack.Refused(' '.join(errors))


def savevm(guest):
    monitor(guest, f'savevm {SNAPSHOT}')
    # makes the memory differ from the snapshot
    guest.order('report')
    monitor(guest, f'loadvm {SNAPSHOT}')
    return guest, guest.order('report')


def migration_status(guest):
    return [event['data']['status'] for event in guest.events if event['event'] == 'MIGRATION'][-1:]


def plugged(guest):
    """The cores that were plugged, as QEMU's options."""
    for slot in guest.ask('query-hotpluggable-cpus'):
        if slot.get('qom-path', '').startswith('/machine/peripheral'):
            yield from ('-device', f'{slot["type"]},core-id={slot["props"]["core-id"]}')


def migrate(guest):
    """Migrate to a second QEMU in L1, and return the guest there."""
    place, = set(PLACES) - {guest.place}
    return carry(guest, guest.stack, place, f'unix:{guest.stack.sockets_folder}/migration')


def move(guest):
    """Migrate to the other host, and return the guest there."""
    return carry(guest, guest.stack.peer, PLACES[0], f'tcp:{guest.stack.peer.address}:4444')


def carry(guest, host, place, uri):
    """Migrate by URI to PLACE in the L1 of HOST, and return the guest there."""
    target = Guest(host, place, (*plugged(guest), '-incoming', 'defer'))
    host.launch(target)
    target.ask('migrate-incoming', uri=uri)
    # without a return path, the source does not learn that the target refuses the state
    guest.ask('migrate-set-capabilities', capabilities=[
        {'capability': name, 'state': True} for name in ('events', 'return-path')])
    # on a slow machine, a busy L2 never converges with the default of 300
    guest.ask('migrate-set-parameters', **{'downtime-limit': DOWNTIME_MS})
    guest.ask('migrate', uri=uri)
    guest.wait(lambda: migration_status(guest) in (['completed'], ['failed']))
    try:
        target.wait(lambda: any(event['event'] == 'RESUME' for event in target.events))
    except stack.Refused:
        # the source has to run on
        guest.order('report')
        raise
    guest.tell('quit')
    guest.wait_exit()
    guest.stack.listeners.remove(guest)
    return target, target.order('report')


def hotplug(guest):
    before = int(guest.report.values['cpus'])
    free = [slot for slot in guest.ask('query-hotpluggable-cpus') if 'qom-path' not in slot]
    if not free:
        raise stack.Refused('the machine has no free slot for a core: raise maxcpus in --smp')
    slot = min(free, key=lambda slot: slot['props']['core-id'])
    guest.ask('device_add', driver=slot['type'], id=f'core{slot["props"]["core-id"]}', **slot['props'])
    values = guest.order(f'online {before}')
    if int(values['cpus']) <= before:
        raise stack.Refused(f'L2 still has {before} CPUs: {values.get("error")}')
    return guest, values


STEPS = {function.__name__: function for function in (reboot, savevm, migrate, move, hotplug)}


def error_of(values):
    """The error that the work in L2 found, or None."""
    if values.get('error') or values.get('wrong') == '0':
        return values.get('error')
    return f'L2 read {values["wrong"]} corrupt blocks of memory' if 'wrong' in values else 'L2 does no work'


def lead(guest, names):
    """Take GUEST through the steps NAMES, up to the first that fails; return (the guest, a result for each)."""
    results = []
    for name in names:
        guest.stack.progress(name)
        values, message, outcome = {}, None, 'done'
        try:
            guest, values = STEPS[name](guest)
            message = error_of(values)
            outcome = 'corrupted' if message else 'done'
        except stack.Refused as e:
            outcome, message = 'refused', str(e)
        except stack.Timeout:
            outcome, message = 'hung', guest.message()
        results.append({'do': name, 'outcome': outcome, 'message': message, **{
            key: values.get(key) for key in ('cpu', 'cpu_version', 'cpus', 'rounds', 'wrong')}})
        if outcome != 'done':
            break
    return guest, results


def boot(lab):
    """Boot L1, and return the part of the result that describes the host."""
    with stack.coming_up('L1', lab.config.timeout):
        l1 = stack.boot_l1(lab)
        if lab.peer:
            stack.boot_l1(lab.peer)
        for host in (lab, lab.peer) if lab.peer else ():
            host.send('l1', f'insmod /lib/modules/ibmveth.ko; busybox ifconfig eth0 {host.address} up')
    return {
        'l0': {'qemu': system.run([*lab.l0[:lab.l0.index('-L')], '--version']).splitlines()[0],
               'machine': lab.config.l0_stack or 'pseries'},
        'l1': {**{key: l1.get(key) for key in ('kernel', 'cpu', 'cpu_version', 'compat_caps')},
               'qemu': lab.qemu.version()},
        'seconds': {'l1': round(time.monotonic() - lab.started, 1)},
    }


def run_guest(lab, host, first=lambda guest: {}):
    """Start L2 in L1, and end it; return (the result as --json prints it, whether L1 can run another guest).

    The result includes HOST, which describes L1, and what FIRST finds when QEMU has started.
    """
    started = time.monotonic()
    guest = Guest(lab)
    lab.launch(guest)
    found = first(guest)
    with contextlib.suppress(stack.Timeout):
        guest.until_up()
    l2 = guest.report.values if guest.report.complete else {}
    result = {
        **host, **found,
        'l2': {'outcome': guest.outcome(), 'cpu': l2.get('cpu'), 'cpu_version': l2.get('cpu_version'),
               'message': guest.message()},
        'seconds': {**host['seconds'], 'l2': round(time.monotonic() - started, 1)},
    }
    if lab.config.do:
        guest, result['do'] = lead(guest, lab.config.do) if l2 else (guest, [])
    ended = all(other.end() for other in lab.listeners)
    # KVM can also log an error when a guest ends
    result['l1'] = {**host['l1'], 'complaints': stack.complaints(lab.log)}
    return result, ended


@contextlib.contextmanager
def stacks(config, progress, log):
    """The stack of CONFIG, with that of --to as its peer."""
    with contextlib.ExitStack() as both:
        lab = stack.Stack(config, progress, log)
        if config.to:
            lab.peer = stack.Stack(config.other(), progress, [])
            lab.peer.peer, lab.address, lab.peer.address = lab, '10.0.0.1', '10.0.0.2'
            lab.wire, lab.peer.wire = socket.socketpair()
            both.enter_context(lab.peer)
        yield both.enter_context(lab)


def run(config, progress, log):
    """Run the stack once; return the result as --json prints it, and add the lines of all consoles to LOG."""
    with stacks(config, progress, log) as lab:
        return run_guest(lab, boot(lab))[0]


def runs(configs, progress):
    """Run CONFIGS, which differ only in L2, on one host, which boots again after a hang: (result, log) for each."""
    waiting = list(configs)
    while waiting:
        with stacks(waiting[0], progress, []) as lab:
            host, booting, usable = boot(lab), lab.log, True
            while waiting and usable:
                lab.turn_to(waiting.pop(0), [*booting])
                result, usable = run_guest(lab, host)
                yield result, lab.log
                usable &= not lab.peer
