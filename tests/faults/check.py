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
from lib.debian import mirror
from lib.git import BASE_REF, LAID_REF, Tree
from lib.laying import edited
from lib.system import ALONE, BUILD, TOP, Error, Unknown, locked, reason, run, say
from lib.tap import Point, report, tally
from tests.faults.mirror import Mirror, apt_options

JOBS = 2
# Seconds that a run may take before it counts as one that does not end
PATIENCE = 900
BASE = 'trixie'
TOOLS = {'boot': ['make', 'boot'], 'graft': ['scripts/graft', BASE], 'refresh': ['scripts/graft', 'refresh'],
         'deb-source': ['scripts/deb-source', BASE]}
# What a tool says when it fails; progress looks otherwise, and make adds a line of its own
LAST_WORDS = re.compile(r'^(scripts/\S+|configure): ', re.M)
WAITING = re.compile(r'^waiting for ', re.M)
EDIT = '/* edited */'
EDITED = ('target/ppc/host-compat.c', 'target/ppc/compat.c')
# deb-source needs somebody; a tree that is gone in a minute needs no packing
GIT = {'user.name': 'faults', 'user.email': 'faults@localhost', 'gc.auto': '0', 'core.compression': '0'}
# The size of a disk that nothing fills
ROOMY = '8g'


class Place(NamedTuple):
    """Where a fault strikes a tool, and what is missing below build/ at first, so that the tool comes there."""
    tool: str
    where: str
    faults: str
    # 'get': half of the file at such an address was served; 'do': something of ours is about to run or rename that;
    # 'see': there is such a file below build/
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
    Place('graft', 'branch', 'kill two', 'do', f'^git .* update-ref {LAID_REF} '),
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
    Place('boot', "L1's root", 'kill disk', 'see', 'roots/trixie-ppc64el.part/usr/bin/*', ('roots/trixie-ppc64el',)),
    Place('boot', 'kernel download', 'stop half', 'get', '/linux-(image|binary)-[^/]*ppc64el', ('kernels', 'images')),
    Place('boot', 'kernel', 'kill disk', 'do', '^powerpc64le-linux-gnu-strip ', ('kernels', 'images')),
    Place('boot', 'L1 image', 'kill disk', 'do', r'^os.rename \S+ \S+/images/l1-', ('images/l1-*',)),
    Place('boot', 'compiler', 'kill disk two', 'see', 'trixie/kvm/libqemu-ppc64-softmmu.a.p/target_ppc_*.o',
          ('trixie/kvm/libqemu-ppc64-softmmu.a.p/*.o',)),
)


class Run:
    """A tool at work; all that it says goes to LOG."""

    def __init__(self, tool, log, env):
        self.log = log
        with open(log, 'w') as out:
            self.process = subprocess.Popen(     # pylint: disable=consider-using-with
                TOOLS[tool], cwd=TOP, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT)

    def said(self):
        return self.log.read_text(errors='replace')

    def wait_for(self, condition, what):
        """A look every few milliseconds, as long as it runs."""
        ends = time.monotonic() + PATIENCE
        while not condition():
            if self.process.poll() is not None and not condition():
                raise Error(f'ended with {self.process.returncode} before {what}: {last_line(self.said())}')
            if time.monotonic() > ends:
                raise Error(f'did not come to {what}: {last_line(self.said())}')
            time.sleep(0.005)

    def end(self):
        try:
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise Error(f'does not end: {last_line(self.said())}') from None


def last_line(text):
    return (text.strip().splitlines() or ['it says nothing'])[-1]


