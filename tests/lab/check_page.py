# Copyright (c) 2026 QEMU contributors
# SPDX-License-Identifier: GPL-2.0-or-later
"""Check "scripts/lab matrix" with made-up results for every row of matrix.table, and its --qemu.  Prints TAP."""

import html.parser
import itertools
import json
import pathlib
import re
import tempfile
import xml.etree.ElementTree

from scripts.debian import binaries
from scripts.lib.command import main, no_options
from scripts.lib.system import Unknown
from tests.lab import compare, hosts, images, matrix, page
from tests.lab.options import run_of_row
from tests.tap import Point, report

# The last has no expected outcome in the table
QEMUS = (*matrix.QEMUS, 'sid')
VOID = ('meta', 'br')
# Output of QEMU or a guest must not become markup
SAID = '</pre></td><a href="//x" id=\'x\'>&lt;'


class Page(html.parser.HTMLParser):
    """The elements of TEXT: {attribute: value}, plus their tag and all text inside."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.wrong = [], [], []
        self.feed(text)
        self.wrong += [f'<{element["tag"]}> has no end' for element in self.open]

    def handle_starttag(self, tag, attrs):
        self.elements.append({**dict(attrs), 'tag': tag, 'text': ''})
        if tag not in VOID:
            self.open.append(self.elements[-1])

    def handle_endtag(self, tag):
        if not self.open or self.open.pop()['tag'] != tag:
            self.wrong.append(f'</{tag}> ends another element in line {self.getpos()[0]}')

    def handle_data(self, data):
        for element in self.open:
            element['text'] += data

    def every(self, tag, attribute='tag'):
        return [element for element in self.elements if element['tag'] == tag and attribute in element]


def run(outcome):
    """A run with this OUTCOME."""
    name, _, mode = outcome.partition(':')
    pvr = {mode: f'{number:#x}' for number, mode in matrix.LOGICAL.items()}.get(mode)
    l2 = {'outcome': 'booted' if mode else outcome, 'cpu': mode and SAID, 'cpu_version': pvr, 'message': SAID}
    steps = [{**l2, 'do': name, 'outcome': 'done', 'wrong': SAID}] if mode and name != 'booted' else []
    l1 = {'kernel': f'7.3{SAID}', 'qemu': f'QEMU version 1.0{SAID}', 'complaints': [SAID]}
    return {'l1': l1, 'l2': l2, **({'do': steps} if steps else {})}


def twice(values):
    return [value for value in set(values) if values.count(value) > 1]


def checks(table, shown):
    """(what is checked, what is wrong)"""
    ids = [element['id'] for element in shown.elements if 'id' in element]
    rows = shown.every('tr', 'id')
    links = [link['href'] for link in shown.every('a', 'href')]
    cells = {link['href'][1:]: link for link in shown.every('a', 'aria-label') if link['href'].startswith('#')}
    consoles = [link for link in links if not link.startswith('#')]
    yield 'every element ends', shown.wrong
    yield 'the output of a run is escaped', [
        small['text'] for small in shown.every('small') if not small['text'].endswith((SAID, 'consoles'))]
    yield 'each id is unique', twice(ids)
    yield 'links stay on the page, or lead to the consoles of a row', {*links} - {f'#{name}' for name in ids} - {
        f'consoles/{row["id"]}' for row in rows} | {*twice(consoles)}
    yield 'nothing else is loaded', [element['src'] for element in shown.elements if 'src' in element]
    yield 'a row for each of matrix.table', [f'{len(rows)} of {len(table)}'] if len(rows) != len(table) else []
    yield 'a cell for each row', set(cells) ^ {row['id'] for row in rows}
    labels = [element['aria-label'] for element in shown.elements if 'aria-label' in element]
    yield 'each label is unique', twice(labels)
    yield 'a cell shows what its row does', [
        name for name, cell in cells.items() for row in rows
        if row['id'] == name and cell['text'] != ''.join(re.findall(r'(\S) (?:right|wrong|cannot) ', row['text']))]
    for choice in shown.every('select'):
        at = shown.elements.index(choice) + 2
        options = itertools.takewhile(lambda element: element['tag'] == 'option', shown.elements[at:])
        yield f'the filter by {choice["name"]} has all values', {option['text'] for option in options} ^ {
            row.get(f'data-{choice["name"]}') for row in rows}


def compared(found):
    """As checks(), for the comparison of the results FOUND."""
    drawn = xml.etree.ElementTree.fromstring('\n'.join(compare.picture(found)))
    verdicts = [line.cells for line in compare.lines(found)]
    words = [''.join(text.itertext()) for text in drawn.iter('{http://www.w3.org/2000/svg}text')]
    marked = [text[0] for text in words if text[0] in page.MARKS.values()]
    yield 'the picture has the mark of each QEMU in each row', [] if marked == [
        page.MARKS[verdict] for cells in verdicts for verdict, _ in cells] else marked
    text = compare.between(compare.README.read_text(), found).partition(compare.MARKERS[0])[2]
    rows = text.partition(compare.MARKERS[1])[0].splitlines()[2:]
    yield "README's table has a row for each line, and no markup", [
        row for row in rows if '<' in row] + ([] if len(rows) == len(verdicts) else [len(rows)])


def changed(runs, found):
    """As checks(), for the changes since an earlier run, in which the last row came to something else."""
    row = [*found][-1]
    with tempfile.NamedTemporaryFile('w') as file:
        json.dump([{**one._asdict(), 'runs': {**results, 'sid': run('another')} if one == row else results}
                   for one, results in found.items()], file)
        file.flush()
        changes = list(matrix.changes(found, matrix.load(file.name)))
    yield 'only what changed is reported', [] if [one[:3] for one in changes] == [(row, 'sid', 'another')] else changes
    lines = [line['text'] for line in Page(page.page(runs, changes)).every('li') if ', now ' in line['text']]
    yield 'the page shows it', [] if len(lines) == 1 and 'Debian sid: another, now ' in lines[0] else lines


def selected():
    """As checks(), for the order of the runs, and for what is not a QEMU."""
    starts = [same[0] for same in hosts.hosts([run_of_row(row, qemu) for row in matrix.rows() for qemu in QEMUS])]
    yield 'hosts start in the order of the table', [] if starts == sorted(starts) else starts
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
    points = itertools.chain(checks(table, Page(page.page(runs))), compared(found), changed(runs, found), selected())
    return report(Point(name, '\n'.join(map(str, wrong))) for name, wrong in points)['failed'] > 0


if __name__ == '__main__':
    main(check)
