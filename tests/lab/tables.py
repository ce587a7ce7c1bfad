# Copyright (c) 2026 QEMU contributors
# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs of whole tables, and their output."""

import json
import pathlib

from tests.lab import libvirt, matrix, page
from tests.lab.hosts import JOBS, run_all, run_rows
from tests.lab.live import Live
from tests.lab.options import Run
from tests.tap import Point, line

TABLE = '{:<30} {:<8} {:<40} {:>5}  {}'


def describe(result):
    """The result of a run as text."""
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
    wrong = []
    print(TABLE.format("L1, the KVM host", 'QEMU', 'L2, its guest', 's', 'message'), flush=True)

    def report(row, qemu, result, _):
        l2 = result['l2']
        came_up = f'{l2["cpu"]}, {l2["cpu_version"]}' if l2['cpu'] else l2['outcome']
        seconds = sum(result['seconds'].values())
        live.print(TABLE.format(f'{row.host} in {row.compat} mode, {row.api}', qemu, came_up, round(seconds),
                                l2['message'] or '').rstrip())
        if qemu == 'patched' and row.verdict(matrix.came_to(result)) != matrix.RIGHT:
            wrong.append(row)
    with Live() as live:
        run_rows(matrix.rows('boot'), matrix.QEMUS, JOBS, live, report)
    return 1 if wrong else 0


def smoke():
    """Print TAP: both QEMUs must come to what the row says."""
    count, failed = 0, 0

    def report(row, qemu, result, _):
        nonlocal count, failed
        count += 1
        expected, outcome = row.expected(qemu), matrix.came_to(result)
        failed += outcome != expected
        name = f'{row.l1()}, {row.api}, {row.kernel} kernel: {qemu}: {expected}'
        live.print(line(count, Point(name, '' if outcome == expected else outcome)))
        for words in describe(result):
            live.print(f'# {words}')
    table = matrix.rows('smoke')
    print(f'1..{2 * len(table)}', flush=True)
    with Live() as live:
        run_rows(table, matrix.QEMUS, JOBS, live, report)
    return 1 if failed else 0


def run_libvirt(rows):
    """Run libvirt on ROWS; return 0 if every step has the result that libvirt.STEPS expects."""
    runs, odd = [Run(**row._asdict(), timeout=600) for row in rows], []

    def report(position, result, _):
        surprises = libvirt.surprises(runs[position], result)
        odd.extend(surprises)
        head, *rest = libvirt.describe(result)
        words = f'NOT EXPECTED: {"; ".join(surprises)}' if surprises else 'as expected'
        live.print('\n'.join([f'{rows[position]!s:<36} {head}, {words}', *rest]))
    with Live() as live:
        run_all(runs, JOBS, live, report, libvirt.runs)
    return 1 if odd else 0


class Consoles:
    """The consoles of a table's runs, beside its output FILE: one file a row."""

    def __init__(self, file):
        self.folder = pathlib.Path(file).with_suffix('.consoles') if file else None
        if self.folder:
            self.folder.mkdir(exist_ok=True)

    def name(self, row):
        """The file of ROW, as a link from the page."""
        return f'{self.folder.name}/{row.slug()}.txt' if self.folder else None

    def write(self, row, lines, first):
        """Write LINES to the file of ROW; the FIRST replace those of an earlier run."""
        if self.folder:
            with open(self.folder.parent / self.name(row), 'w' if first else 'a') as file:
                file.writelines(f'{text}\n' for text in lines)


def verdict(row, qemu, result):
    """(whether the result is as expected, the words for it)"""
    outcome, said = matrix.came_to(result), matrix.complaints(row, result)
    if outcome != (row.expected(qemu) or outcome):
        return False, f'EXPECTED {row.expected(qemu)}'
    if said:
        return False, f'L1 COMPLAINS: {"; ".join(said)}'
    return True, 'as expected' if row.expected(qemu) else row.verdict(outcome)


def run_matrix(table, qemus, qemu_root, jobs, json_file, html_file, earlier=None):
    """Run the rows of TABLE with QEMUS; return 0 if all results are as expected.

    EARLIER are the results of an earlier run, from which changes are reported.
    """
    found, odd, consoles = {row: {} for row in table}, [], Consoles(json_file or html_file)

    def report(row, qemu, result, log):
        consoles.write(row, [f'== {qemu}: {result["l1"]["qemu"]}', *log], not found[row])
        found[row][qemu] = result
        expected, words = verdict(row, qemu, result)
        if not expected:
            odd.append((row, qemu))
        live.print(
            f'{row.l1():<24} {row.api} {row.kernel:<6} {row.pages:<3} L0 {row.l0:<7} {row.guest():<24} {qemu:<7} '
            f'{matrix.came_to(result):<19} {words}  {matrix.plain(result["l2"]["message"])}'.rstrip())
    with Live() as live:
        run_rows(table, qemus, jobs, live, report, qemu_root)
    count = len(table) * len(qemus)
    print(f'{count - len(odd)} of {count} runs as expected')
    changes = None if earlier is None else list(matrix.changes(found, earlier))
    for row, qemu, old, new in changes or ():
        print(f'CHANGED {page.name(row)}, {qemu}: {old}, now {new}')
    if json_file:
        pathlib.Path(json_file).write_text(json.dumps(
            [{**row._asdict(), 'consoles': consoles.name(row), 'runs': results} for row, results in found.items()],
            indent=1) + '\n')
    if html_file:
        pathlib.Path(html_file).write_text(page.page(
            [(row, results, consoles.name(row)) for row, results in found.items()], changes))
    return 1 if odd else 0
