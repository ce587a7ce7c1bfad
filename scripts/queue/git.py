# SPDX-License-Identifier: GPL-2.0-or-later
"""Git work trees: commands, worktrees, clones, and the user's identity."""

import contextlib
import os
import pathlib
import shutil
import tempfile

from scripts.lib.system import TOP, Error, culprit, tried

# The commit that the grafted commits are based on; the user may rebase them.
BASE_REF = 'refs/worktree/host-compat-base'
# The last commit that graft made: everything that differs from it is an edit.
GRAFTED_REF = 'refs/worktree/host-compat-grafted'


class Tree:
    """A git work tree.  Parse only what plumbing prints, such as diff-tree: it ignores the user's settings."""

    def __init__(self, path):
        self.path = pathlib.Path(path)

    def git(self, *args, index=None, data=None, check=True, extra=None):
        # reading a tree must not leave a lock behind if git is killed
        env = dict(os.environ, GIT_OPTIONAL_LOCKS='0', **(extra or {}))
        if index:
            env['GIT_INDEX_FILE'] = str(index)
        done = tried(['git', '-c', 'commit.gpgSign=false', '-C', self.path, *args], data, env=env)
        if check and done.returncode:
            words = done.stderr.strip().splitlines() or [f'git {args[0]} failed']
            raise Error(f'{self.path.name}: {culprit(words, words[-1])}')
        return done if not check else done.stdout

    def tip(self, ref):
        return self.git('rev-parse', '--verify', '-q', f'{ref}^{{commit}}', check=False).stdout.strip()

    def show(self, commit, path):
        return self.git('show', f'{commit}:{path}')


@contextlib.contextmanager
def index_of(tree, commit):
    """A temporary index with the files of COMMIT."""
    with tempfile.TemporaryDirectory() as scratch:
        index = pathlib.Path(scratch, 'index')
        tree.git('read-tree', commit, index=index)
        yield index


def worktree(tree, place, commit):
    """A worktree of TREE in PLACE at COMMIT; unchanged files are not written, so that a rebuild is short."""
    copy = Tree(place)
    if not ((place / '.git').exists() and copy.tip('HEAD')):
        shutil.rmtree(place.parent, ignore_errors=True)
        tree.git('worktree', 'prune')
        tree.git('worktree', 'add', '-q', '--force', '--detach', str(place), commit)
    copy.git('checkout', '-q', '--force', '--detach', commit)
    # refs/worktree is separate for each worktree
    copy.git('update-ref', BASE_REF, tree.tip(BASE_REF))
    return copy


def clone(tree, place):
    """A clone of TREE in PLACE that has no files and shares the objects of TREE."""
    copy = Tree(place)
    tree.git('clone', '-q', '--shared', '--no-checkout', str(tree.path), str(place))
    for ref in (BASE_REF, GRAFTED_REF):
        copy.git('update-ref', ref, tree.tip(ref))
    return copy


def identity():
    """The user's identity from git's configuration, or a placeholder."""
    known = Tree(TOP).git('config', '--get-regexp', r'^user\.(name|email)$', check=False).stdout
    user = {'name': 'graft', 'email': 'graft@localhost'}
    user |= {line.split()[0][5:]: line.split(' ', 1)[1] for line in known.splitlines()}
    return {f'GIT_{who}_{what.upper()}': value for who in ('AUTHOR', 'COMMITTER') for what, value in user.items()}


def need_identity():
    for what in ('user.name', 'user.email'):
        if not Tree(TOP).git('config', what, check=False).stdout.strip():
            raise Error(f'git has no identity for the sign-off: set it with git config --global {what} ...')
