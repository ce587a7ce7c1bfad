# Copyright (c) 2026 QEMU contributors
# SPDX-License-Identifier: GPL-2.0-or-later
"""README's table, from the results of make matrix: python3 -m tests.lab.readme build/matrix.json

More files, as scripts/lab matrix --qemu upstream --json FILE writes them, add columns.
"""

import json
import pathlib

from lib.command import Parser, main
from tests.lab.matrix import Row, came_to, limit, plain

# {QEMU: the head of its column}
HEADS = {'distro': "guest under Debian's QEMU", 'upstream': "with upstream's version", 'patched': 'with the series'}


def in_words(result):
    """The result of one run for the table."""
    l2 = result['l2']
    words = plain(l2['message'])
    return f'boots as {l2["cpu"].split(" ")[0]}' if l2['cpu'] else f'`{words[:60]}{"..." if words[60:] else ""}`'


def merged(files):
    """The rows of all FILES, each with its runs of all files."""
    found = {}
    for row in (row for file in files for row in file):
        same = found.setdefault(tuple(row[field] for field in Row._fields), row)
        same['runs'].update(row['runs'])
    return [*found.values()]


def table(rows):
    """The lines of the table: of the rows without options, one for each combination of outcomes."""
    shown, qemus = {}, [qemu for qemu in HEADS if all(qemu in row['runs'] for row in rows if row['extra'] == '-')]
    for row in (row for row in rows if row['extra'] == '-'):
        runs = [row['runs'][qemu] for qemu in qemus]
        shown.setdefault(tuple(map(came_to, runs)), (row, runs))
    yield '| ' + ' | '.join(['KVM host (L1)', 'nested API', "L1's kernel", *(HEADS[qemu] for qemu in qemus)]) + ' |'
    yield '| --- | --- | ---' + ' | ---' * len(qemus) + ' |'
    for row, runs in shown.values():
        checks = ', L0 checks as PowerVM does' if runs[0]['l2']['outcome'] == 'guest-wide-elements' else ''
        kernel = runs[0]['l1']['kernel'].split('-powerpc')[0]
        mode = limit(row['compat'], 'in {} mode')
        yield f'| {row["host"]} {mode}{checks} | {row["api"]} | {kernel} | ' + ' | '.join(map(in_words, runs)) + ' |'


def run():
    parser = Parser(description=__doc__)
    parser.add_argument('results', metavar='FILE', type=pathlib.Path, nargs='+', help='what make matrix wrote')
    files = [json.loads(path.read_text()) for path in parser.parse_args().results]
    print('\n'.join(table(merged(files))))


if __name__ == '__main__':
    main(run)
