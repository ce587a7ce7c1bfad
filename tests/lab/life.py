# Copyright (c) 2026 QEMU contributors
# SPDX-License-Identifier: GPL-2.0-or-later
"""One run of the stack: L2 started, and what it goes through once it is up."""

import contextlib
import time

from tests.lab import stack
from tests.lab.commands import l0_version
from tests.lab.guest import PLACES, Guest

SNAPSHOT = 'lab'
DOWNTIME_MS = 1000


def reboot(guest):
    return guest, guest.order('reboot')


def monitor(guest, line):
    """A command of the human monitor, which can warn and yet go well."""
    said = guest.ask('human-monitor-command', **{'command-line': line})
    errors = [words for words in said.splitlines() if words.startswith('Error')]
    if errors:
        raise stack.Refused(' '.join(errors))


def savevm(guest):
    monitor(guest, f'savevm {SNAPSHOT}')
    # memory that is not the snapshot's any more
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
    """To a second QEMU in L1, which is the guest from then on."""
    place, = set(PLACES) - {guest.place}
    uri = f'unix:{guest.stack.sockets_folder}/migration'
    target = Guest(guest.stack, place, (*plugged(guest), '-incoming', 'defer'))
    target.start()
    target.ask('migrate-incoming', uri=uri)
    guest.ask('migrate-set-capabilities', capabilities=[{'capability': 'events', 'state': True}])
    # on a slow machine, a working L2 would never be left within the usual 300
    guest.ask('migrate-set-parameters', **{'downtime-limit': DOWNTIME_MS})
    guest.ask('migrate', uri=uri)
    guest.wait(lambda: migration_status(guest) in (['completed'], ['failed']))
    target.wait(lambda: any(event['event'] == 'RESUME' for event in target.events))
    guest.tell('quit')
    guest.wait_exit()
    guest.stack.listeners.remove(guest)
    return target, target.order('report')


def hotplug(guest):
    """One more core."""
    before = int(guest.report.values['cpus'])
    free = [slot for slot in guest.ask('query-hotpluggable-cpus') if 'qom-path' not in slot]
    if not free:
        raise stack.Refused('the machine has no room for one more core: raise maxcpus in --smp')
    slot = min(free, key=lambda slot: slot['props']['core-id'])
    guest.ask('device_add', driver=slot['type'], id=f'core{slot["props"]["core-id"]}', **slot['props'])
    values = guest.order(f'online {before}')
    if int(values['cpus']) <= before:
        raise stack.Refused(f'L2 still has {before} CPUs: {values.get("error")}')
    return guest, values


STEPS = {function.__name__: function for function in (reboot, savevm, migrate, hotplug)}


def fault(values):
    """What the work in L2 found wrong (tests/lab/work.c), or None."""
    if values.get('error') or values.get('wrong') == '0':
        return values.get('error')
    return f'L2 read {values["wrong"]} corrupt blocks of memory' if 'wrong' in values else 'L2 does no work'


def lead(guest, names):
    """Take GUEST through the steps NAMES, up to the first that fails; returns (the guest, a result for each)."""
    results = []
    for name in names:
        guest.stack.progress(name)
        values, message, outcome = {}, None, 'done'
        try:
            guest, values = STEPS[name](guest)
            message = fault(values)
            outcome = 'corrupted' if message else 'done'
        except stack.Refused as e:
            outcome, message = 'refused', str(e)
        except stack.Timeout:
            outcome, message = 'hung', guest.message()
        results.append({'do': name, 'outcome': outcome, 'cpu': values.get('cpu'),
                        'cpu_version': values.get('cpu_version'), 'cpus': values.get('cpus'),
                        'rounds': values.get('rounds'), 'wrong': values.get('wrong'), 'message': message})
        if outcome != 'done':
            break
    return guest, results


def boot(lab):
    """L1 up; returns what the result of each of its guests says of the host."""
    try:
        l1 = stack.boot_l1(lab)
    except stack.Timeout:
        raise stack.Broken(
            f'L1 was not up after {lab.config.timeout} seconds: give it more with --timeout') from None
    return {
        'l0': {'qemu': l0_version(lab.l0), 'machine': lab.config.l0_stack or 'pseries'},
        'l1': {key: l1.get(key) for key in ('kernel', 'cpu', 'cpu_version', 'compat_caps')},
        'seconds': {'l1': round(time.monotonic() - lab.started, 1)},
    }


def run_guest(lab, host):
    """Start L2 in L1, and end it; returns (the result as --json prints it, whether L1 can take another)."""
    started = time.monotonic()
    guest = Guest(lab)
    guest.start()
    with contextlib.suppress(stack.Timeout):
        guest.until_up()
    l2 = guest.report.values if guest.report.complete else {}
    result = {
        **host,
        'l2': {'outcome': guest.outcome(), 'cpu': l2.get('cpu'), 'cpu_version': l2.get('cpu_version'),
               'message': guest.message()},
        'seconds': {**host['seconds'], 'l2': round(time.monotonic() - started, 1)},
    }
    if lab.config.do:
        guest, result['do'] = lead(guest, lab.config.do) if l2 else (guest, [])
    ended = all(other.end() for other in lab.listeners)
    # the end of a guest is something that KVM can complain of, too
    result['l1'] = {**host['l1'], 'complaints': stack.complaints(lab.log)}
    return result, ended


def run(config, progress=lambda stage: None, log=None):
    """One run of the stack; returns (the result as --json prints it, the log).

    LOG: a list that gets the lines of all consoles as they come.
    """
    log = [] if log is None else log
    with stack.Stack(config, progress, log) as lab:
        return run_guest(lab, boot(lab))[0], log


def runs(configs, progress):
    """Runs on one host, which boots once unless a guest hangs: (result, log) of each.

    CONFIGS differ only in what L2 is told.
    """
    waiting = list(configs)
    while waiting:
        with stack.Stack(waiting[0], progress, []) as lab:
            host, booting, usable = boot(lab), lab.log, True
            while waiting and usable:
                lab.turn_to(waiting.pop(0), [*booting])
                result, usable = run_guest(lab, host)
                yield result, lab.log
