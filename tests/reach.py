# SPDX-License-Identifier: GPL-2.0-or-later
"""The tests of the series' C code as functions: the lines that each test reaches, and whether it passes.

Each test runs on one build: a scenario on kvm, a case of tests/hcall on tcg.
"""

import difflib
import functools
import hashlib
import itertools
import json
import pathlib
import re
import signal
import tempfile
import time
from typing import Callable, NamedTuple

from scripts.lib.system import BUILD, TOP, Error, run, say, workers, write_whole
from tests.hcall import cases
from tests.kvmsim import machine, scenario as scenarios, steps
from tests.relink import JOBS, added_lines, grafted, relink

REACHED = BUILD / 'reached.json'
REASONS = TOP / 'tests/reasons.txt'
# Optimization would merge lines
COUNTING = ['--coverage', '-O0', '-U_FORTIFY_SOURCE']
GCOV = {'kvm': 'powerpc64le-linux-gnu-gcov', 'tcg': 'gcov'}


class Test(NamedTuple):
    """A test: WRONG(binary, environment, patience) runs it on BUILD, and returns what is wrong, or None."""
    name: str
    build: str
    key: str
    wrong: Callable


def on_kvm(scenario, binary, env, patience=None):
    return steps.perform(scenario, 'patched', binary, env=env, patience=patience).reason or None


# pylint: disable-next=unused-argument
def on_tcg(check, binary, env, patience=None):
    # a case knows how long it may take
    return cases.outcome(check, ['env', *(f'{key}={value}' for key, value in env.items()), str(binary)])


@functools.cache
def every():
    """All tests: the scenarios, the cases of tests/hcall."""
    def key(*parts):
        return hashlib.sha256(repr(parts).encode()).hexdigest()
    found = []
    for name, one in scenarios.read_all().items():
        same = key(one.guest, one.mmu, one.source, one.target, [(step.qemu, step.text) for step in one.steps])
        found.append(Test(name, 'kvm', same, functools.partial(on_kvm, one)))
    programs = [path.read_text() for path in sorted((TOP / 'tests/hcall').iterdir()) if path.is_file()]
    for whose, name, check in cases.checks(scratch().name):
        if whose == cases.OURS:
            found.append(Test(name, 'tcg', key(name, programs), functools.partial(on_tcg, check)))
    return found


@functools.cache
def scratch():
    """A directory for the guests of tests/hcall, removed when this process ends."""
    # pylint: disable-next=consider-using-with
    return tempfile.TemporaryDirectory(prefix='hcall-')


def counted(build, out, home):
    """{file: [gcov's lines]} of the counts in HOME, only for lines that the series adds."""
    if not any(home.glob('*.gcda')):
        return {}
    for notes in out.glob('*.gcno'):
        (home / notes.name).symlink_to(notes)
    told = run([GCOV[build], '--json-format', '--stdout', '--branch-probabilities',
                *(path.name for path in home.glob('*.gcda'))], cwd=home)
    found = {}
    for line in told.splitlines():
        for entry in json.loads(line)['files']:
            name = next((name for name in added_lines() if entry['file'].endswith('/' + name)), None)
            if name:
                found.setdefault(name, []).extend(row for row in entry['lines']
                                                  if row['line_number'] in added_lines()[name])
    return found


def reach(test, binary, out):
    """Run TEST on an instrumented BINARY in OUT: {file: {line: (times, [times of each branch])}}, and seconds."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix='gcov-') as home:
        wrong = test.wrong(binary, {'GCOV_PREFIX': home, 'GCOV_PREFIX_STRIP': '99'})
        if wrong:
            raise Error(f'{test.name} fails on the instrumented build: {wrong}')
        found = {}
        for name, rows in counted(test.build, out, pathlib.Path(home)).items():
            add(found.setdefault(name, {}), {str(row['line_number']): (
                row['count'], [branch['count'] for branch in row['branches']]) for row in rows})
        return found, time.monotonic() - began


def add(lines, more):
    for line, (times, branches) in more.items():
        before, taken = lines.get(line, (0, []))
        lines[line] = (before + times, [a + b for a, b in itertools.zip_longest(taken, branches, fillvalue=0)])


def sources():
    """{C file of the series: its text in the grafted tree}"""
    return {name: (grafted().path / name).read_text() for name in added_lines()}


def measured():
    """The last measurement; its sources and tests can be older than today's."""
    return json.loads(REACHED.read_text()) if REACHED.exists() else {}


def reached(again=False):
    """What each test reaches ("files") and its "seconds"; measures all if AGAIN, or else what is unknown."""
    now, then = sources(), {} if again else measured()
    known = then['tests'] if then.get('sources') == now else {}
    known = {test.name: known[test.name] for test in every() if known.get(test.name, {}).get('key') == test.key}
    missing = [test for test in every() if test.name not in known]
    try:
        measure(missing, known)
    finally:
        write_whole(REACHED, json.dumps({'sources': now, 'tests': known}))
    return known


def measure(missing, known):
    """Measure what each test in MISSING reaches, and add it to KNOWN."""
    machine.END = cases.END = signal.SIGTERM
    with tempfile.TemporaryDirectory(prefix='gcov-') as home, workers(JOBS, machine.interrupted.set) as pool:
        places = {build: pathlib.Path(home, build) for build in sorted({test.build for test in missing})}
        binaries = {build: relink(build, place, place / 'src', COUNTING, link_flags=['--coverage'])
                    for build, place in places.items()}
        results = pool.map(lambda test: reach(test, binaries[test.build], places[test.build]), missing)
        try:
            for number, (test, (files, seconds)) in enumerate(zip(missing, results), 1):
                say(f'{number} of {len(missing)}: {test.name}')
                known[test.name] = {'key': test.key, 'seconds': seconds, 'files': files}
        finally:
            machine.END = cases.END = signal.SIGKILL


def changed_lines(old, new):
    """The numbers of the lines of OLD that NEW lacks, or next to which NEW adds lines."""
    found = set()
    for kind, first, last, _, _ in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if kind != 'equal':
            found |= set(range(first + 1, last + 1)) or {first, first + 1}
    return found


def touched():
    """The tests that changed since the last measurement, and those that reach a line that changed, shortest first."""
    then, now, found = measured(), sources(), []
    lines = {name: {str(line) for line in changed_lines(text.splitlines(), now.get(name, '').splitlines())}
             for name, text in then['sources'].items() if text != now.get(name)}
    for test in every():
        known = then['tests'].get(test.name, {})
        if known.get('key') != test.key:
            found.append((0, test))
        elif any(known['files'].get(name, {}).get(line, (0,))[0] for name in lines for line in lines[name]):
            found.append((known['seconds'], test))
    return [test for _, test in sorted(found, key=lambda row: row[0])]


@functools.cache
def reasons():
    """{(file, text of a line): {mutant of the line, or '' for its branches: reason}} from tests/reasons.txt"""
    found = {}
    for entry, reason in re.findall(r'((?:^\w.*\n|^ +(?! |because ).*\n)+) +because (.*)', REASONS.read_text(), re.M):
        for places, mutants in re.findall(r'((?:^\S.*\n)+)((?:^ .*\n)*)', entry, re.M):
            for name, _, text in (place.partition(': ') for place in places.splitlines()):
                found.setdefault((name, text), {}).update(
                    dict.fromkeys([line.strip() for line in mutants.splitlines()] or [''], reason))
    return found
