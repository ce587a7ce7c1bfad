# SPDX-License-Identifier: GPL-2.0-or-later
"""The page of all runs of the matrix, from the template page.html: one file without external parts."""

import collections
import pathlib
import string
from html import escape

from tests.lab.matrix import CANNOT, RIGHT, WRONG, outcome_of, complaints, title

TEMPLATE = pathlib.Path(__file__).with_name('page.html')
CHANGED, ODD = ' class="changed"', ' class="odd"'
MARKS = {RIGHT: '\u2713', WRONG: '\u2717', CANNOT: '\u2013'}


def name(row):
    """The row in words, unique in the table."""
    return ', '.join(filter(None, [row.l1(), row.kvm(), row.guest()]))


def verdicts(row, results):
    """{QEMU: whether the row is right with it}"""
    return {qemu: row.verdict(outcome_of(result)) for qemu, result in results.items()}


def cell(row, qemu, result):
    outcome, l2 = outcome_of(result), result['l2']
    said, word, expected = complaints(row, result), row.verdict(outcome), row.expected(qemu) or outcome
    shown = f'{l2["cpu"]} ({l2["cpu_version"]})' if l2['cpu'] else outcome.replace('-', ' ')
    lines = [f'<span class="{word}">{MARKS[word]} {word}</span> {escape(shown)}']
    lines += [f'expected {escape(expected)}'] if outcome != expected else []
    lines += [escape(f'L1 says: {words}') for words in said]
    for step in result.get('do', []):
        lines.append(escape(f'{step["do"]} {step["outcome"]}' + (
            f', {step["cpu"]}, {step["wrong"]} corrupt blocks' if step['cpu'] else '')))
    lines += [f'<small>{escape(l2["message"])}</small>'] if l2['message'] else []
    return f'<td{ODD if said or outcome != expected else ""}>{"<br/>".join(lines)}</td>'


def table_row(row, results, consoles):
    changed = len({outcome_of(result) for result in results.values()}) > 1
    link = f'<a href="{escape(consoles)}" aria-label="consoles of {escape(name(row))}">consoles</a>'
    return f'<tr id="{row.slug()}"{CHANGED if changed else ""}>' \
           f'<th scope="row">{row.l1()}<br/><small>{link}</small></th>' \
           f'<td>{row.kvm()}</td><td>{escape(row.guest())}</td>' \
           + ''.join(cell(row, qemu, result) for qemu, result in results.items()) + f'<td>{escape(row.why)}</td></tr>'


def overview(runs):
    """One line for each host, with a link to each of its rows."""
    hosts = {}
    for row, results, _ in runs:
        found = verdicts(row, results)
        words = escape(f'{name(row)}: ' + ', '.join(f'{qemu}: {word}' for qemu, word in found.items()))
        marks = ''.join(f'<span class="{word}">{MARKS[word]}</span>' for word in found.values())
        hosts.setdefault(row.l1(), []).append(
            f'<li><a class="marks" href="#{row.slug()}" aria-label="{words}" title="{words}">{marks}</a></li>')
    for host, links in hosts.items():
        yield f'<li><span>{host}</span><ul>{"".join(links)}</ul></li>'


def in_list(changed):
    """CHANGED, of matrix.changes(), with links to the rows."""
    lines = [f'<li><a href="#{row.slug()}">{escape(name(row))}</a>, {escape(qemu)}: {old}, now {new}</li>'
             for row, qemu, old, new in changed]
    return f'<h2>Changed since the earlier run</h2><ul id="changes">{"".join(lines)}</ul>' if lines else ''


def page(runs, changed=()):
    """The page for RUNS, [(row, {QEMU: result}, the file with its consoles)], and what matrix.changes() found."""
    results = [result for _, found, _ in runs for result in found.values()]
    versions = {qemu: result['l1']['qemu'] for _, found, _ in runs for qemu, result in found.items()}
    right = collections.Counter(
        qemu for row, found, _ in runs for qemu, word in verdicts(row, found).items() if word == RIGHT)
    return string.Template(TEMPLATE.read_text()).substitute(
        counts=escape(', '.join(f'{title(qemu)}: {right[qemu]} of {len(runs)} rows right' for qemu in versions)),
        kernels=escape(', '.join(sorted({result['l1']['kernel'] for result in results}))),
        changes=in_list(changed), order=escape(', '.join(map(title, versions))), overview='\n'.join(overview(runs)),
        heads=''.join(f'<th scope="col">{escape(title(qemu))}<br/><small>{escape(version)}</small></th>'
                      for qemu, version in versions.items()),
        rows='\n'.join(table_row(*run) for run in runs))
