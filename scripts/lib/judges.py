# Copyright (c) 2026 QEMU contributors
# SPDX-License-Identifier: GPL-2.0-or-later
"""The tests of the series' C as functions: which lines each of them reaches, and whether it passes on some QEMU.

A test runs on one of the builds: a row of the unit test on this machine, a
scenario on kvm, a case of tests/hcall on tcg.
"""

import difflib
import functools
import hashlib
import itertools
import json
import os
import pathlib
import re
import signal
import subprocess
import tempfile
import time

from lib.relink import JOBS, added_lines, grafted, relink
from lib.system import BUILD, TOP, Error, run, write_whole
from tests.hcall import cases
from tests.kvmsim import machine, scenario as scenarios, steps

UNIT_TEST = 'tests/unit/test-ppc-host-compat.c'
# What the unit test is built from; it needs no QEMU
UNIT_FILES = ('target/ppc/host-compat.c',)
REACHED = BUILD / 'reached.json'
# Without optimization each line is one line
COUNTING = ['--coverage', '-O0', '-U_FORTIFY_SOURCE']
GCOV = {'unit': 'gcov', 'kvm': 'powerpc64le-linux-gnu-gcov', 'tcg': 'gcov'}


class Judge:
    """A test: its name, the build that it is for, what it is made of, and how it is run."""

    def __init__(self, name, build, of, wrong):
        # WRONG(binary, env, patience) says what is wrong, or None
        self.name, self.build, self.wrong = name, build, wrong
        self.key = hashlib.sha256(of.encode()).hexdigest()


def unit_binary(out, overlay, flags=()):
    """The unit test in the folder OUT, with what OVERLAY has instead of our files."""
    out.mkdir(parents=True, exist_ok=True)
    binary = out / 'test-ppc-host-compat'
    libraries = run(['pkg-config', '--cflags', '--libs', 'glib-2.0']).split()
    files = [overlay / name if (overlay / name).exists() else TOP / name for name in (UNIT_TEST, *UNIT_FILES)]
    include = [f'-I{root}{sub}' for root in (overlay, TOP) for sub in ('/target/ppc', '', '/tests/shim')]
    run(['gcc', '-std=gnu11', '-w', *include, *flags, *map(str, files), '-o', str(binary), *libraries], cwd=out)
    return binary


def unit(binary, env, patience=60):
    done = subprocess.run([binary, '--tap', '-k'], env={**os.environ, **env}, stdin=subprocess.DEVNULL, check=False,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=patience)
    bad = re.findall('^not ok .*', done.stdout, re.M)
    return bad[0] if bad else f'exit code {done.returncode}' if done.returncode else None


def on_kvm(scenario, binary, env, patience=None):
    result = steps.perform(scenario, 'patched', binary, env=env, patience=patience)
    return None if result['outcome'] == 'passed' else result['reason'] or result['outcome']


def of_scenario(one):
    """What a scenario is: its settings and steps, wherever they stand."""
    return repr((one.guest, one.mmu, one.source, one.target, [(step.qemu, step.text) for step in one.steps]))


@functools.cache
def judges():
    """All of them, those that take the least time first within a build."""
    found = [Judge('unit', 'unit', ''.join((TOP / name).read_text() for name in (UNIT_TEST, *UNIT_FILES)), unit)]
    for name, one in scenarios.read_all().items():
        found.append(Judge(name, 'kvm', of_scenario(one), functools.partial(on_kvm, one)))
    programs = ''.join(path.read_text() for path in sorted((TOP / 'tests/hcall').iterdir()) if path.is_file())
    for whose, name, check in cases.checks(scratch().name):
        if whose == cases.OURS:
            found.append(Judge(name, 'tcg', name + programs, functools.partial(on_tcg, check)))
    return found


def on_tcg(check, binary, env, patience=None):    # pylint: disable=unused-argument
    return cases.outcome(check, ['env', *(f'{key}={value}' for key, value in env.items()), str(binary)])


@functools.cache
def scratch():
    """A folder for the guests of a few instructions, gone with this process."""
    # pylint: disable-next=consider-using-with
    return tempfile.TemporaryDirectory(prefix='hcall-')


# Which lines a test reaches.

def instrumented(build, out):
    """BUILD of the series (or the unit test) in OUT, which counts how often each line and branch of ours is taken."""
    overlay = out / 'src'
    if build == 'unit':
        return unit_binary(out, overlay, COUNTING)
    return relink(build, out, overlay, COUNTING, link_flags=['--coverage'])


