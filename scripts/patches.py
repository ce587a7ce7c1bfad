#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The topics in series/, and the commits that they become on a base."""

import email
import graphlib
import itertools
import os
import pathlib
import re
import shutil
import subprocess
import tempfile

from debian import TOP, Error, culprit
from parts import DEVICES

BRANCH = 'host-compat'
# Where a worktree's base is kept: the branch itself may be rebased at will.
BASE_REF = 'refs/worktree/host-compat-base'
# The last commit that graft itself left: what differs was edited there.
LAID_REF = 'refs/worktree/host-compat-laid'
# What a target/ppc/kvm.c names that has upstream's own version
UPSTREAM = 'KVM_CAP_PPC_COMPAT_CAPS'
SERIES = TOP / 'series'
# What "make ..." measures, as a cover letter asks for it
FIGURES = ('matrix', 'bench')


class Unknown(Error):
    """Bad input, for exit code 2."""


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


class Entry:
    """One patch of a topic: headers, message, hunks."""

    def __init__(self, path):
        self.path, self.topic, self.root = path, path.parent.name, path.parents[2]
        self.name = str(path.relative_to(self.root))
        head, mark, self.diff = path.read_text().partition('\n---\n')
        message = email.message_from_string(head)
        self.subject = folded(message, 'Subject')
        self.carries = folded(message, 'Carries').split()
        self.body = message.get_payload().strip()
        if not self.subject or not self.body or not mark:
            raise Error(f'{self.name}: an entry is a Subject: header, a message, a line with --- and hunks')

    @property
    def message(self):
        return f'{self.subject}\n\n{self.body}\n'

    @property
    def slug(self):
        """The file's name without its number."""
        return re.sub(r'^\d+-', '', self.path.name)


class Topic:
    """One folder of series/: a series that stands alone, but for the topics that it needs."""

    def __init__(self, folder):
        self.name, cover = folder.name, folder / 'cover.txt'
        if not cover.exists():
            raise Error(f'series/{self.name} has no cover.txt: write one, with Subject:, Needs: and what it is for')
        message = email.message_from_string(cover.read_text())
        self.subject, self.text = folded(message, 'Subject'), message.get_payload().strip()
        self.needs = [name for name in folded(message, 'Needs').split() if name != 'none']
        self.figures = folded(message, 'Figures').split()
        self.entries = [Entry(path) for path in sorted(folder.glob('*.patch'))]
        if not self.subject or not self.text:
            raise Error(f'series/{self.name}/cover.txt: a cover is a Subject: header, an empty line and a text')
        if not set(self.figures) <= set(FIGURES):
            raise Error(f'series/{self.name}/cover.txt: Figures: takes {" and ".join(FIGURES)}')
        if not self.entries:
            raise Error(f'series/{self.name} has no entry: add one, or remove the folder')


def folded(message, header):
    return ' '.join((message[header] or '').split())


def entries(topics):
    return [entry for topic in topics for entry in topic.entries]


def check_once(listed):
    """No entry is in the queue twice, and no file is carried twice."""
    seen = {}
    for entry in listed:
        for what in (f'the subject "{entry.subject}"', f'the name {entry.slug}',
                     *(f'the carried file {name}' for name in entry.carries)):
            if seen.setdefault(what, entry) is not entry:
                raise Error(f'{seen[what].name} and {entry.name} both have {what}: keep it in one of them')


def queue(folder=SERIES):
    """{name: topic} of FOLDER in the order that Needs: gives, by the alphabet where that is free."""
    lost = next(iter(sorted(folder.glob('*.patch'))), None)
    if lost:
        raise Error(f'series/{lost.name} is in no topic: move it into a folder of series/')
    found = {path.name: Topic(path) for path in sorted(folder.iterdir()) if path.is_dir()}
    for topic in found.values():
        for name in topic.needs:
            if name not in found:
                raise Error(f'series/{topic.name}/cover.txt: {name} is not a topic: there are {", ".join(found)}')
    order = graphlib.TopologicalSorter({name: topic.needs for name, topic in found.items()})
    try:
        order.prepare()
    except graphlib.CycleError as e:
        raise Error(f'series/: topics need each other in a circle: {", ".join(reversed(e.args[1]))}') from None
    ready, laid = [], []
    while order:
        ready = sorted([*ready, *order.get_ready()])
        laid.append(ready.pop(0))
        order.done(laid[-1])
    check_once(entries(found.values()))
    return {name: found[name] for name in laid}


def with_needs(topics, names):
    """The topics called NAMES and all that they need, in the order of TOPICS; all where there are no NAMES."""
    wanted, rest = set(), list(names or topics)
    while rest:
        name = rest.pop()
        if name not in topics:
            raise Unknown(f'{name} is not a topic: there are {", ".join(topics)}')
        if name not in wanted:
            wanted.add(name)
            rest += topics[name].needs
    return [topic for topic in topics.values() if topic.name in wanted]


def asked(topics, name):
    """The topic called NAME; all where that is empty."""
    return with_needs(topics, [name])[-1:] if name else [*topics.values()]


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
            raise Error(f'{entry.name}: {name}: the hunk for "{odd}" lands elsewhere on this base: give it more '
                        'context, or adapt it')


def carried(tree, entry, name):
    """The blob of a file that ENTRY carries, as ENTRY leaves it."""
    path = entry.root / name
    if not path.exists():
        raise Error(f'{entry.name}: Carries: names {name}, which is not here')
    return tree.git('hash-object', '-w', '--path', name, str(path)).strip()


