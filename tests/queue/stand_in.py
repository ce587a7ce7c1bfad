# SPDX-License-Identifier: GPL-2.0-or-later
"""A base with upstream's own version of the series, for which upstream.patch stands."""

import sys

from scripts.debian.builds import prepared
from scripts.lib.command import main
from scripts.lib.system import TOP, locked
from scripts.queue import bases
from scripts.queue.commits import HEADER, commit_entries
from scripts.queue.git import BASE_REF, Tree
from scripts.queue.topics import Entry, entries, queue

STAND_IN = TOP / 'tests/queue/upstream.patch'


def base_with(tree):
    """The commit of TREE's base with upstream's version, or with the stand-in if the base does not have it."""
    headers = [entry for entry in entries(queue().values()) if tuple(entry.unless) == HEADER]
    return commit_entries(tree, tree.tip(BASE_REF), [*headers, Entry(STAND_IN)])


def prepare(*builds):
    """Bring build/BASE/upstream/src up to date, a checkout that can be a base, and configure BUILDS beside it."""
    with locked('upstream'):
        tree = Tree(bases.home() / 'src')
        prepared(tree, bases.home() / 'upstream', base_with(tree), names=builds)


if __name__ == '__main__':
    main(lambda: prepare(*sys.argv[1:]))