def counted(build, out, home):
    """{file: [gcov's lines]} of what was counted in HOME, of the lines that the series adds."""
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


def reach(judge, binary, out):
    """What JUDGE reaches on an instrumented BINARY in OUT, {file: {line: (times, [times of each branch])}}; seconds."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix='gcov-') as home:
        wrong = judge.wrong(binary, {'GCOV_PREFIX': home, 'GCOV_PREFIX_STRIP': '99'})
        if wrong:
            raise Error(f'{judge.name} fails on the instrumented build: {wrong}')
        found = {}
        for name, rows in counted(judge.build, out, pathlib.Path(home)).items():
            add(found.setdefault(name, {}), {str(row['line_number']): (
                row['count'], [branch['count'] for branch in row['branches']]) for row in rows})
        return found, time.monotonic() - began


def add(lines, more):
    """Add what MORE counts of a file to LINES."""
    for line, (times, branches) in more.items():
        before, taken = lines.get(line, (0, []))
        lines[line] = (before + times, [a + b for a, b in itertools.zip_longest(taken, branches, fillvalue=0)])


def sources():
    """{C file of the series: its text in the grafted tree}"""
    return {name: (grafted().path / name).read_text() for name in added_lines()}


def simulator():
    """What the tests have in common, as a hash."""
    files = sorted(path for path in (TOP / 'tests/kvmsim').iterdir() if path.suffix in ('.c', '.h', '.py'))
    return hashlib.sha256(''.join(path.read_text() for path in files).encode()).hexdigest()


def measured():
    """What was measured last, of whatever sources and tests there were then."""
    return json.loads(REACHED.read_text()) if REACHED.exists() else {}


def reached(anew=False, progress=lambda text: None):
    """What each judge reaches ("files") and its "seconds", measured where that is not known, or all ANEW."""
    now = {'sources': sources(), 'simulator': simulator()}
    # what a line is reached by does not depend on the simulator's inside
    then = {} if anew else measured()
    known = then['judges'] if then.get('sources') == now['sources'] else {}
    known = {judge.name: known[judge.name] for judge in judges() if known.get(judge.name, {}).get('key') == judge.key}
    missing = [judge for judge in judges() if judge.name not in known]
    try:
        measure(missing, known, progress)
    finally:
        write_whole(REACHED, json.dumps({**now, 'judges': known}))
    return known


def measure(missing, known, progress):
    """Put what each of MISSING reaches into KNOWN."""
    machine.END = cases.END = signal.SIGTERM
    with tempfile.TemporaryDirectory(prefix='gcov-') as home, machine.workers(JOBS) as pool:
        home = pathlib.Path(home)
        binaries = {build: instrumented(build, home / build) for build in sorted({judge.build for judge in missing})}
        results = pool.map(lambda judge: reach(judge, binaries[judge.build], home / judge.build), missing)
        try:
            for number, (judge, (files, seconds)) in enumerate(zip(missing, results), 1):
                progress(f'{number} of {len(missing)}: {judge.name}')
                known[judge.name] = {'key': judge.key, 'seconds': seconds, 'files': files}
        finally:
            machine.END = cases.END = signal.SIGKILL


def rate(known):
    """How many lines a test reaches in a second, of what was measured of it; of a new one more than of any other."""
    if not known:
        return float('inf')
    return sum(times > 0 for lines in known['files'].values() for times, _ in lines.values()) / known['seconds']


def changed_lines(old, new):
    """The numbers of the lines of OLD that are not in NEW, or beside which NEW has more."""
    found = set()
    for kind, first, last, _, _ in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if kind != 'equal':
            found |= set(range(first + 1, last + 1)) or {first, first + 1}
    return found


def touched():
    """The judges that are not as they were when it was measured what they reach, or reach what has changed since."""
    then, now = measured(), sources()
    lines = {name: {str(line) for line in changed_lines(text.splitlines(), now.get(name, '').splitlines())}
             for name, text in then.get('sources', {}).items() if text != now.get(name)}
    other = then.get('simulator') != simulator()
    for judge in judges():
        known = then.get('judges', {}).get(judge.name, {})
        reaches = any(known['files'].get(name, {}).get(line, (0,))[0] for name in lines for line in lines[name]) \
            if known else True
        if reaches or known.get('key') != judge.key or (judge.build == 'kvm' and other):
            yield judge, known
