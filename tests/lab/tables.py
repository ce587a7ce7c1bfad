# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs of whole tables, and their output: one host per processor at a time, with several guests on each."""

import json
import os

from scripts.debian import kernels
from scripts.lib.system import say, workers
from tests.lab import libvirt, life, matrix, page, stack
from tests.lab.commands import l0_command
from tests.lab.live import Live
from tests.lab.options import run_of_row
from tests.tap import Point, report

# A run is mostly one thread of TCG.
JOBS = os.cpu_count() or 1
# Guests that run on a host, one after the other: few enough to keep all processors busy
GUESTS = 8
TABLE = '{:<30} {:<8} {:<40} {:>5}  {}'


def prepare(wanted, live):
    """Make what all runs share before they run in parallel."""
    live('kernels for L1 and L2, and QEMU')
    versions = {}
    for run in wanted:
        for kernel in (run.kernel, run.l2_kernel):
            kernels.newest_kernel(kernel, run.pages)
        l0_command(run.l0)
        versions[run.qemu] = run.binary().release()
    if {'distro', 'patched'} <= {*versions} and versions['distro'] != versions['patched']:
        say(f"Debian's QEMU is {versions['distro']}, ours is {versions['patched']}, so results can differ for that "
            'reason: run scripts/graft')


def grouped(runs):
    """The positions of RUNS grouped by host, at most GUESTS in a group, in the order of RUNS."""
    found = {}
    for position, run in enumerate(runs):
        found.setdefault(run.l1(), []).append(position)
    parts = [same[start:start + GUESTS] for same in found.values() for start in range(0, len(same), GUESTS)]
    return sorted(parts)


def run_all(runs, jobs, live, does=life.runs):
    """Run RUNS on several hosts at a time, those of a host with DOES (see life.runs()): (position, result, log)."""
    prepare(runs, live)
    groups, done, stages = grouped(runs), [], {}

    def on_one_host(positions):
        def progress(stage):
            stages[positions[0]] = stage
            live(f'{len(done)} of {len(runs)} runs done; {", ".join([*stages.values()])},')
        found = []
        for one in does([runs[position] for position in positions], progress):
            found.append(one)
            done.append(one)
        stages.pop(positions[0], None)
        return found
    with workers(jobs, stack.end_all) as pool:
        for positions, found in zip(groups, pool.map(on_one_host, groups)):
            for position, (result, log) in zip(positions, found):
                yield position, result, log


def run_rows(table, qemus, live, jobs=JOBS, qemu_root=None):
    """Run the rows of TABLE with each of QEMUS; yield (row, QEMU, result, log) for each."""
    pairs = [(row, qemu) for row in table for qemu in qemus]
    runs = [run_of_row(row, qemu, qemu_root) for row, qemu in pairs]
    for position, result, log in run_all(runs, jobs, live):
        yield *pairs[position], result, log


def describe(result):
    l1, seconds = result['l1'], result['seconds']
    yield f'L0: {result["l0"]["qemu"]}, {result["l0"]["machine"]}'
    yield f'L1: {l1["cpu"]} ({l1["cpu_version"]}), Linux {l1["kernel"]}, ' \
          f'KVM says {l1["compat_caps"] or "nothing"}, {l1["qemu"]}, {seconds["l1"]} s'
    for words in l1['complaints']:
        yield f'L1 says: {words}'
    yield from libvirt.describe(result) if 'libvirt' in result else describe_l2(result)


def describe_l2(result):
    l2, seconds = result['l2'], result['seconds']
    yield f'L2: {l2["outcome"]}' + (f', {l2["cpu"]} ({l2["cpu_version"]})' if l2['cpu'] else '') + \
          f', {seconds["l2"]} s'
    if l2['message']:
        yield f'    {l2["message"]}'
    for step in result.get('do', []):
        after = f', {step["cpu"]} ({step["cpu_version"]}), {step["cpus"]} vCPUs, {step["rounds"]} rounds of work, ' \
                f'{step["wrong"]} corrupt blocks' if step['cpu'] else ''
        yield f'    {step["do"]}: {step["outcome"]}{after}' + (f': {step["message"]}' if step['message'] else '')