def apply_entry(tree, entry, parent, index, blob=carried):
    """Apply ENTRY to PARENT, with a BLOB for each file that it carries; returns the tree."""
    tree.git('read-tree', parent, index=index)
    if entry.diff.strip():
        done = tree.git('apply', '--cached', '--recount', '--whitespace=nowarn', '-', index=index,
                        data=entry.diff, check=False)
        if done.returncode:
            failed = re.search(r'patch failed: (.*?):(\d+)', done.stderr)
            where = f'{failed[1]}: the hunk at line {failed[2]}' if failed else \
                done.stderr.strip().splitlines()[0].replace('error: ', '')
            raise Error(f'{entry.name}: {where} does not apply to this base: adapt the entry, or graft a base that '
                        'it fits')
    for name in entry.carries:
        wanted = blob(tree, entry, name)
        there = tree.git('ls-files', '-s', '--', name, index=index).split()
        if there and there[1] != wanted:
            raise Error(f'{entry.name}: {name} is in this base already, and not as here: adapt the entry, or graft a '
                        'base that it fits')
        tree.git('update-index', '--add', '--cacheinfo', f'100644,{wanted},{name}', index=index)
    new = tree.git('write-tree', index=index).strip()
    check_places(tree, entry, parent, new)
    return new


def commit_entry(tree, entry, parent, index, when):
    """Commit ENTRY on top of PARENT; returns the commit."""
    date = {'GIT_AUTHOR_DATE': when, 'GIT_COMMITTER_DATE': when}
    return tree.git('commit-tree', '-p', parent, '-F', '-', apply_entry(tree, entry, parent, index),
                    data=entry.message, extra={**identity(), **date}).strip()


def lay(tree, base, listed):
    """Commit the entries on BASE, files untouched; returns the last commit."""
    seconds = int(tree.git('show', '-s', '--format=%ct', base))
    commit = base
    with tempfile.TemporaryDirectory() as scratch:
        for number, entry in enumerate(listed, 1):
            commit = commit_entry(tree, entry, commit, pathlib.Path(scratch, 'index'), f'{seconds + number} +0000')
    return commit


def lay_topic(tree, topics, name):
    """Lay a topic on what it needs; returns the last commit of that, and its own."""
    *needs, topic = with_needs(topics, [name])
    below = lay(tree, tree.tip(BASE_REF), entries(needs))
    return below, lay(tree, below, topic.entries)


def edited(tree):
    """Paths that differ from the branch's tip, new ones included."""
    lines = tree.git('status', '--porcelain', '-z', '-uall').split('\0')
    return [line[3:] for line in lines if line and line[3:] != str(DEVICES)]


def says(tree, tip):
    """The messages and trees of the commits up to TIP, whoever committed them."""
    return tree.git('log', '--format=%T %B', f'{BASE_REF}..{tip}')


def has_upstream(tree, base):
    """Whether BASE asks the kernel by itself: upstream's own version of this series."""
    return bool(tree.git('grep', '-l', UPSTREAM, base, '--', 'target/ppc/kvm.c', check=False).stdout)


def without(tree, entry, commit, index):
    """The tree of COMMIT with ENTRY taken back; None where it is not in there."""
    tree.git('read-tree', commit, index=index)
    if entry.diff.strip() and tree.git('apply', '--cached', '-R', '--recount', '-', index=index, data=entry.diff,
                                       check=False).returncode:
        return None
    for name in entry.carries:
        if tree.git('ls-files', '-s', '--', name, index=index).split()[1:2] != [carried(tree, entry, name)]:
            return None
        tree.git('update-index', '--force-remove', '--', name, index=index)
    return tree.git('write-tree', index=index).strip()


def still_adds(tree, base, listed):
    """(entry, 'there', 'adds' or 'adapt') of each entry, those that add something being laid in turn."""
    states, commit, when = {}, base, tree.git('show', '-s', '--format=%ct +0000', base).strip()
    with tempfile.TemporaryDirectory() as scratch:
        index = pathlib.Path(scratch, 'index')
        for entry in listed:
            # first whether it applies: lines that an entry removes could be put back anywhere
            try:
                commit = commit_entry(tree, entry, commit, index, when)
                states[entry] = 'adds'
            except Error:
                states[entry] = 'adapt'
        # from the last on: a later one can have changed what an earlier one brought
        for entry in reversed([entry for entry, state in states.items() if state == 'adapt']):
            before = without(tree, entry, base, index)
            if before:
                states[entry], base = 'there', before
    return [*states.items()]


def write_mails(tree, topic, commits, output, version=None, rfc=False):
    """TOPIC, which is COMMITS, as files in OUTPUT; returns them in order, cover letter first."""
    output = pathlib.Path(output).resolve()
    shutil.rmtree(output, ignore_errors=True)
    options = [f'--reroll-count={version}'] if version else []
    options += ['--rfc'] if rfc else []
    names = tree.git('-c', 'format.signOff=true', '-c', 'format.from=false', 'format-patch',
                     '--cover-letter', '--no-base', '--src-prefix=a/', '--dst-prefix=b/',
                     '--diff-algorithm=histogram', *options, '-o', str(output), '..'.join(commits),
                     extra=identity()).splitlines()
    cover = pathlib.Path(names[0])
    text = cover.read_text().replace('*** SUBJECT HERE ***', topic.subject)
    cover.write_text(text.replace('*** BLURB HERE ***', topic.text))
    return [pathlib.Path(name) for name in names]
