# SPDX-License-Identifier: GPL-2.0-or-later
"""Build each commit of the series, for KVM and for TCG.

Also fails if a commit adds a static function before its first use.  Works in
build/BASE/bisect, so the builds of the whole series do not change.  Prints TAP.
"""

from scripts.debian.builds import build_commit, prepared
from scripts.lib.command import main, no_options
from scripts.lib.system import locked, say
from scripts.queue import bases
from scripts.queue.git import BASE_REF, Tree, worktree
from scripts.queue.graft import graft
from tests.tap import point, report

UNUSED = '--extra-cflags=-Werror=unused-function'


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
            worktree(tree, copy.path, commit)
            return point(subject, build_commit, copy)
        return report(map(checked, commits))['failed'] > 0


if __name__ == '__main__':
    main(check_all)
