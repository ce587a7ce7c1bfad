# SPDX-License-Identifier: GPL-2.0-or-later
"""Results of checks, as TAP (the Test Anything Protocol) for meson, and as one line."""

from typing import NamedTuple

from scripts.lib.system import Error

KINDS = ('passed', 'failed', 'skipped')


class Skip(Exception):
    """Says why a check cannot run here."""


class Point(NamedTuple):
    """The result of a check: its name, what is wrong, why it was skipped, what is worth a note."""
    name: str
    wrong: str = ''
    skip: str = ''
    note: str = ''

    @property
    def kind(self):
        return 'skipped' if self.skip else 'failed' if self.wrong else 'passed'


def point(name, check, *args):
    """Run CHECK(*ARGS), which returns a note or nothing, and return a Point; an Error says what is wrong."""
    try:
        return Point(name, note=check(*args) or '')
    except Skip as e:
        return Point(name, skip=str(e))
    except (Error, OSError) as e:
        return Point(name, str(e))


def report(points):
    """Print each of POINTS as TAP when it is known; return {kind: how many}."""
    counts = dict.fromkeys(KINDS, 0)
    for number, one in enumerate(points, 1):
        counts[one.kind] += 1
        why = f' # SKIP {one.skip}' if one.skip else ''
        line = f'{"not " if one.wrong else ""}ok {number} - {one.name}{one.note and ": "}{one.note}{why}'
        print('\n'.join([line, *(f'# {words}' for words in one.wrong.splitlines() if words)]), flush=True)
    print(f'1..{sum(counts.values())}', flush=True)
    return counts


def tally(counts):
    return ', '.join(f'{counts[kind]} {kind}' for kind in KINDS)
