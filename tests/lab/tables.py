# Copyright (c) 2026 QEMU contributors
# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs of whole tables, and their output."""

import json
import pathlib

from tests.lab import libvirt, matrix, page
from tests.lab.hosts import JOBS, run_all, run_rows
from tests.lab.live import Live
from tests.lab.options import config_of
from tests.lab.words import describe
from tests.tap import Point, line

# The rows of "boot" and "smoke", in the format of matrix.cfg
BOOT, SMOKE = (matrix.HERE / name for name in ('boot.cfg', 'smoke.cfg'))
TABLE = '{:<30} {:<8} {:<40} {:>5}  {}'


def boot():
    """Boot under both QEMUs; return 0 if every guest of ours boots in its host's mode."""
    wrong = []
    print(TABLE.format("L1, the KVM host", 'QEMU', 'L2, its guest', 's', 'message'), flush=True)

    def report(row, qemu, result, _):
        l2 = result['l2']
        came_up = f'{l2["cpu"]}, {l2["cpu_version"]}' if l2['cpu'] else l2['outcome']
        seconds = sum(result['seconds'].values())
        live.print(TABLE.format(f'{row.host} in {row.compat} mode, {row.api}', qemu, came_up, round(seconds),
                                l2['message'] or '').rstrip())
        if qemu == 'patched' and not matrix.is_right(row, matrix.came_to(result)):
            wrong.append(row)
    with Live() as live:
        run_rows(matrix.rows(BOOT), matrix.QEMUS, JOBS, live, report)
    return 1 if wrong else 0


def smoke():
    """Print TAP: both QEMUs must come to what the row says."""
    count, failed = 0, 0

    def report(row, qemu, result, _):
        nonlocal count, failed
        count += 1
        expected, outcome = getattr(row, qemu), matrix.came_to(result)
        failed += outcome != expected
        name = f'{row.l1()}, {row.api}, {row.kernel} kernel: {qemu}: {expected}'
        live.print(line(count, Point(name, '' if outcome == expected else outcome)))
        for words in describe(result):
            live.print(f'# {words}')
    table = matrix.rows(SMOKE)
    print(f'1..{2 * len(table)}', flush=True)
    with Live() as live:
        run_rows(table, matrix.QEMUS, JOBS, live, report)
    return 1 if failed else 0


def run_libvirt(rows):
    """Run libvirt on ROWS; return 0 if every step has the result that libvirt.STEPS expects."""
    configs, odd = [config_of([*row.words(), '--timeout', '600'], 'libvirt') for row in rows], []

    def report(position, done):
        surprises = libvirt.surprises(configs[position], done[0])
        odd.extend(surprises)
        head, *rest = libvirt.describe(done[0])
        verdict = f'NOT EXPECTED: {"; ".join(surprises)}' if surprises else 'as expected'
        live.print('\n'.join([f'{libvirt.host(rows[position]):<36} {head}, {verdict}', *rest]))
    with Live() as live:
        run_all(configs, JOBS, live, report)
    return 1 if odd else 0


def run_matrix(only, qemus, jobs, json_file, html_file):
    """Run the rows that ONLY selects under QEMUS; return 0 if all results are as expected."""
    table = matrix.select(matrix.rows(), only)
    found, odd = {row: {} for row in table}, []

    def report(row, qemu, result, log):
        outcome = matrix.came_to(result)
        # the table has no column for upstream's own version
        expected = getattr(row, qemu, outcome)
        found[row][qemu] = {'result': result, 'log': log}
        complaints = matrix.complaints(row, result)
        if outcome != expected or complaints:
            odd.append((row, qemu))
        verdict = f'EXPECTED {expected}' if outcome != expected else \
            f'L1 COMPLAINS: {"; ".join(complaints)}' if complaints else 'as expected'
        live.print(
            f'{row.l1():<24} {row.api} {row.kernel:<6} {row.pages:<3} L0 {row.l0:<7} {row.guest():<24} {qemu:<7} '
            f'{outcome:<19} {verdict}  {matrix.plain(result["l2"]["message"])}'.rstrip())
    with Live() as live:
        run_rows(table, qemus, jobs, live, report)
    count = len(table) * len(qemus)
    print(f'{count - len(odd)} of {count} runs as expected')
    if json_file:
        pathlib.Path(json_file).write_text(json.dumps(
            [{**row._asdict(), 'runs': {qemu: run['result'] for qemu, run in cells.items()}}
             for row, cells in found.items()], indent=1) + '\n')
    if html_file:
        pathlib.Path(html_file).write_text(page.page(list(found.items())))
    return 1 if odd else 0