class Row:
    """One fault at one point, in this process' own namespaces."""

    def __init__(self, point, fault, scratch):
        self.point, self.fault, self.scratch = point, fault, scratch
        self.disk, self.held, self.go = scratch / 'disk', scratch / 'held', scratch / 'go'
        self.before = self.taken = None
        self.mirror = Mirror(scratch.parent / 'mirror', point.pattern if point.kind == 'get' else r'\b\B')

    def mount(self):
        """What is written from here on goes to DISK, and is seen by nobody else."""
        self.disk.mkdir()
        run(['mount', '-t', 'tmpfs', '-o', f'size={ROOMY}', 'faults', str(self.disk)])
        for name in ('upper', 'work'):
            (self.disk / name).mkdir()
        run(['mount', '-t', 'overlay', '-o', f'redirect_dir=on,lowerdir={TOP},upperdir={self.disk}/upper,'
             f'workdir={self.disk}/work', 'faults', str(TOP)])

    def environment(self):
        (self.scratch / 'apt.conf').write_text(apt_options(self.mirror.server_port, mirror(),
                                                           1 if self.fault == 'stop' else 60))
        # minutes of reading that change nothing
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
        """Whether the run is where the fault is to strike."""
        if self.point.kind == 'see':
            if not any(BUILD.glob(self.point.pattern)):
                return False
            # all but this process
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
        struck = Run(self.point.tool, self.scratch / 'struck.log', {
            **env, 'PYTHONPATH': str(TOP / 'tests/faults'), 'FAULT_HELD': str(self.held), 'FAULT_GO': str(self.go),
            'FAULT_AT': self.point.pattern if self.point.kind == 'do' else ''})
        if self.fault == 'half':
            self.mirror.halves.set()
            self.mirror.go.set()
        struck.wait_for(self.is_held, self.point.where)
        FAULTS[self.fault][1](self, struck, env)
        self.mirror.mend()
        if self.fault != 'two':
            again = Run(self.point.tool, self.scratch / 'again.log', env)
            if again.end():
                raise Error(f'the next run ends with {again.process.returncode}: {last_line(again.said())}')
        self.is_right()

    def kill(self, struck, _):
        """The run and all that it has started, whatever group they are in."""
        os.kill(-1, signal.SIGKILL)
        struck.process.wait()

    def fill(self, struck, _):
        """There is no room left but for what a smaller file makes."""
        # still, so that it does not grow meanwhile
        os.kill(-1, signal.SIGSTOP)
        space = os.statvfs(self.disk)
        self.resize(max(space.f_blocks - space.f_bfree, 1) * space.f_frsize)
        os.kill(-1, signal.SIGCONT)
        self.release()
        self.fails(struck)
        self.resize(ROOMY)

    def resize(self, size):
        run(['mount', '-o', f'remount,size={size}', str(self.disk)])

    def stop(self, struck, _):
        """Nothing more comes, and connections stay open."""
        self.mirror.stopped.set()
        self.release()
        self.fails(struck)

    def halve(self, struck, _):
        """The mirror has been like that from the start."""
        self.fails(struck)

    def fails(self, struck):
        """It ends by itself, with one line that says why, and nothing of it is left."""
        code, said = struck.end(), struck.said()
        words = [line for line in said.splitlines() if LAST_WORDS.match(line)]
        if not code or len(words) != 1 or 'Traceback' in said:
            raise Error(f'the struck run ends with {code}: {" / ".join(said.strip().splitlines()[-4:])}')
        print(words[0])
        left = processes()
        if left:
            raise Error(f'the struck run leaves {", ".join(left)}')

    def join(self, struck, env):
        """A second run waits for the first, and says so."""
        second = Run(self.point.tool, self.scratch / 'second.log', env)
        second.wait_for(lambda: WAITING.search(second.said()), 'a line that it waits')
        self.release()
        for one in (struck, second):
            if one.end():
                raise Error(f'one of the two ends with {one.process.returncode}: {last_line(one.said())}')

    def state(self):
        """{file below build/: its size, or where it leads to}, without what differs from run to run."""
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
        """What is there now is what was there before."""
        tree = Tree(bases.home() / 'src')
        CHECKS.get(self.point.tool, lambda _: None)(tree)
        now = self.state()
        # other commands make more than this one needs: what the row took away need not come back
        odd = sorted(name for name in {*self.before, *now} if self.before.get(name) != now.get(name)
                     and not (name in self.taken and name not in now))
        if odd and self.point.tool != 'refresh':
            raise Error(f'{len(odd)} files differ from those of a run that nothing struck: {", ".join(odd[:5])}')
        if edited(tree) or tree.tip(LAID_REF) != tree.tip('HEAD'):
            raise Error(f'the grafted tree has edits: {(edited(tree) or ["commits"])[0]}')


def processes():
    """What still runs here but for this process, once what is ending has had the time to."""
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


