# Copyright (c) 2026 QEMU contributors
# SPDX-License-Identifier: GPL-2.0-or-later
"""Inject faults into "make boot", scripts/graft and scripts/deb-source; the next run must succeed.

Each row injects one fault at one point of a command and then runs the command
again.  build/ must be the same as before the fault.  A row runs in separate
namespaces, on an overlay of this work tree in memory.  Prints TAP.
"""

import argparse
import concurrent.futures
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

from lib import bases
from lib.command import Parser, main
from lib.commits import edited
from lib.debian import mirror
from lib.git import BASE_REF, GRAFTED_REF, Tree
from lib.system import ALONE, BUILD, TOP, Error, Unknown, locked, reason, run, say
from lib.tap import Point, report, tally
from tests.faults.mirror import Mirror, apt_options

JOBS = 2
# Seconds before a run counts as hung
PATIENCE = 900
BASE = 'trixie'
TOOLS = {'boot': ['make', 'boot'], 'graft': ['scripts/graft', BASE], 'refresh': ['scripts/graft', 'refresh'],
         'deb-source': ['scripts/deb-source', BASE]}
# The line that a tool prints when it fails, unlike progress and make's own line
LAST_WORDS = re.compile(r'^(scripts/\S+|configure): ', re.M)
WAITING = re.compile(r'^waiting for ', re.M)
EDIT = '/* edited */'
EDITED = ('target/ppc/host-compat.c', 'target/ppc/compat.c')
# deb-source needs an identity; packing a short-lived tree would waste time
GIT = {'user.name': 'faults', 'user.email': 'faults@localhost', 'gc.auto': '0', 'core.compression': '0'}
# A disk size that no run needs
ROOMY = '8g'


class Place(NamedTuple):
    """Where to inject a fault into a tool, and what to remove from build/ first so that the tool gets there."""
    tool: str
    where: str
    faults: str
    # when PATTERN matches: 'get': half of the file at this address was served; 'do': one of our scripts is about to
    # run or rename this; 'see': this file exists below build/
    kind: str
    pattern: str
    missing: tuple = ()


SOURCE = ('trixie/src',)
POINTS = (
    Place('graft', 'package lists', 'kill disk stop half', 'get', '/dists/(trixie|stable)/main/source/',
          ('apt/trixie-amd64', *SOURCE)),
    Place('graft', 'download', 'kill disk stop half', 'get', r'/qemu_[^/]*orig', SOURCE),
    Place('graft', 'unpacking', 'kill disk', 'see', 'trixie/src.part/src*/*', SOURCE),
    Place('graft', 'git add', 'kill disk', 'see', 'trixie/src.part/src/.git/index.lock', SOURCE),
    Place('graft', 'git commit', 'kill', 'do', r'^git .* commit -q', SOURCE),
    Place('graft', 'files', 'kill disk', 'see', 'trixie/src/.git/index.lock'),
    Place('graft', 'branch', 'kill two', 'do', f'^git .* update-ref {GRAFTED_REF} '),
    Place('refresh', 'entries', 'kill disk', 'do', r'^os.rename \S+ \S+/target/ppc/host-compat.c$'),
    Place('deb-source', 'download', 'kill disk stop half', 'get', r'/qemu_[^/]*orig'),
    Place('deb-source', 'unpacking', 'kill disk', 'see', 'deb-source/trixie/qemu*/hw/ppc/Kconfig'),
    Place('deb-source', 'patches', 'kill two', 'do', r'^git .* diff-tree -p --no-renames'),
    Place('deb-source', 'package', 'kill disk', 'do', '^dpkg-source -b'),
    Place('boot', 'configure', 'kill two', 'do', '^git .* commit-tree ',
          ('trixie/.ready', 'trixie/tcg/.configured', 'trixie/tcg/qemu-system-ppc64')),
    Place('boot', 'kernel lists', 'stop half', 'get', '/dists/experimental/main/binary-ppc64el/',
          ('apt/experimental-ppc64el', 'kernels', 'images')),
    Place('boot', "L1's packages", 'stop half', 'get', '/qemu-system-ppc_', ('roots/trixie-ppc64el',)),
    Place('boot', "L1's packages", 'ahead', 'get', '/qemu-system-ppc_', ('roots/trixie-ppc64el', 'apt/trixie-ppc64el')),
    Place('boot', "L1's root", 'kill disk', 'see', 'roots/trixie-ppc64el.part/usr/bin/*', ('roots/trixie-ppc64el',)),
    Place('boot', 'kernel download', 'stop half', 'get', '/linux-(image|binary)-[^/]*ppc64el', ('kernels', 'images')),
    Place('boot', 'kernel', 'kill disk', 'do', '^powerpc64le-linux-gnu-strip ', ('kernels', 'images')),
    Place('boot', 'L1 image', 'kill disk', 'do', r'^os.rename \S+ \S+/images/l1-', ('images/l1-*',)),
    Place('boot', 'compiler', 'kill disk two', 'see', 'trixie/kvm/libqemu-ppc64-softmmu.a.p/target_ppc_*.o',
          ('trixie/kvm/libqemu-ppc64-softmmu.a.p/*.o',)),
)


