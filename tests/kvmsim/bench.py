# Copyright (c) 2026 QEMU contributors
# SPDX-License-Identifier: GPL-2.0-or-later
"""The cost of a change of mode in ioctls, patched and unpatched."""

import pathlib
import resource
import tempfile

from tests.kvmsim.scenario import parse
from tests.kvmsim.steps import Run

# {vCPUs: (-smp, -m)}; a radix guest changes from raw to POWER9 mode.
SIZES = {1: ('1', 256), 8: ('8', 256), 64: ('64', 256), 512: ('512,threads=8', 512),
         2048: ('2048,threads=8', 2048)}
STANZA = '''
[bench]
title  = a change of mode
topic  = host-compat
row    = B15
smp    = {smp}
memory = {memory}
guest  = power9
mmu    = radix
steps  =
    cont
    cas
    returns H_SUCCESS
    modes all power9
'''


def user_time():
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime


def measure(vcpus, qemu, path):
    """One run: its ioctls by phase and kind, and its total user time."""
    smp, memory = SIZES[vcpus]
    scenario, = parse('bench', STANZA.format(smp=smp, memory=memory)).values()
    before = user_time()
    with tempfile.TemporaryDirectory(prefix='kvmsim-') as home:
        run = Run(scenario, qemu, path, pathlib.Path(home))
        try:
            run.run()
        finally:
            run.close()
    # a waiting vCPU calls KVM_RUN a random number of times
    counts = {phase: {name: n for name, n in kinds.items() if name != 'KVM_RUN'}
              for phase, kinds in run.phases.items() if phase in ('start', 'cas')}
    cas = sum(counts['cas'].values())
    return {'vcpus': vcpus, 'qemu': qemu, 'start': sum(counts['start'].values()), 'cas': cas,
            'cas_a_vcpu': round(cas / vcpus, 2), 'user': round(user_time() - before, 1),
            'kinds': counts}


def table(runs):
    """The lines for one size: each kind of ioctl, with a column for each phase and QEMU."""
    kinds = sorted({kind for run in runs for counts in run['kinds'].values() for kind in counts})
    heads = [f'{phase} {run["qemu"]}' for phase in ('start', 'cas') for run in runs]
    lines = [('ioctl', *heads)]
    lines += [(kind, *(str(run['kinds'][phase].get(kind, 0)) for phase in ('start', 'cas') for run in runs))
              for kind in kinds]
    lines.append(('all', *(str(run[phase]) for phase in ('start', 'cas') for run in runs)))
    lines.append(('per vCPU', *(f'{run[phase] / run["vcpus"]:.1f}' for phase in ('start', 'cas') for run in runs)))
    widths = [max(len(line[i]) for line in lines) for i in range(len(heads) + 1)]
    for first, *rest in lines:
        yield '  '.join([first.ljust(widths[0]), *(n.rjust(w) for n, w in zip(rest, widths[1:]))])


def bench(binaries, say):
    for vcpus in SIZES:
        runs = []
        for qemu, path in binaries.items():
            say(f'{vcpus} vCPUs, {qemu}')
            runs.append(measure(vcpus, qemu, path))
        print(f'\n{vcpus} vCPU{"s" if vcpus > 1 else ""}; user time '
              + ', '.join(f'{run["qemu"]} {run["user"]} s' for run in runs))
        print('\n'.join(table(runs)))
        ours, theirs = runs
        print(f'patched: {ours["start"] - theirs["start"]} more at start; '
              f'{ours["cas_a_vcpu"]} per vCPU during CAS instead of {theirs["cas_a_vcpu"]}', flush=True)
