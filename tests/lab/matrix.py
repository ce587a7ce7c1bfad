# SPDX-License-Identifier: GPL-2.0-or-later
"""The rows of matrix.table, and what a run came to."""

import itertools
import json
import pathlib
import re
from typing import NamedTuple

from scripts.lib.system import Unknown

TABLE = pathlib.Path(__file__).resolve().parent / 'matrix.table'
LOGICAL = {0x0f000004: 'power8', 0x0f000005: 'power9', 0x0f000006: 'power10', 0x0f000007: 'power11'}
# The QEMUs that the table has an expected outcome for
QEMUS = ('distro', 'patched')
RIGHT, WRONG, CANNOT = 'right', 'wrong', 'cannot'
SEVERAL = ('api', 'kernel', 'pages')


def title(qemu):
    """A QEMU in words."""
    return {'distro': "Debian's QEMU", 'patched': 'with the series', 'upstream': "upstream's version"}.get(
        qemu, qemu if '/' in qemu else f'Debian {qemu}')


def limit(compat, words='{} mode'):
    """A host's mode, formatted with WORDS."""
    return 'not limited' if compat == 'none' else words.format(compat)


class Row(NamedTuple):
    """A row of the table; the columns are described there."""
    tags: str
    host: str
    compat: str
    api: str
    kernel: str
    pages: str
    l0: str
    extra: str
    patched: str
    distro: str
    why: str

    def options(self):
        """The row as options of "scripts/lab run"."""
        words = [word for key in Row._fields[1:7] for word in (f'--{key}', getattr(self, key))]
        return words + ([] if self.extra == '-' else self.extra.split('+'))

    def guest(self):
        """The options of L2's QEMU, without -accel kvm."""
        text = '' if self.extra == '-' else self.extra
        for option, words in (('--l2-machine+', ''), ('--l2-cpu+', '-cpu '), ('--l1-smp+', 'L1: -smp '),
                              ('--smp+', '-smp '), ('--memory+', '-m '), ('--virtio', 'virtio disk and network'),
                              ('--l2-kernel+', 'L2: Linux of '), ('--l2-append+', 'L2: '), ('--do+', 'then '),
                              ('--to+', 'to '), ('--l0-stack+', 'L0: Linux on '), ('+', ' ')):
            text = text.replace(option, words)
        return text

    def l1(self):
        return f'{self.host}, {limit(self.compat)}'

    def kvm(self):
        checks = ', L0 that checks' if self.l0 == 'patched' else ''
        return f'{self.api}, {self.kernel} kernel, {self.pages} pages{checks}'

    def slug(self):
        """The row's name in links and of files."""
        return '-'.join(['row', *re.findall('[a-z0-9]+', ' '.join(self.options()))])

    def verdict(self, outcome):
        """Whether OUTCOME is what a user wants, as our QEMU's is; or QEMU is too old for the host."""
        return RIGHT if outcome == self.patched else CANNOT if outcome == 'cannot' else WRONG

    def expected(self, qemu):
        """The expected outcome with QEMU, or None if the table has none."""
        return getattr(self, qemu) if qemu in QEMUS else None


def rows(tag=None):
    """The rows of matrix.table, or those with TAG."""
    found = {}
    for number, line in enumerate(TABLE.read_text().splitlines(), 1):
        if not line.strip() or line.startswith('#'):
            continue
        fields = line.split(None, len(Row._fields) - 1)
        if len(fields) != len(Row._fields):
            raise Unknown(f'{TABLE.name}:{number}: a row needs the fields {" ".join(Row._fields)}')
        several = Row(*fields)
        for values in itertools.product(*(getattr(several, key).split(',') for key in SEVERAL)):
            row = several._replace(**dict(zip(SEVERAL, values)))
            if found.setdefault(row.slug(), row) is not row:
                raise Unknown(f'{TABLE.name}:{number}: this row exists already: change its options, or remove it')
    return [row for row in found.values() if not tag or tag in row.tags.split(',')]


def select(table, expression):
    """The rows that match EXPRESSION: key=value, joined by commas."""
    # a value can contain commas: --smp+4,threads=2
    for condition in filter(None, re.split(f',(?=(?:{"|".join(Row._fields)})=)', expression or '')):
        key, equal, value = condition.partition('=')
        if not equal or key not in Row._fields:
            raise Unknown(f'--only {condition}: write key=value, where key is one of {", ".join(Row._fields)}')
        table = [row for row in table if value == getattr(row, key) or key == 'tags' and value in row.tags.split(',')]
    if not table:
        raise Unknown(f'--only {expression}: no row matches; scripts/lab matrix runs all rows')
    return table


def outcome_of(result):
    """The outcome of a run in the words of the table."""
    l2 = result['l2']
    if l2['outcome'] != 'booted':
        return l2['outcome']
    name, last = 'booted', l2
    if 'do' in result:
        last = result['do'][-1]
        name = last['do']
        if last['outcome'] != 'done':
            return f'{name}-{last["outcome"]}'
    return f'{name}:' + LOGICAL.get(int(last['cpu_version'] or '0', 16), 'raw')


def changes(found, earlier):
    """(row, QEMU, earlier outcome, new outcome) where FOUND and EARLIER, {row: {QEMU: result}}, differ."""
    before = {row.slug(): results for row, results in earlier.items()}
    for row, results in found.items():
        for qemu, result in results.items():
            old = before.get(row.slug(), {}).get(qemu)
            if old and outcome_of(old) != outcome_of(result):
                yield row, qemu, outcome_of(old), outcome_of(result)


def load(file):
    """The results that "matrix --json" wrote to FILE: {row: {QEMU: result}}"""
    try:
        rows_there = json.loads(pathlib.Path(file).read_text())
        return {Row(**{key: row[key] for key in Row._fields}): row['runs'] for row in rows_there}
    except (OSError, ValueError, KeyError, TypeError):
        raise Unknown(f'{file} has no results that "scripts/lab matrix --json" wrote: choose such a file') from None


def complaints(row, result):
    """The errors that KVM in L1 logs about our L0, which must have none."""
    # if L0 refused a vCPU, KVM rightly logs that it cannot run
    return [] if row.l0 != 'patched' or result['l2']['outcome'] == 'guest-wide-elements' else result['l1']['complaints']
