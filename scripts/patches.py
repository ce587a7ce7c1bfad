#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The patch queue in series/, and the commits that it becomes on a base."""

import email
import itertools
import os
import pathlib
import re
import shutil
import subprocess
import tempfile

from debian import TOP, Error

BRANCH = 'host-compat'
# Where a worktree's base is kept: the branch itself may be rebased at will.
BASE_REF = 'refs/worktree/host-compat-base'
# The last commit that graft itself left: what differs was edited there.
LAID_REF = 'refs/worktree/host-compat-laid'
# What a target/ppc/kvm.c names that has upstream's own version
UPSTREAM = 'KVM_CAP_PPC_COMPAT_CAPS'
COVER_SUBJECT = 'ppc: hold guests inside the CPU modes that a KVM host really has'


class Tree:
    """A git work tree, and commits made in it without touching its files.

    What is read from git's output comes from commands that know no settings of
    the user's, such as diff-tree; no commit here is anybody's to sign.
    """

    def __init__(self, path):
        self.path = pathlib.Path(path)

    def git(self, *args, index=None, data=None, check=True, extra=None):
        env = dict(os.environ, LC_ALL='C', **(extra or {}))
        if index:
            env['GIT_INDEX_FILE'] = str(index)
        done = subprocess.run(['git', '-c', 'commit.gpgSign=false', '-C', self.path, *args], input=data, env=env,
                              check=False, stdin=None if data is not None else subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if check and done.returncode:
            words = done.stderr.strip().splitlines() or [f'git {args[0]} failed']
            raise Error(f'{self.path.name}: {words[-1]}')
        return done if not check else done.stdout

    def tip(self, ref):
        return self.git('rev-parse', '--verify', '-q', f'{ref}^{{commit}}', check=False).stdout.strip()

    def show(self, commit, path):
        return self.git('show', f'{commit}:{path}')


def worktree(tree, place, commit):
    """A worktree of TREE in PLACE at COMMIT; files that do not change are not written."""
    copy = Tree(place)
    if not ((place / '.git').exists() and copy.tip('HEAD')):
        shutil.rmtree(place.parent, ignore_errors=True)
        tree.git('worktree', 'prune')
        tree.git('worktree', 'add', '-q', '--force', '--detach', str(place), commit)
    copy.git('checkout', '-q', '--force', '--detach', commit)
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


class Entry:
    """One file of series/: headers, message, hunks."""

    def __init__(self, path):
        self.path = path
        head, mark, self.diff = path.read_text().partition('\n---\n')
        message = email.message_from_string(head)
        self.subject = ' '.join((message['Subject'] or '').split())
        self.carries = (message['Carries'] or '').split()
        self.body = message.get_payload().strip()
        if not self.subject or not self.body or not mark:
            raise Error(f'series/{path.name}: an entry is a Subject: header, a message, a line '
                        'with --- and hunks')

    @property
    def message(self):
        return f'{self.subject}\n\n{self.body}\n'


def queue():
    return [Entry(path) for path in sorted((TOP / 'series').glob('*.patch'))]


def function_of(line):
    """The function that an @@ LINE names: its parameters can differ from base to base."""
    text = line.split('@@', 2)[2].strip()
    call = re.search(r'(\w+)\(', text)
    return call[1] if call else text


def functions(diff):
    """{file: [function of each hunk's @@ line, repeats folded]}, C files only."""
    found, name = {}, None
    for line in diff.splitlines():
        if line.startswith('+++ b/'):
            name = line[6:]
        elif line.startswith('@@ ') and name and name.endswith(('.c', '.h')):
            found.setdefault(name, []).append(function_of(line))
    return {name: [func for func, _ in itertools.groupby(hunks)] for name, hunks in found.items()}


def check_places(tree, entry, before, after):
    """Every hunk must be in the function that its @@ line names."""
    landed = functions(tree.git('diff-tree', '-p', '-U1', before, after, '--', *functions(entry.diff)))
    for name, wanted in functions(entry.diff).items():
        if landed.get(name) != wanted:
            odd = next((w for w in wanted if w not in landed.get(name, [])), wanted[-1])
            raise Error(f'series/{entry.path.name}: {name}: the hunk for "{odd}" lands elsewhere on '
                        'this base: give it more context, or adapt it')


def carried(tree, entry, name):
    """The blob of a file that ENTRY carries."""
    if not (TOP / name).exists():
        raise Error(f'series/{entry.path.name}: Carries: names {name}, which is not here')
    return tree.git('hash-object', '-w', '--path', name, str(TOP / name)).strip()


def apply_entry(tree, entry, parent, index, when):
    """Commit ENTRY on top of PARENT; returns the commit."""
    tree.git('read-tree', parent, index=index)
    if entry.diff.strip():
        done = tree.git('apply', '--cached', '--recount', '--whitespace=nowarn', '-', index=index,
                        data=entry.diff, check=False)
        if done.returncode:
            failed = re.search(r'patch failed: (.*?):(\d+)', done.stderr)
            where = f'{failed[1]}: the hunk at line {failed[2]}' if failed else \
                done.stderr.strip().splitlines()[0].replace('error: ', '')
            raise Error(f'series/{entry.path.name}: {where} does not apply to this base: adapt the '
                        'entry, or graft a base that it fits')
    for name in entry.carries:
        blob = carried(tree, entry, name)
        there = tree.git('ls-files', '-s', '--', name, index=index).split()
        if there and there[1] != blob:
            raise Error(f'series/{entry.path.name}: {name} is in this base already, and not as here: adapt the '
                        'entry, or graft a base that it fits')
        tree.git('update-index', '--add', '--cacheinfo', f'100644,{blob},{name}', index=index)
    new = tree.git('write-tree', index=index).strip()
    date = {'GIT_AUTHOR_DATE': when, 'GIT_COMMITTER_DATE': when}
    commit = tree.git('commit-tree', '-p', parent, '-F', '-', new, data=entry.message,
                      extra={**identity(), **date}).strip()
    check_places(tree, entry, parent, commit)
    return commit


def lay(tree, base, entries):
    """Commit every entry on BASE, files untouched; returns the last commit."""
    seconds = int(tree.git('show', '-s', '--format=%ct', base))
    commit = base
    with tempfile.TemporaryDirectory() as scratch:
        for number, entry in enumerate(entries, 1):
            commit = apply_entry(tree, entry, commit, pathlib.Path(scratch, 'index'),
                                 f'{seconds + number} +0000')
    return commit


def says(tree, tip):
    """The messages and trees of the commits up to TIP, whoever committed them."""
    return tree.git('log', '--format=%T %B', f'{BASE_REF}..{tip}')


def has_upstream(tree, base):
    """Whether BASE asks the kernel by itself: upstream's own version of this series."""
    return bool(tree.git('grep', '-l', UPSTREAM, base, '--', 'target/ppc/kvm.c', check=False).stdout)


def is_there(tree, entry, commit, index):
    """Whether COMMIT has all of ENTRY, which does not apply to it: it could be taken back."""
    tree.git('read-tree', commit, index=index)
    for name in entry.carries:
        if tree.git('ls-files', '-s', '--', name, index=index).split()[1:2] != [carried(tree, entry, name)]:
            return False
    return not entry.diff.strip() or not tree.git(
        'apply', '--cached', '--check', '-R', '--recount', '-', index=index, data=entry.diff, check=False).returncode


def still_adds(tree, base, entries):
    """(entry, 'there', 'adds' or 'adapt') of each entry, those that add something being laid in turn."""
    found, commit, when = [], base, tree.git('show', '-s', '--format=%ct +0000', base).strip()
    with tempfile.TemporaryDirectory() as scratch:
        index = pathlib.Path(scratch, 'index')
        for entry in entries:
            # first whether it applies: lines that an entry removes could be put back anywhere
            try:
                commit = apply_entry(tree, entry, commit, index, when)
                found.append((entry, 'adds'))
            except Error:
                found.append((entry, 'there' if is_there(tree, entry, commit, index) else 'adapt'))
    return found


def cover_text():
    return (TOP / 'docs/cover-letter.txt').read_text().split('\n', 2)[2].strip()


def write_mails(tree, output, version=None, rfc=False):
    """The series as files in OUTPUT; returns them in order, cover letter first."""
    output = pathlib.Path(output).resolve()
    shutil.rmtree(output, ignore_errors=True)
    options = [f'--reroll-count={version}'] if version else []
    options += ['--rfc'] if rfc else []
    names = tree.git('-c', 'format.signOff=true', '-c', 'format.from=false', 'format-patch',
                     '--cover-letter', '--no-base', '--src-prefix=a/', '--dst-prefix=b/',
                     '--diff-algorithm=histogram', *options, '-o', str(output), f'{BASE_REF}..HEAD',
                     extra=identity()).splitlines()
    cover = pathlib.Path(names[0])
    text = cover.read_text().replace('*** SUBJECT HERE ***', COVER_SUBJECT)
    cover.write_text(text.replace('*** BLURB HERE ***', cover_text()))
    return [pathlib.Path(name) for name in names]