def take_back():
    """A grafted tree that is still the bare base."""
    tree = Tree(bases.home() / 'src')
    if tree.path.exists():
        tree.git('reset', '-q', '--hard', BASE_REF)
        tree.git('update-ref', LAID_REF, BASE_REF)


def edit():
    """An edit of a file that the series carries, and of one that it only changes."""
    for name in EDITED:
        with open(bases.home() / 'src' / name, 'a') as file:
            file.write(f'{EDIT}\n')


def check_refreshed(tree):
    places = [TOP / EDITED[0], *(TOP / 'series').rglob('*.patch')]
    found = [path for path in places if EDIT in path.read_text()]
    if len(found) != len(EDITED) or not all(EDIT in tree.show('HEAD', name) for name in EDITED):
        raise Error(f'the edits came to {", ".join(str(path.relative_to(TOP)) for path in found) or "nothing"}')


def check_package(_):
    """Each file that the two .dsc name has the size that they say, and there is no other."""
    place = BUILD / 'deb-source' / BASE
    names = {}
    for dsc in place.glob('*.dsc'):
        listed = dsc.read_text().split('\nFiles:')[1]
        names.update({dsc.name: dsc.stat().st_size},
                     **{name: int(size) for size, name in re.findall(r'^ \w{32} (\d+) (\S+)$', listed, re.M)})
    found = {path.name: path.stat().st_size for path in place.iterdir()}
    if found != names or len([*place.glob('*.dsc')]) != 2:
        raise Error(f'the package is {found}, and should be {names}')


SETUPS = {'graft': take_back, 'refresh': edit}
CHECKS = {'refresh': check_refreshed, 'deb-source': check_package}
# {fault: (its name, what it does)}
FAULTS = {'kill': ('kill -9', Row.kill), 'disk': ('a full disk', Row.fill), 'stop': ('the network stops', Row.stop),
          'half': ('the mirror serves half a file', Row.halve), 'two': ('two at once', Row.join)}
# What has files of its own with each run
OWN = ('apt', 'check', 'deb-source', 'kvmsim', 'meson', f'{BASE}/kvm', f'{BASE}/tcg', f'{BASE}/src/{bases.DEVICES}')


def name_of(row):
    point, fault = row
    return f'{" ".join(TOOLS[point.tool][:2]).removeprefix("scripts/")}: {FAULTS[fault][0]}, {point.where}'


def strike(row, scratch):
    """The Point of ROW, in namespaces of its own."""
    point, name = row[0], name_of(row)
    if os.geteuid():
        return Point(name, skip='needs root, for a mount of its own')
    if point.kind == 'get' and not mirror().startswith('http://'):
        return Point(name, skip=f'{mirror()} cannot be reached through a proxy that fails')
    place = pathlib.Path(scratch, re.sub(r'\W+', '-', name))
    place.mkdir()
    done = subprocess.run([*ALONE, sys.executable, '-m', 'tests.faults.check', '--alone', name, place], cwd=TOP,
                          check=False, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT)
    return Point(name, done.stdout.strip() or 'it ended without a word' if done.returncode else '')


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
    """The rows whose name has every one of WORDS."""
    rows = [row for row in ROWS if all(word in name_of(row) for word in words)]
    if not rows:
        raise Unknown(f'no row is called {" ".join(words)}: the words are those of {"; ".join(map(name_of, ROWS))}')
    return rows


def check():
    parser = Parser(description=__doc__)
    parser.add_argument('words', nargs='*', metavar='WORD', help='only the rows whose name has every WORD')
    parser.add_argument('--alone', nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.alone:
        return alone(*args.alone)
    rows = chosen(args.words)
    with locked('check-faults', 'waiting for another make check-faults to end'):
        say('making what the rows start from')
        run(['make', 'boot'], cwd=TOP, env=dict(os.environ, BASE=BASE))
        with tempfile.TemporaryDirectory() as scratch, concurrent.futures.ThreadPoolExecutor(JOBS) as pool:
            pathlib.Path(scratch, 'mirror').mkdir()
            counts = report(pool.map(lambda row: strike(row, scratch), rows), len(rows))
    print(tally(counts))
    return counts['failed'] > 0 or not counts['passed']


if __name__ == '__main__':
    main(check)
