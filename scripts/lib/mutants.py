# Copyright (c) 2026 QEMU contributors
# SPDX-License-Identifier: GPL-2.0-or-later
"""Faults in the C code of the series, and whether a test fails for each."""

import collections
import concurrent.futures
import functools
import pathlib
import re
import tempfile
import threading

from lib import ctests, mutate
from lib.git import BASE_REF
from lib.queue import entries, queue
from lib.relink import added_lines, grafted, relink
from lib.stanzas import read_stanzas
from lib.system import TOP, Error, Unknown, say
from tests.kvmsim import machine

EQUIVALENT = TOP / 'tests/mutants.cfg'
# Seconds.  Most tests take one: a test hangs if it takes this long and five times its usual time
PATIENCE = 30
# How many lines on each side of a fault count when the tests are ordered
AROUND = 30
KEYS = ('file', 'function', 'line', 'change')
FLAGS = ['-O1', '-w', '-U_FORTIFY_SOURCE']


class Fault:
    """A fault, the builds that contain it, and the test that detected it."""

    def __init__(self, number, edit, builds):
        self.number, self.edit, self.builds = number, edit, builds
        self.killer = None

    def __str__(self):
        return f'{self.edit.file}:{self.edit.line}: {self.edit.change}'

    @property
    def key(self):
        """The values of KEYS that identify the fault in tests/mutants.cfg."""
        line = ' '.join(source(self.edit.file)[self.edit.line - 1].split())
        return self.edit.file, self.edit.function or 'none', line, self.edit.change


@functools.cache
def source(name):
    return (grafted().path / name).read_text().splitlines()


def all_faults():
    """Every fault, numbered, with the builds that it is compiled in."""
    inside, outside = mutate.faults()
    found = collections.defaultdict(set)
    for build, files in inside.items():
        for edits, _ in files.values():
            for edit in edits:
                found[edit].add(build)
    for edit in outside:
        found[edit] = {*mutate.CLANG}
    ordered = sorted(found, key=lambda edit: (edit.file, edit.line, edit.start, edit.end, edit.text))
    return [Fault(number, edit, found[edit]) for number, edit in enumerate(ordered, 1)]


def topic_of():
    """{(file, line): topic}, for lines that are committed in the grafted tree."""
    tree, found = grafted(), {}
    commits = tree.git('rev-list', '--reverse', f'{BASE_REF}..HEAD').split()
    topics = dict(zip(commits, (entry.topic for entry in entries(queue().values()))))
    for name in added_lines():
        for line in tree.git('blame', '-s', '-l', 'HEAD', '--', name).splitlines():
            commit, number = re.match(r'\^?(\w+)(?: \S+)? +(\d+)\)', line).groups()
            found[name, int(number)] = topics.get(commit)
    return found


def chosen(faults, only):
    """The FAULTS in ONLY: a file, FILE:LINE, or a topic."""
    if not only:
        return faults
    name, _, line = only.partition(':')
    if name in added_lines() and (line.isdigit() or not line):
        return [fault for fault in faults if fault.edit.file == name and line in ('', str(fault.edit.line))]
    if only in queue():
        topics = topic_of()
        return [fault for fault in faults if topics.get((fault.edit.file, fault.edit.line)) == only]
    raise Unknown(f'{only} is not a topic, FILE or FILE:LINE: choose one of {", ".join(queue())}, '
                  f'{", ".join(sorted(added_lines()))}')


def equivalents(faults):
    """The faults that tests/mutants.cfg lists; each stanza must match one."""
    found = set()
    for name, stanza in read_stanzas(EQUIVALENT, (*KEYS, 'reason')).items():
        same = {fault for fault in faults if fault.key == tuple(stanza[key] for key in KEYS)}
        if not same:
            raise Error(f'{EQUIVALENT.relative_to(TOP)}: [{name}] matches no mutant: remove it, or correct it')
        found |= same
    return found


class Lines:
    """Which tests reach a line."""

    def __init__(self):
        self.reached = ctests.reached(progress=say)
        self.known, self.tests = collections.defaultdict(set), collections.Counter()
        for test in self.reached.values():
            for name, lines in test['files'].items():
                self.known[name] |= {int(line) for line in lines}
                self.tests.update((name, line) for line, (times, _) in lines.items() if times)

    def reaching(self, fault):
        """The tests that can detect FAULT."""
        edit = fault.edit
        near = self.near(edit)
        for test in ctests.every():
            lines = self.reached[test.name]['files'].get(edit.file, {})
            if test.build in fault.builds and (
                    edit.file.endswith('.h') or any(lines.get(str(line), (0,))[0] for line in near)):
                yield test

    def near(self, edit):
        """The fault's line and the first line of its statement, or else the nearest ones that gcov counts.

        Outside of functions, all lines of the file.
        """
        known = self.known[edit.file]
        if edit.function is None:
            return known
        if known & {edit.line, edit.top}:
            return known & {edit.line, edit.top}
        before, after = [line for line in known if line < edit.line], [line for line in known if line > edit.line]
        return [*([max(before)] if before else []), *([min(after)] if after else [])]


