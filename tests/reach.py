# Copyright (c) 2026 QEMU contributors
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
import signal
import tempfile
import time

from scripts.lib.system import BUILD, TOP, Error, run, write_whole
from tests.hcall import cases
from tests.kvmsim import machine, scenario as scenarios, steps
from tests.relink import JOBS, added_lines, grafted, relink

REACHED = BUILD / 'reached.json'
# Optimization would merge lines
COUNTING = ['--coverage', '-O0', '-U_FORTIFY_SOURCE']
GCOV = {'kvm': 'powerpc64le-linux-gnu-gcov', 'tcg': 'gcov'}


class Test:
    """A test: its name, its build, a hash of its content, and a function that runs it."""

    def __init__(self, name, build, of, wrong):
        # WRONG(binary, env, patience) returns what is wrong, or None
        self.name, self.build, self.wrong = name, build, wrong
        self.key = hashlib.sha256(of.encode()).hexdigest()


def on_kvm(scenario, binary, env, patience=None):
    result = steps.perform(scenario, 'patched', binary, env=env, patience=patience)
    return None if result['outcome'] == 'passed' else result['reason'] or result['outcome']


def of_scenario(one):
    """The settings and steps of a scenario, regardless of its file and position."""
    return repr((one.guest, one.mmu, one.source, one.target, [(step.qemu, step.text) for step in one.steps]))


@functools.cache
def every():
    """All tests: the scenarios, the cases of tests/hcall."""
    found = []
    for name, one in scenarios.read_all().items():
        found.append(Test(name, 'kvm', of_scenario(one), functools.partial(on_kvm, one)))
    programs = ''.join(path.read_text() for path in sorted((TOP / 'tests/hcall').iterdir()) if path.is_file())
    for whose, name, check in cases.checks(scratch().name):
        if whose == cases.OURS:
            found.append(Test(name, 'tcg', name + programs, functools.partial(on_tcg, check)))
    return found


# pylint: disable-next=unused-argument
def on_tcg(check, binary, env, patience=None):
    # a case knows how long it may take
    return cases.outcome(check, ['env', *(f'{key}={value}' for key, value in env.items()), str(binary)])


@functools.cache
def scratch():
    """A directory for the guests of tests/hcall, removed when this process ends."""
    # pylint: disable-next=consider-using-with
    return tempfile.TemporaryDirectory(prefix='hcall-')


def instrumented(build, out):
    """Build BUILD in OUT with counters for the lines and branches of the series."""
    return relink(build, out, out / 'src', COUNTING, link_flags=['--coverage'])


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
    """Add the counts in MORE to LINES."""
    for line, (times, branches) in more.items():
        before, taken = lines.get(line, (0, []))
        lines[line] = (before + times, [a + b for a, b in itertools.zip_longest(taken, branches, fillvalue=0)])


def sources():
    """{C file of the series: its text in the grafted tree}"""
    return {name: (grafted().path / name).read_text() for name in added_lines()}


def simulator():
    """A hash of the simulator, which all scenarios share."""
    files = sorted(path for path in (TOP / 'tests/kvmsim').iterdir() if path.suffix in ('.c', '.h', '.py'))
    return hashlib.sha256(''.join(path.read_text() for path in files).encode()).hexdigest()


def measured():
    """The last measurement; its sources and tests can be older than today's."""
    return json.loads(REACHED.read_text()) if REACHED.exists() else {}


def reached(again=False, progress=lambda text: None):
    """What each test reaches ("files") and its "seconds"; measures all if AGAIN, or else what is unknown."""
    now = {'sources': sources(), 'simulator': simulator()}
    # keep what is known if only the simulator changed: its internals hardly affect which lines a test reaches
    then = {} if again else measured()
    known = then.get('tests', {}) if then.get('sources') == now['sources'] else {}
    known = {test.name: known[test.name] for test in every() if known.get(test.name, {}).get('key') == test.key}
    missing = [test for test in every() if test.name not in known]
    try:
        measure(missing, known, progress)
    finally:
        write_whole(REACHED, json.dumps({**now, 'tests': known}))
    return known


def measure(missing, known, progress):
    """Measure what each test in MISSING reaches, and add it to KNOWN."""
    machine.END = cases.END = signal.SIGTERM
    with tempfile.TemporaryDirectory(prefix='gcov-') as home, machine.workers(JOBS) as pool:
        home = pathlib.Path(home)
        binaries = {build: instrumented(build, home / build) for build in sorted({test.build for test in missing})}
        results = pool.map(lambda test: reach(test, binaries[test.build], home / test.build), missing)
        try:
            for number, (test, (files, seconds)) in enumerate(zip(missing, results), 1):
                progress(f'{number} of {len(missing)}: {test.name}')
                known[test.name] = {'key': test.key, 'seconds': seconds, 'files': files}
        finally:
            machine.END = cases.END = signal.SIGKILL


def rate(known):
    """The lines that a test reaches per second, from its measurement KNOWN; a new test comes first."""
    if not known:
        return float('inf')
    return sum(times > 0 for lines in known['files'].values() for times, _ in lines.values()) / known['seconds']


def changed_lines(old, new):
    """The numbers of the lines of OLD that NEW lacks, or next to which NEW adds lines."""
    found = set()
    for kind, first, last, _, _ in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if kind != 'equal':
            found |= set(range(first + 1, last + 1)) or {first, first + 1}
    return found


def touched():
    """The tests that changed since the last measurement, or that reach a line that changed."""
    then, now = measured(), sources()
    lines = {name: {str(line) for line in changed_lines(text.splitlines(), now.get(name, '').splitlines())}
             for name, text in then.get('sources', {}).items() if text != now.get(name)}
    other = then.get('simulator') != simulator()
    for test in every():
        known = then.get('tests', {}).get(test.name, {})
        reaches = any(known['files'].get(name, {}).get(line, (0,))[0] for name in lines for line in lines[name]) \
            if known else True
        if reaches or known.get('key') != test.key or (test.build == 'kvm' and other):
            yield test, known
