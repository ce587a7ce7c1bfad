# Copyright (c) 2026 QEMU contributors
# SPDX-License-Identifier: GPL-2.0-or-later
"""The page of all runs of the matrix: one HTML file without external parts."""

import collections
import html

from tests.lab.matrix import QEMUS, came_to, complaints, is_right

STYLE = '''
:root { color-scheme: light dark; --good: #1a7f37; --bad: #b42318; --on: #fff; --line: #8886; --soft: #8881; }
@media (prefers-color-scheme: dark) { :root { --good: #57d07c; --bad: #ff8a80; --on: #000; } }
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 80rem; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; }
caption { text-align: left; padding: .5rem 0; }
th, td { border-bottom: 1px solid var(--line); padding: .4rem .6rem; text-align: left; vertical-align: top; }
thead th { position: sticky; top: 0; background: Canvas; }
tbody tr:hover { background: var(--soft); }
.good { color: var(--good); } .bad { color: var(--bad); }
.changed { background: var(--soft); }
summary { cursor: pointer; } pre { overflow-x: auto; max-width: 42rem; max-height: 24rem; font-size: .8rem; }
.odd { outline: 3px solid var(--bad); } small { opacity: .8; }
.scroll { overflow-x: auto; }
[hidden] { display: none !important; }
:focus-visible { outline: 3px solid; outline-offset: 2px; } tr:target { outline: 3px solid; outline-offset: -3px; }
fieldset { display: flex; flex-wrap: wrap; gap: .5rem 1.5rem; align-items: center; border: 1px solid var(--line); }
select, button { font: inherit; min-height: 2rem; max-width: 100%; }
.legend, .hosts, .hosts ul { list-style: none; margin: 0; padding: 0; }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1.5rem; margin-bottom: 1rem; }
.hosts > li { display: grid; grid-template-columns: 15rem 1fr; padding: .2rem 0; }
.hosts > li:not(:has(li:not([hidden]))) { display: none; }
.hosts ul { display: flex; flex-wrap: wrap; gap: .3rem; }
.pair { display: inline-flex; text-decoration: none; font-weight: bold; line-height: 1.6rem;
        print-color-adjust: exact; }
.pair span { width: 1.6rem; text-align: center; color: var(--on); border: 1px solid transparent; }
.pair .good { background: var(--good); } .pair .bad { background: var(--bad); }
@media (max-width: 40rem) { .hosts > li { grid-template-columns: 1fr; } }
'''
# A guest is right if it runs in its host's mode, or if QEMU explains why it cannot
RIGHT, WRONG = ('good', '\u2713 right'), ('bad', '\u2717 wrong')
# Keys: whether a row is right under each of QEMUS
OUTCOMES = {(False, True): 'fixed by the series', (True, True): 'right under both',
            (False, False): 'wrong under both', (True, False): 'wrong only with the series'}
FACETS = {'host': 'host', 'mode': 'mode of the host', 'api': 'nested API', 'outcome': 'outcome'}

# Without JavaScript, the page shows all rows and no filters
SCRIPT = '''
const form = document.forms[0], rows = [...document.querySelectorAll('tbody tr')];
function show() {
  const wanted = [...form.querySelectorAll('select')].filter(choice => choice.value);
  for (const row of rows) {
    row.hidden = !wanted.every(choice => row.dataset[choice.name] === choice.value);
    document.querySelector(`a[href="#${row.id}"]`).parentNode.hidden = row.hidden;
  }
  form.querySelector('output').value = `${rows.filter(row => !row.hidden).length} of ${rows.length} rows shown`;
}
// a link from elsewhere can lead to a hidden row
function reach() {
  const row = document.getElementById(location.hash.slice(1));
  if (row && row.hidden) {
    form.reset();
    show();
    row.scrollIntoView();
  }
}
form.hidden = false;
form.onchange = show;
// the browser resets the choices after the event
form.onreset = () => setTimeout(show);
onhashchange = reach;
show();
'''


def cell(row, qemu, run):
    outcome = came_to(run['result'])
    l2 = run['result']['l2']
    color, word = RIGHT if is_right(row, outcome) else WRONG
    said = complaints(row, run['result'])
    odd = ' class="odd"' if said or outcome != getattr(row, qemu) else ''
    shown = f'{l2["cpu"]} ({l2["cpu_version"]})' if l2['cpu'] else outcome.replace('-', ' ')
    lines = [f'<span class="{color}">{word}</span> {html.escape(shown)}']
    if outcome != getattr(row, qemu):
        lines.append(f'expected {html.escape(getattr(row, qemu))}')
    lines += [html.escape(f'L1 says: {words}') for words in said]
    for step in run['result'].get('do', []):
        lines.append(html.escape(f'{step["do"]} {step["outcome"]}' + (
            f', {step["cpu"]}, {step["wrong"]} corrupt blocks' if step['cpu'] else '')))
    if l2['message']:
        lines.append(f'<small>{html.escape(l2["message"])}</small>')
    log = html.escape('\n'.join(run['log'][-400:]))
    name = html.escape(f'{title(row)}, {qemu}')
    return f'<td{odd}>{"<br>".join(lines)}<details><summary aria-label="console of {name}">console</summary>' \
           f'<pre tabindex="0">{log}</pre></details></td>'