class Run:
    """A running tool; LOG gets all of its output."""

    def __init__(self, tool, log, env):
        self.log = log
        with open(log, 'w') as out:
            self.process = subprocess.Popen(     # pylint: disable=consider-using-with
                TOOLS[tool], cwd=TOP, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT)

    def said(self):
        return self.log.read_text(errors='replace')

    def wait_for(self, condition, what):
        """Poll CONDITION() every few milliseconds while the tool runs."""
        ends = time.monotonic() + PATIENCE
        while not condition():
            if self.process.poll() is not None and not condition():
                raise Error(f'ended with {self.process.returncode} before {what}: {last_line(self.said())}')
            if time.monotonic() > ends:
                raise Error(f'did not reach {what}: {last_line(self.said())}')
            time.sleep(0.005)

    def end(self):
        try:
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise Error(f'does not end: {last_line(self.said())}') from None

    def succeed(self, name):
        """Wait for the end of the run, which the error calls NAME."""
        if self.end():
            raise Error(f'{name} ends with {self.process.returncode}: {last_line(self.said())}')


def last_line(text):
    return (text.strip().splitlines() or ['it says nothing'])[-1]


class Row:
    """One fault at one point, in namespaces of this process."""

    def __init__(self, point, fault, scratch):
        self.point, self.fault, self.scratch = point, fault, scratch
        self.disk, self.held, self.go = scratch / 'disk', scratch / 'held', scratch / 'go'
        self.before = self.taken = None
        self.mirror = Mirror(scratch.parent / 'mirror', point.pattern if point.kind == 'get' else r'\b\B')

    def mount(self):
        """Redirect all writes to DISK, where no other process sees them."""
        self.disk.mkdir()
        run(['mount', '-t', 'tmpfs', '-o', f'size={ROOMY}', 'faults', str(self.disk)])
        for name in ('upper', 'work'):
            (self.disk / name).mkdir()
        run(['mount', '-t', 'overlay', '-o', f'redirect_dir=on,lowerdir={TOP},upperdir={self.disk}/upper,'
             f'workdir={self.disk}/work', 'faults', str(TOP)])

    def environment(self):
        (self.scratch / 'apt.conf').write_text(apt_options(self.mirror.server_port, mirror(),
                                                           1 if self.fault == 'stop' else 60))
        # lintian takes minutes and changes nothing
        (self.scratch / 'bin').mkdir()
        (self.scratch / 'bin/lintian').symlink_to('/bin/true')
        os.mkfifo(self.go)
        env = {name: value for name, value in os.environ.items()
               if name not in ('MAKEFLAGS', 'MAKELEVEL', 'QEMU_BUILDS')}
        return {**env, 'BASE': BASE, 'APT_CONFIG': str(self.scratch / 'apt.conf'),
                'PATH': f'{self.scratch}/bin:{env["PATH"]}', 'GIT_CONFIG_COUNT': str(len(GIT)),
                **{f'GIT_CONFIG_KEY_{i}': name for i, name in enumerate(GIT)},
                **{f'GIT_CONFIG_VALUE_{i}': value for i, value in enumerate(GIT.values())}}

    def is_held(self):
        """Whether the run has reached the point of the fault."""
        if self.point.kind == 'see':
            if not any(BUILD.glob(self.point.pattern)):
                return False
            # stops all processes but this one
            os.kill(-1, signal.SIGSTOP)
            return True
        return self.mirror.held.is_set() if self.point.kind == 'get' else self.held.exists()

    def release(self):
        if self.point.kind == 'see':
            os.kill(-1, signal.SIGCONT)
        elif self.point.kind == 'get':
            self.mirror.go.set()
        else:
            with open(self.go, 'wb'):
                pass

    def check(self):
        self.mount()
        env = self.environment()
        self.before = self.state()
        for name in self.point.missing:
            for path in BUILD.glob(name):
                (shutil.rmtree if path.is_dir() else os.unlink)(path)
        self.taken = {*self.before} - {*self.state()}
        SETUPS.get(self.point.tool, lambda: None)()
        first = Run(self.point.tool, self.scratch / 'first.log', {
            **env, 'PYTHONPATH': str(TOP / 'tests/faults'), 'FAULT_HELD': str(self.held), 'FAULT_GO': str(self.go),
            'FAULT_AT': self.point.pattern if self.point.kind == 'do' else ''})
        from_the_start = {'half': self.mirror.halves, 'ahead': self.mirror.ahead}.get(self.fault)
        if from_the_start:
            from_the_start.set()
            self.mirror.go.set()
        first.wait_for(self.is_held, self.point.where)
        FAULTS[self.fault][1](self, first, env)
        self.mirror.restore()
        if self.fault != 'two':
            Run(self.point.tool, self.scratch / 'again.log', env).succeed('the next run')
        self.is_right()

    def kill(self, first, _):
        """Kill the run and all of its children, whatever their process group."""
        os.kill(-1, signal.SIGKILL)
        first.process.wait()

    def fill(self, first, _):
        """Leave no free space on the disk."""
        # stop the run, so that it writes nothing meanwhile
        os.kill(-1, signal.SIGSTOP)
        space = os.statvfs(self.disk)
        self.resize(max(space.f_blocks - space.f_bfree, 1) * space.f_frsize)
        os.kill(-1, signal.SIGCONT)
        self.release()
        self.fails(first)
        self.resize(ROOMY)

    def resize(self, size):
        run(['mount', '-o', f'remount,size={size}', str(self.disk)])

    def stop(self, first, _):
        """Send nothing more, and keep connections open."""
        self.mirror.stopped.set()
        self.release()
        self.fails(first)

    def halve(self, first, _):
        """The mirror has served only half of the file from the start."""
        self.fails(first)

    def ahead(self, first, _):
        """The mirror lists files that it does not have, under the name of the suite that is in use."""
        first.succeed('the run')

    def fails(self, first):
        """Check that the run fails with one line that says why, and leaves no process behind."""
        code, said = first.end(), first.said()
        words = [line for line in said.splitlines() if LAST_WORDS.match(line)]
        if not code or len(words) != 1 or 'Traceback' in said:
            raise Error(f'the interrupted run ends with {code}: {" / ".join(said.strip().splitlines()[-4:])}')
        print(words[0])
        left = processes()
        if left:
            raise Error(f'the interrupted run leaves {", ".join(left)}')

    def join(self, first, env):
        """Check that a second run waits for the first, and says so."""
        second = Run(self.point.tool, self.scratch / 'second.log', env)
        second.wait_for(lambda: WAITING.search(second.said()), 'its line "waiting for"')
        self.release()
        for one in (first, second):
            one.succeed('one of the two')

    def state(self):
        """{file below build/: its size, or the target of a link}, without what differs between runs."""
        found = {}
        for folder, folders, names in os.walk(BUILD):
            place = pathlib.Path(folder)
            folders[:] = [name for name in folders if str((place / name).relative_to(BUILD)) not in OWN
                          and name != '.git']
            for path in (place / name for name in names if not name.endswith('.lock')):
                key = re.sub(r'-[0-9a-f]{16}(?=\.cpio)', '', str(path.relative_to(BUILD)))
                if key not in OWN:
                    found[key] = os.readlink(path) if path.is_symlink() else path.stat().st_size
        found.update((str(path), path.stat().st_size) for path in BUILD.glob(f'{BASE}/*/qemu-system-ppc64'))
        return found

    def is_right(self):
        """Check that build/ is what it was before."""
        tree = Tree(bases.home() / 'src')
        CHECKS.get(self.point.tool, lambda _: None)(tree)
        now = self.state()
        # what the row removed need not come back: other commands make more than this one needs
        odd = sorted(name for name in {*self.before, *now} if self.before.get(name) != now.get(name)
                     and not (name in self.taken and name not in now))
        if odd and self.point.tool != 'refresh':
            raise Error(f'{len(odd)} files differ from those of a run without a fault: {", ".join(odd[:5])}')
        if edited(tree) or tree.tip(GRAFTED_REF) != tree.tip('HEAD'):
            raise Error(f'the grafted tree has edits: {(edited(tree) or ["commits"])[0]}')


