# SPDX-License-Identifier: GPL-2.0-or-later
"""Check "scripts/lab matrix" with made-up results for every row of matrix.table, and its --qemu.  Prints TAP."""

import itertools
import json
import pathlib
import re
import tempfile
from xml.etree import ElementTree

from scripts.debian import binaries
from scripts.lib.command import main, no_options
from scripts.lib.system import Unknown
from tests.lab import compare, images, matrix, page, tables
from tests.lab.options import run_of_row
from tests.tap import Point, report

# The last has no expected outcome in the table
QEMUS = (*matrix.QEMUS, 'sid')
SVG = '{http://www.w3.org/2000/svg}'
# Output of QEMU or a guest must not become markup
SAID = '</pre></td><a href="//x" id=\'x\'>&lt;'


def run(outcome):
    """A run with this OUTCOME."""
    name, _, mode = outcome.partition(':')
    pvr = {mode: f'{number:#x}' for number, mode in matrix.LOGICAL.items()}.get(mode)
    l2 = {'outcome': 'booted' if mode else outcome, 'cpu': mode and SAID, 'cpu_version': pvr, 'message': SAID}
    steps = [{**l2, 'do': name, 'outcome': 'done', 'wrong': SAID}] if mode and name != 'booted' else []
    l1 = {'kernel': f'7.3{SAID}', 'qemu': f'QEMU version 1.0{SAID}', 'complaints': [SAID]}
    return {'l1': l1, 'l2': l2, **({'do': steps} if steps else {})}


def text(element):
    return ''.join(element.itertext())


def checks(table, shown):
    """(what is checked, what is wrong)"""
    yield 'the three verdicts', [] if [table[0].verdict(one) for one in (table[0].patched, 'hung', 'cannot')] == [
        matrix.RIGHT, matrix.WRONG, matrix.CANNOT] else ['wrong']
    ids = [element.get('id') for element in shown.iter() if element.get('id')]
    links = [link.get('href') for link in shown.iter('a')]
    rows = {row.get('id'): row for row in shown.iter('tr') if row.get('id')}
    cells = {link.get('href')[1:]: link for link in shown.findall('.//a[@class="marks"]')}
    yield 'the output of a run is escaped', [
        text(small) for small in shown.iter('small') if not text(small).endswith((SAID, 'consoles'))]
    yield 'each id is unique', [name for name in {*ids} if ids.count(name) > 1]
    yield 'links stay on the page, or lead to the consoles of a row', {*links} - {f'#{name}' for name in ids} - {
        f'consoles/{name}' for name in rows}
    yield 'a row for each of matrix.table', {*rows} ^ {row.slug() for row in table}
    yield 'a cell for each row, which shows what the row does', {*cells} ^ {*rows} or [
        name for name, cell in cells.items()
        if text(cell) != ''.join(re.findall(r'(\S) (?:right|wrong|cannot) ', text(rows[name])))]


def compared(found):
    """As checks(), for the comparison of the results FOUND."""
    drawn = ElementTree.fromstring('\n'.join(compare.picture(found)))
    verdicts = [line.cells for line in compare.lines(found)]
    marked = [text(words)[0] for words in drawn.iter(f'{SVG}text') if text(words)[0] in page.MARKS.values()]
    yield 'the picture has the mark of each QEMU in each row', [] if marked == [
        page.MARKS[verdict] for cells in verdicts for verdict, _ in cells] else marked
    table = compare.between(compare.README.read_text(), found).partition(compare.MARKERS[0])[2]
    rows = table.partition(compare.MARKERS[1])[0].splitlines()[2:]
    yield "README's table has a row for each line, and no markup", [
        row for row in rows if '<' in row] + ([] if len(rows) == len(verdicts) else [len(rows)])


def changed(found):
    """As checks(), for the changes since an earlier run, in which the last row came to something else."""
    row = [*found][-1]
    with tempfile.NamedTemporaryFile('w') as file:
        json.dump([{**one._asdict(), 'runs': {**results, 'sid': run('another')} if one == row else results}
                   for one, results in found.items()], file)
        file.flush()
        changes = list(matrix.changes(found, matrix.load(file.name)))
    yield 'only what changed is reported', [] if [one[:3] for one in changes] == [(row, 'sid', 'another')] else changes
    shown = ElementTree.fromstring(page.page([(*one, '') for one in found.items()], changes))
    links = [link.get('href') for link in shown.findall('.//ul[@id="changes"]//a')]
    yield 'the page links to what changed', [] if links == [f'#{row.slug()}'] else links


def selected():
    """As checks(), for the order of the runs, and for what is not a QEMU."""
    runs = [run_of_row(row, qemu) for row in matrix.rows() for qemu in QEMUS]
    groups = tables.grouped(runs)
    yield 'hosts start in the order of the table', [] if groups == sorted(groups) else groups
    yield 'each run is in one group of few, all on one host', [
        same for same in groups if len(same) > tables.GUESTS or len({runs[one].l1() for one in same}) > 1] + (
        [] if sorted(itertools.chain(*groups)) == [*range(len(runs))] else groups)
    distro = binaries.qemu('distro')
    for word, root, wanted in (('/nowhere', None, 'is not a readable file'), ('/bin/sh', None, 'is not a program for'),
                               (images.probe(), None, 'lacks KVM and pseries'),
                               (distro, pathlib.Path('/proc'), 'does not start with'),
                               ('distro', pathlib.Path('/'), 'is for a QEMU at a path')):
        try:
            said = binaries.qemus([str(word)], root)
        except Unknown as e:
            said = str(e)
        yield f'--qemu: what {wanted}', [] if wanted in said and '\n' not in said else [said]
    yield '--qemu: a path', [] if binaries.qemu(str(distro)).version() == distro.version() else [distro.version()]


def check():
    no_options(__doc__)
    table = matrix.rows()
    # every verdict with each of three QEMUs
    verdicts = itertools.cycle(itertools.product((None, 'hung', 'cannot'), repeat=len(QEMUS)))
    runs = [(row, {qemu: run(outcome or row.patched) for qemu, outcome in zip(QEMUS, outcomes)},
             f'consoles/{row.slug()}') for row, outcomes in zip(table, verdicts)]
    found = dict(run[:2] for run in runs)
    # an element without an end, or with markup from a run, does not parse
    shown = ElementTree.fromstring(page.page(runs))
    points = itertools.chain(checks(table, shown), compared(found), changed(found), selected())
    return report(Point(name, '\n'.join(map(str, wrong))) for name, wrong in points)['failed'] > 0


if __name__ == '__main__':
    main(check)
