# SPDX-License-Identifier: GPL-2.0-or-later
"""Build each commit of the series, for KVM and for TCG.

Also fails if a commit adds a function that nothing in its tree uses.  Works
in build/BASE/bisect, so the builds of the whole series do not change.  Prints
TAP.
"""

import re

from scripts.debian.builds import build_commit, prepared
from scripts.lib.command import main, no_options
from scripts.lib.system import Error, locked, say
from scripts.queue import bases
from scripts.queue.git import BASE_REF, Tree, worktree
from scripts.queue.graft import graft
from tests.tap import point, report

# The compiler finds unused static functions
UNUSED = '--extra-cflags=-Werror=unused-function'
# Text that is not code: characters, strings, comments
NO_CODE = re.compile(r"""'(?:\\.|[^'\\\n])+'|"(?:\\.|[^"\\\n])*"|//[^\n]*|/\*.*?\*/""", re.S)
# In QEMU's style, the first line of a definition or declaration begins in column one
HEAD = r'[A-Za-z_][\w \t*]*[ \t*](%s)\s*\([^;{}]*\)[^;{}()]*[;{]'
SHARED = re.compile(r'^(?!static\b|typedef\b)' + HEAD % r'\w+', re.M)


def code(tree, commit, name):
    """A file without text that is not code; empty if the file does not exist."""
    return NO_CODE.sub(' ', tree.git('show', f'{commit}:{name}', check=False).stdout)


def unused(tree, commit):
    """Non-static functions that COMMIT adds and that nothing in its tree calls or tests."""
    sides = (f'{commit}^', commit)
    names = tree.git('diff-tree', '-r', '--name-only', '--no-renames', *sides, '--', '*.c', '*.h').split()
    before, after = ({function for name in names for function in SHARED.findall(code(tree, side, name))}
                     for side in sides)
    for function in sorted(after - before - {'main'}):
        found = tree.git('grep', '-l', '-w', function, commit, '--', '*.c', '*.h', '*.inc').split()
        declared = re.compile('^' + HEAD % function, re.M)
        texts = (declared.sub('', code(tree, *where.split(':', 1))) for where in found)
        if not any(re.search(rf'\b{function}\b', text) for text in texts):
            yield function


def check(tree, copy, commit):
    lonely = ', '.join(unused(tree, commit))
    if lonely:
        raise Error(f'nothing in its tree uses {lonely}: add it together with its first use')
    worktree(tree, copy.path, commit)
    build_commit(copy)


def check_all():
    no_options(__doc__)
    with locked('bisect'):
        graft(bases.chosen())
        tree = Tree(bases.home() / 'src')
        commits = tree.git('rev-list', '--reverse', f'{BASE_REF}..HEAD').split()
        copy = prepared(tree, bases.home() / 'bisect', commits[0], UNUSED)

        def checked(commit):
            subject = tree.git('show', '-s', '--format=%s', commit).strip()
            say(subject)
            return point(subject, check, tree, copy, commit)
        return report(map(checked, commits), len(commits))['failed'] > 0


if __name__ == '__main__':
    main(check_all)