def processes():
    """The other processes here, after those that are exiting had time to do so."""
    for _ in range(200):
        found = {}
        for path in pathlib.Path('/proc').glob('[0-9]*/stat'):
            try:
                number, name, state = re.match(r'(\d+) \((.*)\) (\S)', path.read_text()).groups()
            except OSError:
                continue
            if int(number) != os.getpid():
                found[int(number)] = name
                if state == 'Z':
                    os.waitpid(int(number), os.WNOHANG)
        if not found:
            break
        time.sleep(0.01)
    return sorted(found.values())


def ungraft():
    """Reset the grafted tree to the bare base."""
    tree = Tree(bases.home() / 'src')
    if tree.path.exists():
        tree.git('reset', '-q', '--hard', BASE_REF)
        tree.git('update-ref', GRAFTED_REF, BASE_REF)


def edit():
    """Edit a file that the series carries, and one that it only changes."""
    for name in EDITED:
        with open(bases.home() / 'src' / name, 'a') as file:
            file.write(f'{EDIT}\n')


def check_refreshed(tree):
    places = [TOP / EDITED[0], *(TOP / 'series').rglob('*.patch')]
    found = [path for path in places if EDIT in path.read_text()]
    if len(found) != len(EDITED) or not all(EDIT in tree.show('HEAD', name) for name in EDITED):
        raise Error(f'the edits are in {", ".join(str(path.relative_to(TOP)) for path in found) or "nothing"}')


