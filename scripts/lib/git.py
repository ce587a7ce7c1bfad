# Copyright (c) 2026 QEMU contributors
# SPDX-License-Identifier: GPL-2.0-or-later
"""A git work tree, and what is made of it."""

import os
import pathlib
import shutil
import subprocess

from lib.system import TOP, Error, culprit

BRANCH = 'host-compat'
# Where a worktree's base is kept: the branch itself may be rebased at will.
BASE_REF = 'refs/worktree/host-compat-base'
# The last commit that graft itself left: what differs was edited there.
LAID_REF = 'refs/worktree/host-compat-laid'


class Tree:
    """A git work tree, and commits made in it without touching its files.

    What is read from git's output comes from commands that know no settings of
    the user's, such as diff-tree; no commit here is anybody's to sign.
    """

    def __init__(self, path):
        self.path = pathlib.Path(path)

    def git(self, *args, index=None, data=None, check=True, extra=None):
        # to look at a tree leaves no lock in it, whatever happens to git
        env = dict(os.environ, LC_ALL='C', GIT_OPTIONAL_LOCKS='0', **(extra or {}))
        if index:
            env['GIT_INDEX_FILE'] = str(index)
        done = subprocess.run(['git', '-c', 'commit.gpgSign=false', '-C', self.path, *args], input=data, env=env,
                              check=False, stdin=None if data is not None else subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if check and done.returncode:
            words = done.stderr.strip().splitlines() or [f'git {args[0]} failed']
            raise Error(f'{self.path.name}: {culprit(words, words[-1])}')
        return done if not check else done.stdout

    def tip(self, ref):
        return self.git('rev-parse', '--verify', '-q', f'{ref}^{{commit}}', check=False).stdout.strip()

    def show(self, commit, path):
        return self.git('show', f'{commit}:{path}')


def unlock(tree):
    """Remove the locks of a git that was killed in TREE."""
    for name in ('index.lock', 'HEAD.lock', 'locked'):
        (tree.path / tree.git('rev-parse', '--git-path', name).strip()).unlink(missing_ok=True)


def worktree(tree, place, commit):
    """A worktree of TREE in PLACE at COMMIT; files that do not change are not written."""
    copy = Tree(place)
    if not ((place / '.git').exists() and copy.tip('HEAD')):
        shutil.rmtree(place.parent, ignore_errors=True)
        tree.git('worktree', 'prune')
        tree.git('worktree', 'add', '-q', '--force', '--detach', str(place), commit)
    copy.git('checkout', '-q', '--force', '--detach', commit)
    # every worktree has its own
    copy.git('update-ref', BASE_REF, tree.tip(BASE_REF))
    return copy


def clone(tree, place):
    """A clone of TREE in PLACE, without files and with the objects of TREE."""
    copy = Tree(place)
    tree.git('clone', '-q', '--shared', '--no-checkout', str(tree.path), str(place))
    for ref in (BASE_REF, LAID_REF):
        copy.git('update-ref', ref, tree.tip(ref))
    return copy


def identity():
    """The caller's identity as git knows it here; a nameless one where it does not."""
    known = Tree(TOP).git('config', '--get-regexp', r'^user\.(name|email)$', check=False).stdout
    user = {'name': 'graft', 'email': 'graft@localhost'}
    user |= {line.split()[0][5:]: line.split(' ', 1)[1] for line in known.splitlines()}
    return {f'GIT_{who}_{what.upper()}': value
            for who in ('AUTHOR', 'COMMITTER') for what, value in user.items()}


def need_identity():
    for what in ('user.name', 'user.email'):
        if not Tree(TOP).git('config', what, check=False).stdout.strip():
            raise Error(f'git does not know who signs off: git config --global {what} ...')
