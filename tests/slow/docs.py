# SPDX-License-Identifier: GPL-2.0-or-later
"""Run the commands in the documents that a new user types first.  Prints TAP."""

import shutil

from scripts.lib.command import main, no_options
from scripts.lib.system import BUILD, TOP, Error, run, say
from scripts.queue import bases
from scripts.queue.git import BASE_REF, Tree, clone
from tests.docs import commands
from tests.tap import point, report

CHECKOUT = BUILD / 'check/qemu'
GRAFT = 'scripts/graft /path/to/qemu'
FIRST = ('./configure', 'make boot', GRAFT, 'scripts/kvmsim run ask-limited --qemu patched',
         'scripts/lab run --compat power10 --do reboot --do savevm --do migrate', 'make series')


def checkout():
    """Make a checkout of QEMU like that of a new user."""
    shutil.rmtree(CHECKOUT, ignore_errors=True)
    CHECKOUT.parent.mkdir(parents=True, exist_ok=True)
    copy = clone(Tree(bases.home() / 'src'), CHECKOUT)
    copy.git('checkout', '-q', '-b', 'base', BASE_REF)


def runs(command):
    """Check that COMMAND is in a document, and that it runs."""
    if command not in commands():
        raise Error('it is in no document')
    say(command)
    if command == GRAFT:
        checkout()
        command = f'BASE={CHECKOUT} scripts/graft {CHECKOUT}'
    run(['sh', '-c', command], cwd=TOP)


def check():
    no_options(__doc__)
    return report(point(command, runs, command) for command in FIRST)['failed'] > 0


if __name__ == '__main__':
    main(check)
