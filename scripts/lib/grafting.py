# Copyright (c) 2026 QEMU contributors
# SPDX-License-Identifier: GPL-2.0-or-later
"""The grafted tree: a source package or a checkout, with the series as commits."""

import contextlib
import re
import shutil
import subprocess

from lib import bases
from lib.commits import commit_entries, edited, has_change, has_word
from lib.debian import Suite
from lib.git import BASE_REF, GRAFTED_REF, Tree, identity, unlock
from lib.queue import entries, queue, with_needs
from lib.refresh import finish
from lib.system import TOP, Error, culprit, locked, say, scratch
from lib.upstream import FUNCTION, HEADER


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
            raise Error(f'cannot unpack {dsc.name} ({culprit(words, words[-1])}): check the disk, then run this again')
        version = re.search(r'^Version: (.*)$', dsc.read_text(), re.M)[1]
        shutil.rmtree(half / '.pc', ignore_errors=True)
        tree = Tree(half)
        tree.git('init', '-q')
        date = subprocess.run(['dpkg-parsechangelog', '-l', half / 'debian/changelog', '-S', 'Timestamp'],
                              check=True, text=True, capture_output=True).stdout.strip()
        stamp = {f'GIT_{who}_DATE': f'{date} +0000' for who in ('AUTHOR', 'COMMITTER')}
        tree.git('add', '-A', '-f', '.')
        tree.git('commit', '-q', '--no-verify', '-m', f'Debian source package qemu {version}',
                 extra={**identity(), **stamp})
        for ref in (BASE_REF, GRAFTED_REF):
            tree.git('update-ref', ref, 'HEAD')
        half.rename(where)


def add_worktree(checkout, where):
    """Add a worktree to a QEMU checkout; its HEAD is detached, so that several can share a repository."""
    owner = Tree(checkout)
    prefix = owner.git('rev-parse', '--show-prefix', check=False)
    # with a prefix, it is a subdirectory of some other repository
    if not (owner.path / 'target/ppc/compat.c').exists() or prefix.returncode or prefix.stdout.strip():
        raise Error(f'{checkout} is not a git checkout of QEMU')
    owner.git('worktree', 'prune')
    where.parent.mkdir(parents=True, exist_ok=True)
    owner.git('worktree', 'add', '-q', '--detach', str(where), 'HEAD')
    for ref in (BASE_REF, GRAFTED_REF):
        Tree(where).git('update-ref', ref, 'HEAD')


def open_tree(base):
    """The tree of BASE, created if it does not exist yet."""
    where = bases.home() / 'src'
    # if the checkout of a worktree was removed or cloned again, HEAD is invalid
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


def check_base(tree, base):
    """Check that BASE has all of upstream's version, or nothing of it that the series would meet."""
    if has_word(tree, base, *FUNCTION) and not has_word(tree, base, *HEADER):
        raise Error(f'{FUNCTION[0]} of this base has {FUNCTION[1]}, but its {HEADER[0]} has no {HEADER[1]}: choose a '
                    'base that has both, or neither')


def check_out(tree, commit):
    """Set HEAD and the files to COMMIT.

    GRAFTED_REF is missing meanwhile.  If it is missing at the start, an earlier run was interrupted here: it
    may have left locks, and what differs in the tree is not the user's edit.
    """
    if tree.tip(GRAFTED_REF):
        tree.git('update-ref', '-d', GRAFTED_REF)
    else:
        unlock(tree)
    tree.git('update-ref', '--no-deref', 'HEAD', commit)
    tree.git('reset', '-q', '--hard', commit)
    tree.git('update-ref', GRAFTED_REF, commit)


@contextlib.contextmanager
def one_at_a_time():
    """Keep other grafts and refreshes out, and complete a refresh that was interrupted."""
    with locked('graft', 'waiting for another scripts/graft to end'):
        finish()
        yield


def graft(base, names=()):
    """Choose BASE, and apply the topics NAMES and what they need, or else all topics."""
    with one_at_a_time():
        listed = entries(with_needs(queue(), names))
        bases.choose(base)
        apply_to(base, listed)


def apply_to(base, listed):
    """Apply the entries LISTED to BASE; only files that change are written."""
    tree = open_tree(base)
    grafted = tree.tip(GRAFTED_REF)
    dirty = edited(tree) if grafted else []
    if grafted and (dirty or tree.tip('HEAD') != grafted):
        raise Error(f'the grafted tree has edits that are not in series/ ({(dirty or ["commits"])[0]}): keep '
                    f'them with scripts/graft refresh, or drop them with git -C '
                    f'{tree.path.relative_to(TOP)} reset --hard {GRAFTED_REF}')
    base = tree.tip(BASE_REF)
    check_base(tree, base)
    for entry in (entry for entry in listed if has_change(tree, base, entry)):
        say(f'{entry.name} is passed over: {entry.unless[0]} of this base has {entry.unless[1]}')
    commit = commit_entries(tree, base, listed)
    if commit != grafted:
        check_out(tree, commit)
