# SPDX-License-Identifier: GPL-2.0-or-later
"""Run "make boot" and "make check" on bare Debian systems, one for each supported release.  Prints TAP.

Each release runs in a new minimal root, build/hosts/SUITE, on a clone of HEAD.
The root uses the Debian mirror and the ccache of this machine.  The output of
the commands goes to build/hosts/SUITE.log.  If a command fails, its root stays
until the next run.
"""

import os
import re
import shutil
import subprocess

from scripts.debian.suite import mirror
from scripts.lib.command import Parser, main
from scripts.lib.system import BUILD, TOP, Error, locked, run, say
from tests.tap import point, report

SUITES = ('bookworm', 'trixie')
TARGETS = ('boot', 'check')
LAST_LINES = 20
# The path of the clone in the root
CLONE = 'root/host-compat'
# Mounts and processes end with this process, even if it is killed
ALONE = ['setpriv', '--pdeathsig', 'KILL', '--',
         'unshare', '--mount', '--pid', '--fork', '--kill-child', '--mount-proc']
# ROOT CACHE COMMAND...; in a hook of mmdebstrap, removing the root could reach the cache
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


def bare(suite, root):
    """Make ROOT a system of SUITE that has make, and a clone of HEAD."""
    if not shutil.which('mmdebstrap'):
        # nothing else needs it
        say('installing: mmdebstrap')
        run(['apt-get', 'update'])
        run(['apt-get', 'install', '-y', '--no-install-recommends', 'mmdebstrap'])
    # settings without which the mirror cannot be read: a proxy, an unchecked date
    settings = re.findall('^Acquire::(?:https?::|Check-).*', run(['apt-config', 'dump']), re.M)
    shutil.rmtree(root, ignore_errors=True)
    root.parent.mkdir(parents=True, exist_ok=True)
    run([*ALONE, 'mmdebstrap', '--mode=root', '--variant=apt', '--include=make',
         *(f'--aptopt={line}' for line in settings), suite, str(root), mirror()])
    run(['git', 'clone', '--quiet', str(TOP), str(root / CLONE)])


def make(target, root):
    words = root.with_suffix('.log')
    cache = run(['ccache', '--get-config', 'cache_dir']).strip()
    with open(words, 'a') as log:
        done = subprocess.run([*ALONE, 'sh', '-c', IN_ROOT, 'sh', root, cache, 'make', '-C', f'/{CLONE}', target],
                              stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        last = words.read_text(errors='replace').splitlines()[-LAST_LINES:]
        raise Error('\n'.join([f'make {target} exits with {done.returncode}: see {words.relative_to(TOP)}', *last]))


def check_suite(suite):
    root = BUILD / 'hosts' / suite
    root.with_suffix('.log').unlink(missing_ok=True)
    say(f'{suite}: bare root')
    bare(suite, root)
    for target in TARGETS:
        say(f'{suite}: make {target}')
        make(target, root)
    shutil.rmtree(root)


def check():
    parser = Parser(description=__doc__)
    parser.add_argument('suites', nargs='*', metavar='SUITE', help=f'{" or ".join(SUITES)}; both by default')
    suites = parser.parse_args().suites or SUITES
    for wrong in {*suites} - {*SUITES}:
        parser.error(f'{wrong} is not one of {", ".join(SUITES)}')
    if os.geteuid():
        raise Error('only root can make the roots of other systems: run it as root')
    with locked('check-hosts', 'waiting for another make check-hosts to end'):
        return report(point(suite, check_suite, suite) for suite in suites)['failed'] > 0


if __name__ == '__main__':
    main(check)
