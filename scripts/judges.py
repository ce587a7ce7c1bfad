# SPDX-License-Identifier: GPL-2.0-or-later
"""The tests of the series' C as functions: which lines each of them reaches, and whether it passes on some QEMU.

A test runs on one of the builds: a row of the unit test on this machine, a
scenario on kvm, a case of tests/hcall on tcg.
"""

import concurrent.futures
import functools
import hashlib
import itertools
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time

from debian import BUILD, TOP, Error, run
from patches import BASE_REF
from relink import JOBS, added_lines, grafted, relink

for room in ('kvmsim', 'hcall'):
    sys.path.append(str(TOP / 'tests' / room))

# pylint: disable=wrong-import-position
import cases                                    # noqa: E402
import machine                                  # noqa: E402
import scenario as scenarios                    # noqa: E402
import steps                                    # noqa: E402

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
    sources = ''.join(path.read_text() for path in sorted((TOP / 'tests/hcall').iterdir()) if path.is_file())
    for whose, name, check in cases.checks(scratch().name):
        if whose == cases.OURS:
            found.append(Judge(name, 'tcg', name + sources, functools.partial(on_tcg, check)))
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


def state():
    """What was measured has to be measured again if this changes."""
    texts = [grafted().git('diff', '--no-renames', BASE_REF)]
    texts += [path.read_text() for path in sorted((TOP / 'tests/kvmsim').iterdir())
              if path.suffix in ('.c', '.h', '.py')]
    return hashlib.sha256(''.join(texts).encode()).hexdigest()


def reached(anew=False, progress=lambda text: None):
    """What each judge reaches ("files") and its "seconds", measured where that is not known, or all ANEW."""
    known = json.loads(REACHED.read_text()) if REACHED.exists() and not anew else {}
    known = known.get('judges', {}) if known.get('state') == state() else {}
    known = {judge.name: known[judge.name] for judge in judges()
             if known.get(judge.name, {}).get('key') == judge.key}
    missing = [judge for judge in judges() if judge.name not in known]
    machine.END = cases.END = signal.SIGTERM
    with tempfile.TemporaryDirectory(prefix='gcov-') as home, concurrent.futures.ThreadPoolExecutor(JOBS) as pool:
        home = pathlib.Path(home)
        binaries = {build: instrumented(build, home / build) for build in sorted({judge.build for judge in missing})}
        measured = pool.map(lambda judge: reach(judge, binaries[judge.build], home / judge.build), missing)
        try:
            for number, (judge, (files, seconds)) in enumerate(zip(missing, measured), 1):
                progress(f'{number} of {len(missing)}: {judge.name}')
                known[judge.name] = {'key': judge.key, 'seconds': seconds, 'files': files}
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            machine.end_all()
            raise
    machine.END = cases.END = signal.SIGKILL
    half = REACHED.with_suffix('.part')
    half.write_text(json.dumps({'state': state(), 'judges': known}))
    half.rename(REACHED)
    return known
