# SPDX-License-Identifier: GPL-2.0-or-later
"""Run the commands in the documents that a new user types first.  Prints TAP."""

from scripts.lib.command import main, no_options
from scripts.lib.system import TOP, Error, run, say
from scripts.queue import bases
from scripts.queue.git import BASE_REF, Tree
from tests.docs import commands
from tests.queue.check import checkout, grafted
from tests.tap import point, report

GRAFT = 'scripts/graft /path/to/qemu'
FIRST = ('./configure', 'make boot', GRAFT, 'scripts/kvmsim run ask-limited --qemu patched',
         'scripts/lab run --compat power10 --do reboot --do savevm --do migrate', 'make series')


def runs(command):
    """Check that COMMAND is in a document, and that it runs."""
    if command not in commands():
        raise Error('it is in no document')
    say(command)
    if command == GRAFT:
        with checkout(Tree(bases.home() / 'src'), BASE_REF, 'target/ppc/compat.c') as copy, \
                grafted(copy) as (code, said, _):
            if code:
                raise Error(said)
    else:
        run(['sh', '-c', command], cwd=TOP)


def check():
    no_options(__doc__)
    return report(point(command, runs, command) for command in FIRST)['failed'] > 0


if __name__ == '__main__':
    main(check)
