# SPDX-License-Identifier: GPL-2.0-or-later
"""Build the series on every base, and run its tests there.

If the base is a suite, also compares which of QEMU's own tests (check-unit and
qtest-ppc64) fail with and without it.  A base that is not available is skipped;
one must be available.  Prints TAP.
"""

import json
import os
import shutil
import sys

from scripts.debian import roots
from scripts.debian.builds import COMMON, TCG, build_commit, configure, in_build
from scripts.debian.suite import Suite
from scripts.lib.command import Parser, main
from scripts.lib.system import TOP, Error, locked, say
from scripts.queue import bases
from scripts.queue.git import BASE_REF, Tree, worktree
from scripts.queue.topics import queue
from tests.slow import topics
from tests.tap import Skip, point, report

SUITES = ('unit', 'qtest-ppc64')
# Without these ROMs, most of qtest-ppc64 fails before a machine starts, with and without the series
FIRMWARE = ['qemu-system-data', 'seabios', 'ipxe-qemu']
FIRMWARE_FOLDERS = ('usr/share/qemu', 'usr/share/seabios')


def add_firmware(build):
    """Give BUILD's programs the firmware that its machines and cards load."""
    place = build / 'qemu-bundle/usr/local/share/qemu'
    place.mkdir(parents=True, exist_ok=True)
    root = Suite(roots.EMULATOR_SUITE, 'amd64').root('firmware', FIRMWARE, closure=False)
    for source in (file for folder in FIRMWARE_FOLDERS for file in (root / folder).iterdir()):
        if source.is_file() and not (place / source.name).exists():
            shutil.copyfile(source, place / source.name)


def results(home):
    """{test: result} of QEMU's own tests, which expect all devices, in HOME's tree."""
    configure('tests', COMMON + TCG, {}, home)
    build = home / 'tests'
    add_firmware(build)
    log = build / 'meson-logs/testlog.json'
    log.unlink(missing_ok=True)
    try:
        in_build([sys.executable, '-m', 'mesonbuild.mesonmain', 'test', '-C', build, '--num-processes', '2',
                  '--timeout-multiplier', '4', *(word for suite in SUITES for word in ('--suite', suite))])
    except Error:
        # failed tests are counted below; a failed build has no log
        if not log.exists():
            raise
    return {test['name']: test['result'] for test in map(json.loads, log.read_text().splitlines())}


def compare(ours, theirs):
    """Fail if a test is worse with the series; returns a description otherwise."""
    def failed(found):
        return {name for name, result in found.items() if result not in ('OK', 'SKIP', 'EXPECTEDFAIL')}
    worse = failed(ours) - failed(theirs) | {name for name in theirs if name not in ours}
    if worse:
        raise Error('fail with the series only: ' + ', '.join(sorted(worse)))
    both = ', '.join(sorted(name.split('/')[-1].strip() for name in failed(ours))) or 'none'
    return f'{len(ours) - len(failed(ours))} of {len(ours)} of QEMU\'s own tests pass, ' \
        f'{len(theirs) - len(failed(theirs))} of {len(theirs)} without it (fail on both: {both})'


def check(base):
    in_build([sys.executable, '-m', 'scripts.debian.builds', base], TOP)
    say(f'{base}: building')
    words = ['applies', build_commit(Tree(bases.home() / 'src'))]
    for what in topics.TESTS:
        say(f'{base}: {what}')
        words.append(f'{sum(topics.test(topic, what, bases.home()) for topic in queue().values())} {what}')
    if base in bases.SUITES:
        words.append(own_tests(base))
    return ', '.join(words)


def own_tests(base):
    """Compare the results of QEMU's own tests with and without the series; returns a description."""
    tree, place = Tree(bases.home() / 'src'), bases.home() / 'unpatched'
    say(f"{base}: QEMU's own tests, with the series")
    ours = results(bases.home())
    say(f"{base}: QEMU's own tests, without it")
    worktree(tree, place / 'src', tree.tip(BASE_REF))
    return compare(ours, results(place))


def version():
    """QEMU's version of the base, None if there is none."""
    path = bases.home() / 'src/VERSION'
    return path.read_text().strip() if path.exists() else None


def check_base(base):
    os.environ['BASE'] = base
    try:
        with locked('check-bases'):
            words = check(base)
            return f'QEMU {version()}: {words}'
    except (Error, OSError) as e:
        if base in bases.SUITES and not version():
            raise Skip(f'not available: {e}') from None
        raise


def check_all():
    parser = Parser(description=__doc__)
    parser.add_argument('bases', nargs='*', metavar='BASE', help='trixie, sid, or the path of a QEMU checkout')
    wanted = parser.parse_args().bases or bases.SUITES
    counts = report(point(base, check_base, base) for base in wanted)
    return counts['failed'] > 0 or not counts['passed']


if __name__ == '__main__':
    main(check_all)
