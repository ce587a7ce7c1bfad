# Copyright (c) 2026 QEMU contributors
# SPDX-License-Identifier: GPL-2.0-or-later
"""README's table, from the results of make matrix: python3 -m tests.lab.readme build/matrix.json"""

import json
import pathlib

from lib.command import Parser, main
from tests.lab.matrix import QEMUS, came_to, limit, plain


def in_words(result):
    """The result of one run for the table."""
    l2 = result['l2']
    words = plain(l2['message'])
    return f'boots as {l2["cpu"].split(" ")[0]}' if l2['cpu'] else f'`{words[:60]}{"..." if words[60:] else ""}`'


def table(rows):
    """The lines of the table: of the rows without options, one for each combination of outcomes."""
    shown = {}
    for row in rows:
        runs = [row['runs'][qemu] for qemu in QEMUS]
        if row['extra'] == '-':
            shown.setdefault(tuple(map(came_to, runs)), (row, runs))
    yield '| KVM host (L1) | nested API | L1\'s kernel | guest under Debian\'s QEMU | guest with the series |'
    yield '| --- | --- | --- | --- | --- |'
    for row, runs in shown.values():
        checks = ', L0 checks as PowerVM does' if runs[0]['l2']['outcome'] == 'guest-wide-elements' else ''
        kernel = runs[0]['l1']['kernel'].split('-powerpc')[0]
        mode = limit(row['compat'], 'in {} mode')
        yield f'| {row["host"]} {mode}{checks} | {row["api"]} | {kernel} | ' + ' | '.join(map(in_words, runs)) + ' |'


def run():
    parser = Parser(description=__doc__)
    parser.add_argument('results', metavar='FILE', type=pathlib.Path, help='what make matrix wrote')
    print('\n'.join(table(json.loads(parser.parse_args().results.read_text()))))


if __name__ == '__main__':
    main(run)