def boot():
    """Boot under both QEMUs; return 0 if every guest of ours boots in its host's mode."""
    right = True
    print(TABLE.format("L1, the KVM host", 'QEMU', 'L2, its guest', 's', 'message'), flush=True)
    with Live() as live:
        for row, qemu, result, _ in run_rows(matrix.rows('boot'), matrix.QEMUS, live):
            l2 = result['l2']
            came_up = f'{l2["cpu"]}, {l2["cpu_version"]}' if l2['cpu'] else l2['outcome']
            live.print(TABLE.format(f'{row.host} in {row.compat} mode, {row.api}', qemu, came_up,
                                    round(sum(result['seconds'].values())), l2['message'] or '').rstrip())
            right &= qemu != 'patched' or row.verdict(matrix.outcome_of(result)) == matrix.RIGHT
    return not right


def smoke():
    """Print TAP: both QEMUs must come to what the row says."""
    def point(row, qemu, result, _):
        expected, outcome = row.expected(qemu), matrix.outcome_of(result)
        wrong = '' if outcome == expected else '\n'.join([outcome, *describe(result)])
        return Point(f'{row.l1()}, {row.api}, {row.kernel} kernel: {qemu}: {expected}', wrong)
    return report(point(*one) for one in run_rows(matrix.rows('smoke'), matrix.QEMUS, lambda stage: None))['failed'] > 0


def run_libvirt(runs):
    """Do RUNS with libvirt; return 0 if every step has the result that libvirt.STEPS expects."""
    right = True
    with Live() as live:
        for position, result, _ in run_all(runs, JOBS, live, libvirt.runs):
            run = runs[position]
            surprises = libvirt.surprises(run, result)
            head, *rest = libvirt.describe(result)
            words = f'NOT EXPECTED: {"; ".join(surprises)}' if surprises else 'as expected'
            name = f'{run.host}, {matrix.limit(run.compat)}, {run.api}, {run.qemu}'
            live.print('\n'.join([f'{name:<36} {head}, {words}', *rest]))
            right &= not surprises
    return not right


def verdict(row, qemu, result):
    """(whether the result is as expected, the words for it)"""
    outcome, said = matrix.outcome_of(result), matrix.complaints(row, result)
    if outcome != (row.expected(qemu) or outcome):
        return False, f'EXPECTED {row.expected(qemu)}'
    if said:
        return False, f'L1 COMPLAINS: {"; ".join(said)}'
    return True, 'as expected' if row.expected(qemu) else row.verdict(outcome)


def run_matrix(args, table):
    """Run TABLE with the options ARGS of "scripts/lab matrix"; return 0 if all results are as expected."""
    found, right = {row: {} for row in table}, 0
    count = len(table) * len(args.qemu)
    # the consoles, one file a row
    folder = (args.json or args.html) and (args.json or args.html).with_suffix('.consoles')
    consoles = {row: folder and f'{folder.name}/{row.slug()}.txt' for row in table}
    with Live() as live:
        for row, qemu, result, log in run_rows(table, args.qemu, live, args.jobs, args.qemu_root):
            if folder:
                folder.mkdir(exist_ok=True)
                with open(folder.parent / consoles[row], 'a' if found[row] else 'w') as file:
                    file.writelines(f'{text}\n' for text in [f'== {qemu}: {result["l1"]["qemu"]}', *log])
            found[row][qemu] = result
            expected, words = verdict(row, qemu, result)
            right += expected
            live.print(f'{row.l1():<24} {row.api} {row.kernel:<6} {row.pages:<3} L0 {row.l0:<7} {row.guest():<24} '
                       f'{qemu:<7} {matrix.outcome_of(result):<19} {words}  '
                       f'{" ".join((result["l2"]["message"] or "").split())[:90]}'.rstrip())
    print(f'{right} of {count} runs as expected')
    changed = list(matrix.changes(found, args.against or {}))
    for row, qemu, old, new in changed:
        print(f'CHANGED {page.name(row)}, {qemu}: {old}, now {new}')
    if args.json:
        args.json.write_text(json.dumps([{**row._asdict(), 'consoles': consoles[row], 'runs': results}
                                         for row, results in found.items()], indent=1) + '\n')
    if args.html:
        args.html.write_text(page.page([(*one, consoles[one[0]]) for one in found.items()], changed))
    return right != count
