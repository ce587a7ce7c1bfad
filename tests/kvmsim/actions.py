# SPDX-License-Identifier: GPL-2.0-or-later
"""The steps that act on QEMU: each takes the Run, and the step's arguments."""

from tests.kvmsim.power import refuse_commands

MIGRATED = ('completed', 'failed')


def command(name, *keys):
    """A step that sends the QMP command NAME, with the words of the step as its arguments KEYS."""
    return lambda run, *words: run.command(name, **dict(zip(keys, words)))


def cont(run):
    run.act()
    if 'start' not in run.phases:
        run.machine.ready()
        run.count('start')
    run.ask('cont')


def reset(run):
    run.act()
    run.machine.ready()
    began = len(run.machine.events)
    # QEMU may end before it replies
    run.machine.send('system_reset')
    run.machine.wait('RESET', lambda: run.machine.replies and run.machine.happened('RESET', began), dead_is_fine=True)
    run.machine.replies.clear()


def end(run):
    run.command('quit')
    run.machine.wait_exit()


def kernel(run, answer):
    """Change the answers of the kernel: what it refuses, or else the bits of its modes."""
    refusals, bits = answer
    run.act()
    for line in refuse_commands(refusals) if bits is None else [f'caps {bits:#x}']:
        run.machine.kernel(line)


def cas(run, entries):
    run.act()
    run.count('other')
    run.guest.cas(entries or run.scenario.guest, run.scenario.mmu)
    if run.machine.exit is None:
        run.count('cas')


def plug(run, core):
    run.command('device_add', driver=f'{run.machine.settings["cpu"]}-spapr-cpu-core', id=f'core{core}',
                **{'core-id': core})


def monitor(run, words):
    """Send a command to the human monitor; any output is an error."""
    run.command('human-monitor-command', **{'command-line': ' '.join(words)})
    run.error = run.error or (run.value or '').strip() or None


def describe(run, path, name):
    run.act()
    kind = run.machine.query('qom-get', path=path, property='type')
    listed = run.machine.query('qom-list-properties', typename=kind)
    run.value = next((entry.get('description') for entry in listed if entry['name'] == name), None)


def migration(machine):
    """The last status of the migration on this side."""
    found = [data['status'] for name, data in machine.events if name == 'MIGRATION']
    return found[-1] if found else None


def migrate(run):
    run.act()
    began = len(run.source.events)
    uri = f'unix:{run.home}/migration'
    for machine in (run.source, run.target):
        machine.query('migrate-set-capabilities', capabilities=[{'capability': 'events', 'state': True}])
    run.target.query('migrate-incoming', uri=uri)
    run.source.query('migrate', uri=uri)
    for machine in (run.target, run.source):
        machine.wait('end of the migration', lambda machine=machine: migration(machine) in MIGRATED, dead_is_fine=True)
    if migration(run.source) == 'failed' and run.source.happened('STOP', began):
        run.source.wait('RESUME', lambda: run.source.happened('RESUME', began))