def check_package(_):
    """Check that each file in the two .dsc has the size listed there, and that there are no others."""
    place = BUILD / 'deb-source' / BASE
    names = {}
    for dsc in place.glob('*.dsc'):
        listed = dsc.read_text().split('\nFiles:')[1]
        names.update({dsc.name: dsc.stat().st_size},
                     **{name: int(size) for size, name in re.findall(r'^ \w{32} (\d+) (\S+)$', listed, re.M)})
    found = {path.name: path.stat().st_size for path in place.iterdir()}
    if found != names or len([*place.glob('*.dsc')]) != 2:
        raise Error(f'the package is {found}, and should be {names}')


SETUPS = {'graft': ungraft, 'refresh': edit}
CHECKS = {'refresh': check_refreshed, 'deb-source': check_package}
# {fault: (its name, what it does)}
FAULTS = {'kill': ('kill -9', Row.kill), 'disk': ('a full disk', Row.fill), 'stop': ('the network stops', Row.stop),
          'half': ('the mirror serves half a file', Row.halve), 'ahead': ('the mirror lacks a file', Row.ahead),
          'two': ('two at once', Row.join)}
# Paths below build/ that differ between runs
OWN = ('apt', 'check', 'deb-source', 'kvmsim', 'meson', f'{BASE}/kvm', f'{BASE}/tcg', f'{BASE}/src/{bases.DEVICES}')


def name_of(row):
    point, fault = row
    return f'{" ".join(TOOLS[point.tool][:2]).removeprefix("scripts/")}: {FAULTS[fault][0]}, {point.where}'


def inject(row, scratch):
    """The Point of ROW, which runs in new namespaces."""
    point, name = row[0], name_of(row)
    if os.geteuid():
        return Point(name, skip='needs root, to mount an overlay')
    if point.kind == 'get' and not mirror().startswith('http://'):
        return Point(name, skip=f'{mirror()} does not use http, which the faulty proxy needs')
    place = pathlib.Path(scratch, re.sub(r'\W+', '-', name))
    place.mkdir()
    done = subprocess.run([*ALONE, sys.executable, '-m', 'tests.faults.check', '--alone', name, place], cwd=TOP,
                          check=False, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT)
    return Point(name, done.stdout.strip() or 'the row ended without a message' if done.returncode else '')


def alone(name, scratch):
    """The row called NAME, in this process."""
    os.environ['BASE'] = BASE
    point, fault = next(row for row in ROWS if name_of(row) == name)
    try:
        Row(point, fault, pathlib.Path(scratch)).check()
    except (Error, OSError) as e:
        print(reason(e))
        return 1
    return 0


ROWS = [(point, fault) for point in POINTS for fault in point.faults.split()]


def chosen(words):
    """The rows whose name contains all of WORDS."""
    rows = [row for row in ROWS if all(word in name_of(row) for word in words)]
    if not rows:
        raise Unknown(f'no row matches {" ".join(words)}: the rows are {"; ".join(map(name_of, ROWS))}')
    return rows


def check():
    parser = Parser(description=__doc__)
    parser.add_argument('words', nargs='*', metavar='WORD', help='only the rows whose name contains every WORD')
    parser.add_argument('--alone', nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.alone:
        return alone(*args.alone)
    rows = chosen(args.words)
    with locked('check-faults', 'waiting for another make check-faults to end'):
        say('building what the rows start from')
        run(['make', 'boot'], cwd=TOP, env=dict(os.environ, BASE=BASE))
        with tempfile.TemporaryDirectory() as scratch, concurrent.futures.ThreadPoolExecutor(JOBS) as pool:
            pathlib.Path(scratch, 'mirror').mkdir()
            counts = report(pool.map(lambda row: inject(row, scratch), rows), len(rows))
    print(tally(counts))
    return counts['failed'] > 0 or not counts['passed']


if __name__ == '__main__':
    main(check)