def title(row):
    """The row in words, unique in the table."""
    return ', '.join(filter(None, [row.l1(), row.kvm(), row.guest()]))


def verdict(row, cells):
    """Whether the row is right, for each of QEMUS."""
    return tuple(is_right(row, came_to(cells[qemu]['result'])) for qemu in QEMUS)


def symbols(verdicts):
    return ''.join(f'<span class="{color}">{word[0]}</span>' for color, word in (
        RIGHT if right else WRONG for right in verdicts))


def facets(row, cells):
    """The values by which the page can be filtered."""
    return {'host': row.host, 'mode': row.mode(), 'api': row.api, 'outcome': OUTCOMES[verdict(row, cells)]}


def filters(runs):
    """A selection for each of FACETS, with the values that occur."""
    for key, label in FACETS.items():
        values = dict.fromkeys(facets(*run)[key] for run in runs)
        options = ''.join(f'<option>{value}</option>' for value in values)
        yield f'<label>{label} <select name="{key}"><option value="">all</option>{options}</select></label>'


def legend(runs):
    counts = collections.Counter(verdict(*run) for run in runs)
    for verdicts, words in OUTCOMES.items():
        if counts[verdicts]:
            yield f'<li><span class="pair">{symbols(verdicts)}</span> {words}: {counts[verdicts]}</li>'


def overview(runs):
    """One line for each host, with a link to each of its rows."""
    hosts = {}
    for row, cells in runs:
        name = html.escape(f'{title(row)}: {OUTCOMES[verdict(row, cells)]}')
        hosts.setdefault(row.l1(), []).append(
            f'<li><a class="pair" href="#{row.slug()}" aria-label="{name}" title="{name}">'
            f'{symbols(verdict(row, cells))}</a></li>')
    for host, links in hosts.items():
        yield f'<li><span>{html.escape(host)}</span><ul>{"".join(links)}</ul></li>'


def table_row(row, cells):
    changed = came_to(cells['distro']['result']) != came_to(cells['patched']['result'])
    data = ''.join(f' data-{key}="{value}"' for key, value in facets(row, cells).items())
    return f'<tr id="{row.slug()}"{data}{" class=changed" if changed else ""}>' \
           f'<th scope="row">{html.escape(row.l1())}</th>' \
           f'<td>{row.kvm()}</td><td>{html.escape(row.guest())}</td>' \
           + ''.join(cell(row, qemu, cells[qemu]) for qemu in QEMUS) + \
           f'<td>{html.escape(row.why)}</td></tr>'


def page(runs):
    """The page for RUNS, [(row, {qemu: {'result', 'log'}})]."""
    fixed = sum(verdict(*run) == (False, True) for run in runs)
    versions = sorted({cells[qemu]['result']['l1']['kernel'] for _, cells in runs for qemu in QEMUS})
    return f'''<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<!-- SPDX-License-Identifier: GPL-2.0-or-later -->
<title>Guests on POWER hosts in an older CPU mode</title><style>{STYLE}</style></head><body>
<h1>Guests on POWER hosts in an older CPU mode</h1>
<p><strong>{fixed} of {len(runs)} rows</strong> are wrong under Debian&rsquo;s QEMU and right with the series.
Kernels: {html.escape(", ".join(versions))}.</p>
<form hidden autocomplete="off"><fieldset><legend>Filter the rows</legend>
{chr(10).join(filters(runs))}
<button type="reset">Show all</button> <output></output></fieldset></form>
<h2 id="overview">Overview</h2>
<p>Each cell is a link to its row of <a href="#matrix">the table</a>. The first symbol is for Debian&rsquo;s QEMU, the
second for the series.</p>
<ul class="legend">{"".join(legend(runs))}</ul>
<ul class="hosts">
{chr(10).join(overview(runs))}
</ul>
<h2 id="matrix">Every row</h2>
<div class="scroll" tabindex="0" role="region" aria-labelledby="matrix">
<table><caption>Each guest was started with <code>-accel kvm</code> on its host, under both QEMUs.
Shaded rows differ.</caption>
<thead><tr><th scope="col">KVM host (L1)</th><th scope="col">nested API, kernel</th>
<th scope="col">guest&rsquo;s options</th><th scope="col">Debian&rsquo;s QEMU</th><th scope="col">with the series</th>
<th scope="col">why</th></tr>
</thead><tbody>
{chr(10).join(table_row(*run) for run in runs)}
</tbody></table></div><script>{SCRIPT}</script></body></html>
'''
