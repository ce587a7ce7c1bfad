# Copyright (c) 2026 QEMU contributors
# SPDX-License-Identifier: GPL-2.0-or-later
"""Run "make boot" and "make check" on bare Debian systems, one for each supported release.

Each release runs in a new minimal root, build/hosts/SUITE, on a clone of HEAD.
The root uses the Debian mirror and the ccache of this machine.  The output of
the commands goes to build/hosts/SUITE.log.  If a command fails, its root stays
until the next run.
"""

import os
import re
import shutil
import subprocess
import time

from scripts.debian.suite import mirror
from scripts.lib.command import Parser, main
from scripts.lib.system import ALONE, BUILD, TOP, Error, locked, run, say
from tests.tap import tally

SUITES = ('bookworm', 'trixie')
STEPS = ('boot', 'check')
LAST_LINES = 20
# The path of the clone in the root
CLONE = 'root/host-compat'
# ROOT CACHE COMMAND...
IN_ROOT = """
set -e
root=$1 cache=$2
shift 2
mount --rbind /dev "$root/dev"
mount --rbind /sys "$root/sys"
mount --bind /proc "$root/proc"
mkdir -p "$cache" "$root/root/.cache/ccache"
mount --bind "$cache" "$root/root/.cache/ccache"
exec env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot "$root" "$@"
"""


def install(package):
    """Install PACKAGE, which configure does not install because nothing else needs it."""
    if not shutil.which(package):
        say(f'installing: {package}')
        run(['apt-get', 'update'])
        run(['apt-get', 'install', '-y', '--no-install-recommends', package])


def bare(suite, root):
    """Make ROOT a system of SUITE that has make, and a clone of HEAD."""
    say(f'{suite}: making a bare root')
    # settings without which the mirror cannot be read: a proxy, an unchecked date
    settings = re.findall('^Acquire::(?:https?::|Check-).*', run(['apt-config', 'dump']), re.M)
    shutil.rmtree(root, ignore_errors=True)
    run([*ALONE, 'mmdebstrap', '--mode=root', '--variant=apt', '--include=make',
         *(f'--aptopt={line}' for line in settings), suite, str(root), mirror()])
    run(['git', 'clone', '--quiet', str(TOP), str(root / CLONE)])


def make(target, root, log):
    """Make TARGET in ROOT; returns the exit code."""
    cache = run(['ccache', '--get-config', 'cache_dir']).strip()
    return subprocess.run([*ALONE, 'sh', '-c', IN_ROOT, 'sh', root, cache, 'make', '-C', f'/{CLONE}', target],
                          stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, check=False).returncode


def check(suite):
    """Run the steps on SUITE up to the first that fails; returns how many passed."""
    root = BUILD / 'hosts' / suite
    words = root.with_suffix('.log')
    root.parent.mkdir(parents=True, exist_ok=True)
    with open(words, 'w') as log:
        try:
            bare(suite, root)
        except Error as e:
            print(f'FAILED: {suite}: {e}', flush=True)
            return 0
        for passed, step in enumerate(STEPS):
            say(f'{suite}: make {step}')
            started = time.monotonic()
            code = make(step, root, log)
            took = f'{(time.monotonic() - started) / 60:.0f} minutes'
            if code:
                print(f'FAILED: {suite}: make {step}: exit code {code}, {took}: see {words.relative_to(TOP)}')
                print('\n'.join(words.read_text(errors='replace').splitlines()[-LAST_LINES:]), flush=True)
                return passed
            print(f'ok: {suite}: make {step}: {took}', flush=True)
    shutil.rmtree(root)
    return len(STEPS)


def check_all():
    parser = Parser(description=__doc__)
    parser.add_argument('suites', nargs='*', metavar='SUITE', help=f'{" or ".join(SUITES)}; both by default')
    suites = parser.parse_args().suites or SUITES
    for wrong in {*suites} - {*SUITES}:
        parser.error(f'{wrong} is not one of {", ".join(SUITES)}')
    if os.geteuid():
        raise Error('only root can make the roots of other systems: run it as root')
    with locked('check-hosts', 'waiting for another make check-hosts to end'):
        install('mmdebstrap')
        passed = [check(suite) for suite in suites]
    failed = sum(count < len(STEPS) for count in passed)
    print(tally({'passed': sum(passed), 'failed': failed, 'skipped': len(passed) * len(STEPS) - sum(passed) - failed}))
    return failed > 0


if __name__ == '__main__':
    main(check_all)