class Order:
    """The order of the tests: first those that detected faults in the function, then by rarity()."""

    def __init__(self, lines):
        self.lines, self.lock, self.counts = lines, threading.Lock(), collections.defaultdict(collections.Counter)
        self.seconds = {name: test['seconds'] for name, test in lines.reached.items()}

    def rarity(self, fault, test):
        """The lines around FAULT that TEST reaches, per second; a line counts less if more tests reach it."""
        reached = self.lines.reached[test.name]['files'].get(fault.edit.file, {})
        around = range(fault.edit.line - AROUND, fault.edit.line + AROUND)
        return sum(1 / self.lines.tests[fault.edit.file, line] for line, (times, _) in reached.items()
                   if times and int(line) in around) / self.seconds[test.name]

    def of(self, fault, tests):
        with self.lock:
            counts = self.counts[fault.edit.file, fault.edit.function]
            return sorted(tests, key=lambda test: (-counts[test.name], -self.rarity(fault, test)))

    def add(self, fault, test):
        with self.lock:
            self.counts[fault.edit.file, fault.edit.function][test.name] += 1


def try_out(fault, tests, binaries, order, env):
    """Run TESTS on BINARIES until one fails, which kills FAULT."""
    for test in order.of(fault, tests):
        patience = max(PATIENCE, 5 * order.seconds[test.name])
        if test.build in binaries and test.wrong(binaries[test.build], env, patience):
            order.add(fault, test)
            fault.killer = test.name
            break
    return fault


def with_all(faults, build, home):
    """Build BUILD with all of FAULTS; a fault that does not compile is killed by the compiler, and left out."""
    inside, _ = mutate.faults()
    overlay = home / 'src'
    left = [fault for fault in faults if build in fault.builds and fault.edit.function]
    files = {fault.edit.file for fault in left}
    while left:
        for name in files:
            own = {fault.number: fault.edit for fault in left if fault.edit.file == name}
            parameters = inside[build][name][1]
            path = overlay / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(mutate.with_copies((grafted().path / name).read_text(), own, parameters))
        try:
            return binary(build, home, overlay, files)
        except Error as e:
            wrong = broken(str(e), overlay)
            if not wrong:
                raise
            for fault in [fault for fault in left if fault.number in wrong]:
                fault.killer = 'the compiler'
                left.remove(fault)
    return None


def broken(said, overlay):
    """The numbers of the copies for which the compiler printed errors."""
    found = set()
    for name, line in re.findall(r'([^\s:]+):(\d+):\d+: error: ', said):
        if overlay in pathlib.Path(name).parents:
            above = pathlib.Path(name).read_text().splitlines()[:int(line)]
            for text in reversed(above):
                if text == '/* END */':
                    break
                if text.startswith('/* MUTANT '):
                    found.add(int(text.split()[2]))
                    break
    return found


def binary(build, home, overlay, names):
    # any file can include a header
    names = None if any(name.endswith('.h') for name in names) else names
    return relink(build, home, overlay, FLAGS, names)


def by_itself(fault, lines, order, home):
    """Build QEMU with FAULT only, and run its tests."""
    tests = list(lines.reaching(fault))
    binaries = {}
    for build in sorted({test.build for test in tests}):
        overlay = home / build / 'src'
        path = overlay / fault.edit.file
        path.parent.mkdir(parents=True, exist_ok=True)
        text = (grafted().path / fault.edit.file).read_text()
        path.write_text(text[:fault.edit.start] + fault.edit.text + text[fault.edit.end:])
        try:
            binaries[build] = binary(build, home / build, overlay, {fault.edit.file})
        except Error:
            fault.killer = 'the compiler'
            return fault
    return try_out(fault, tests, binaries, order, {})


def try_all(faults, jobs):
    """Run the tests of all FAULTS, JOBS at a time."""
    lines = Lines()
    order = Order(lines)
    with tempfile.TemporaryDirectory(prefix='mutants-') as home, machine.workers(jobs) as pool:
        home = pathlib.Path(home)
        say('compiling the faults')
        binaries = {build: with_all(faults, build, home / build) for build in ('kvm', 'tcg')}
        binaries = {build: path for build, path in binaries.items() if path}
        going = []
        for fault in faults:
            if fault.killer:
                continue
            if fault.edit.function:
                going.append(pool.submit(try_out, fault, list(lines.reaching(fault)), binaries, order,
                                         {'MUTANT': str(fault.number)}))
            else:
                going.append(pool.submit(by_itself, fault, lines, order, home / str(fault.number)))
        for number, done in enumerate(concurrent.futures.as_completed(going), 1):
            fault = done.result()
            say(f'{number} of {len(going)}: {fault}: {fault.killer or "SURVIVED"}')
