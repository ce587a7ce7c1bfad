# Copyright (c) 2026 QEMU contributors
# SPDX-License-Identifier: GPL-2.0-or-later
"""A base with the series on it: a git tree with a branch, made from a source package or a checkout."""

import collections
import contextlib
import re
import shutil
import subprocess

from lib import bases
from lib.debian import Suite
from lib.git import BASE_REF, BRANCH, LAID_REF, Tree, identity, unlock
from lib.laying import UPSTREAM, edited, has_upstream, lay, still_adds
from lib.queue import entries, queue, with_needs
from lib.refresh import finish
from lib.system import TOP, Error, culprit, locked, say, scratch


def fetch_source(suite, where):
    """Debian's source package of SUITE, unpacked and committed as a git tree."""
    with scratch(where.with_name('src.part')) as part:
        say(f'{suite}: source package of QEMU')
        dsc = Suite(suite, 'amd64').source('qemu', part)
        half = part / 'src'
        # apt has checked the signature chain down to this file's hash
        done = subprocess.run(['dpkg-source', '--no-check', '-x', dsc, half], check=False, text=True,
                              stdin=subprocess.DEVNULL, capture_output=True)
        if done.returncode:
            words = (done.stderr or done.stdout).strip().splitlines()
            raise Error(f'cannot unpack {dsc.name} ({culprit(words, words[-1])}): see to the disk, then run this again')
        version = re.search(r'^Version: (.*)$', dsc.read_text(), re.M)[1]
        shutil.rmtree(half / '.pc', ignore_errors=True)
        tree = Tree(half)
        tree.git('init', '-q', '-b', BRANCH)
        date = subprocess.run(['dpkg-parsechangelog', '-l', half / 'debian/changelog', '-S', 'Timestamp'],
                              check=True, text=True, capture_output=True).stdout.strip()
        stamp = {f'GIT_{who}_DATE': f'{date} +0000' for who in ('AUTHOR', 'COMMITTER')}
        tree.git('add', '-A', '-f', '.')
        tree.git('commit', '-q', '--no-verify', '-m', f'Debian source package qemu {version}',
                 extra={**identity(), **stamp})
        for ref in (BASE_REF, LAID_REF):
            tree.git('update-ref', ref, 'HEAD')
        half.rename(where)


def add_worktree(checkout, where):
    """A worktree of a QEMU checkout, on a branch of its own."""
    owner = Tree(checkout)
    prefix = owner.git('rev-parse', '--show-prefix', check=False)
    # with a prefix it is a folder of some other repository
    if not (owner.path / 'target/ppc/compat.c').exists() or prefix.returncode or prefix.stdout.strip():
        raise Error(f'{checkout} is not a git checkout of QEMU')
    owner.git('worktree', 'prune')
    if owner.tip(f'refs/heads/{BRANCH}'):
        raise Error(f'{checkout} has a branch {BRANCH} already: rename it, or, if it is only what graft laid there '
                    f'before, delete it with git -C {checkout} branch -D {BRANCH}')
    where.parent.mkdir(parents=True, exist_ok=True)
    owner.git('worktree', 'add', '-q', '-b', BRANCH, str(where), 'HEAD')
    for ref in (BASE_REF, LAID_REF):
        Tree(where).git('update-ref', ref, 'HEAD')


def open_tree(base):
    """The tree of BASE, fetched where it is not here yet."""
    where = bases.home() / 'src'
    # a worktree whose checkout was removed or cloned anew has no commit any more
    if not ((where / '.git').exists() and Tree(where).tip('HEAD')):
        shutil.rmtree(where, ignore_errors=True)
        if base in bases.SUITES:
            fetch_source(base, where)
        else:
            add_worktree(base, where)
    elif base not in bases.SUITES:
        head = Tree(base).tip('HEAD')
        if head:
            Tree(where).git('update-ref', BASE_REF, head)
    return Tree(where)


def check_upstream(tree, base, listed):
    """Say which entries still add something to a base that has upstream's own version."""
    found = still_adds(tree, base, listed)
    for entry, state in found:
        say(f'{state}: {entry.subject}')
    count = collections.Counter(state for _, state in found)
    words = f'this base has upstream\'s own version ({UPSTREAM} in target/ppc/kvm.c): ' \
        f'{count["adds"]} of {len(found)} entries still add something as they are'
    if count['adds'] < len(found):
        raise Error(f'{words}, {count["there"]} are there, {count["adapt"]} do not apply: remove those that are '
                    'there from series/, adapt or remove the others, or choose another base')
    say(f'{words}: look at what they and upstream\'s version both do')


def check_out(tree, commit):
    """Put the branch and the files at COMMIT; until both are there, the tree has no LAID_REF.

    Without it, a run was cut off here, and may have left its locks: what the tree holds is nobody's edit.
    """
    if tree.tip(LAID_REF):
        tree.git('update-ref', '-d', LAID_REF)
    else:
        unlock(tree)
    tree.git('symbolic-ref', 'HEAD', f'refs/heads/{BRANCH}')
    tree.git('reset', '-q', '--hard', commit)
    tree.git('update-ref', LAID_REF, commit)


@contextlib.contextmanager
def one_at_a_time():
    """No other graft or refresh runs meanwhile, and one that was cut off is completed."""
    with locked('graft', 'waiting for another scripts/graft to end'):
        finish()
        yield


def graft(base, names=()):
    """Lay the topics NAMES and what they need, else all, over BASE, which becomes the chosen one."""
    with one_at_a_time():
        listed = entries(with_needs(queue(), names))
        bases.choose(base)
        lay_over(base, listed)


def lay_over(base, listed):
    """Lay the entries LISTED over BASE; only files that change are written."""
    tree = open_tree(base)
    laid = tree.tip(LAID_REF)
    dirty = edited(tree) if laid else []
    if laid and (dirty or tree.tip('HEAD') != laid):
        raise Error(f'the grafted tree has edits that are not in series/ ({(dirty or ["commits"])[0]}): keep '
                    f'them with scripts/graft refresh, or drop them with git -C '
                    f'{tree.path.relative_to(TOP)} reset --hard {LAID_REF}')
    if has_upstream(tree, tree.tip(BASE_REF)):
        check_upstream(tree, tree.tip(BASE_REF), listed)
    commit = lay(tree, tree.tip(BASE_REF), listed)
    if commit != laid:
        check_out(tree, commit)
