# SPDX-License-Identifier: GPL-2.0-or-later
"""The comparison that README shows: its table, and a picture of it."""

import re
import textwrap
from html import escape
from typing import NamedTuple

from scripts.debian import binaries
from scripts.lib.system import TOP, write_whole
from tests.lab import matrix, tables
from tests.lab.guest import WIDE_ELEMENTS
from tests.lab.live import Live
from tests.lab.page import MARKS

QEMUS = ('trixie', 'sid', 'upstream', 'patched')
README, PICTURE = TOP / 'README.md', TOP / 'docs/compare.svg'
# What stands between them in README is written here
MARKERS = '<!-- make compare -->\n', '<!-- make compare: end -->\n'
TITLE = 'What QEMUs do on POWER hosts in an older CPU mode'
# Sizes in the picture
ROW, LINE, FIRST, COLUMN, WRAP = 58, 16, 390, 240, 28
FILL = {matrix.RIGHT: '#c9efd2', matrix.WRONG: '#f8cfcb', matrix.CANNOT: '#e5e7eb'}


class Line(NamedTuple):
    """Rows of the table that come to the same: the host, and (verdict, words) for each QEMU."""
    host: str
    apis: list
    kernels: list
    cells: tuple


def named(mode):
    return mode.replace('power', 'Power' if '11' in mode else 'POWER')


def in_words(result):
    """What L2 came to, in a few words of QEMU's or ours."""
    kind, _, mode = matrix.outcome_of(result).partition(':')
    if mode:
        return f'boots {"raw" if mode == "raw" else f"as {named(mode)}"}'
    if kind == 'guest-wide-elements':
        return WIDE_ELEMENTS
    return re.split(r'[.:;]( |$)|\.\.\.', re.sub(r'^(error|KVM\S*): ', '', result['l2']['message'] or kind))[0]


def lines(found):
    """The lines of the table for FOUND, {row: {QEMU: result}}."""
    merged = {}
    for row, results in found.items():
        host = ', '.join(filter(None, [named(row.host), matrix.limit(named(row.compat), 'in {} mode'), row.guest()]))
        cells = tuple((row.verdict(matrix.outcome_of(result)), in_words(result)) for result in results.values())
        line = merged.setdefault((host, cells), Line(host.replace(', in', ' in'), [], [], cells))
        kernel = re.match(r'\d+\.\d+', next(iter(results.values()))['l1']['kernel'])[0]
        line.apis[:] = sorted({*line.apis, row.api})
        line.kernels[:] = dict.fromkeys([*line.kernels, kernel])
    return list(merged.values())


def heads(found):
    """The heads of the columns, with the release of each QEMU."""
    results = next(iter(found.values()))
    return [f'{matrix.title(qemu)}, {re.search("version ([0-9.]+)", result["l1"]["qemu"])[1]}'
            for qemu, result in results.items()]


def table(found):
    """The table in Markdown."""
    yield f'| KVM host (L1), options | nested API | L1\'s kernel | {" | ".join(heads(found))} |'
    yield '| --- ' * (3 + len(heads(found))) + '|'
    for line in lines(found):
        cells = [f'{MARKS[verdict]} {escape(words, False)}' for verdict, words in line.cells]
        yield f'| {" | ".join([line.host, ", ".join(line.apis), ", ".join(line.kernels), *cells])} |'


def text(x, y, words, style=''):
    """The lines WORDS in the picture."""
    spans = ''.join(f'<tspan x="{x}" dy="{LINE if number else 0}">{escape(part)}</tspan>'
                    for number, part in enumerate(words))
    return f'<text x="{x}" y="{y}"{style}>{spans}</text>'


def picture(found):
    """The table as SVG; the marks and the words tell without the colors."""
    names, rows = heads(found), lines(found)
    width, height = FIRST + COLUMN * len(names) + 20, ROW * (len(rows) + 1) + 20
    yield f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" ' \
          'font-family="sans-serif" font-size="13">'
    yield f'<!-- SPDX-License-Identifier: GPL-2.0-or-later --><title>{TITLE}</title>'
    yield f'<rect width="{width}" height="{height}" fill="#fff"/>'
    for column, name in enumerate(names):
        yield text(FIRST + COLUMN * column + 20, 30, textwrap.wrap(name, WRAP - 6), ' font-weight="bold"')
    for number, line in enumerate(rows, 1):
        top = ROW * number
        yield text(10, top + 22, [line.host, f'API {", ".join(line.apis)}; Linux {", ".join(line.kernels)}'])
        for column, (verdict, words) in enumerate(line.cells):
            left = FIRST + COLUMN * column + 10
            yield f'<rect x="{left}" y="{top}" width="{COLUMN - 6}" height="{ROW - 6}" rx="4" ' \
                  f'fill="{FILL[verdict]}" stroke="#374151" stroke-width="{1 if verdict == matrix.RIGHT else 2.5}"/>'
            yield text(left + 10, top + 22, textwrap.wrap(f'{MARKS[verdict]} {words}', WRAP))
    yield '</svg>'


def between(whole, found):
    """WHOLE, the text of README, with the table between the MARKERS."""
    start, end = (whole.index(marker) for marker in MARKERS)
    return whole[:start + len(MARKERS[0])] + '\n'.join([*table(found), '']) + whole[end:]


def compare():
    """Run the rows, and write the table and the picture; return 0 if our QEMU is right everywhere."""
    rows = matrix.rows('compare')
    found = {row: {} for row in rows}
    binaries.qemus(QEMUS)
    with Live() as live:
        for row, qemu, result, _ in tables.run_rows(rows, QEMUS, live):
            found[row][qemu] = result
            live.print(f'{row.l1():<24} {row.api} {row.kernel:<6} {row.guest():<24} {qemu:<8} '
                       f'{row.verdict(matrix.outcome_of(result)):<6} {in_words(result)}')
    write_whole(README, between(README.read_text(), found))
    write_whole(PICTURE, '\n'.join([*picture(found), '']))
    return any(row.verdict(matrix.outcome_of(results['patched'])) != matrix.RIGHT for row, results in found.items())
