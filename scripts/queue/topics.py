# SPDX-License-Identifier: GPL-2.0-or-later
"""The queue: the topics in series/, and their entries."""

import email
import functools
import graphlib
import pathlib
import re
import tempfile

from scripts.lib.system import TOP, Error, Unknown
from scripts.queue.git import Tree

SERIES = TOP / 'series'


def folded(message, header):
    return ' '.join((message[header] or '').split())


def git_apply(place, diff, *options):
    """Run git apply in PLACE, which need not be in a repository."""
    alone = {'GIT_CEILING_DIRECTORIES': str(place.resolve().parent)}
    return Tree(place).git('apply', '--recount', '--whitespace=nowarn', *options, '-', data=diff, extra=alone)


def applied(entry, name, text, *options):
    """TEXT, the content of the file NAME, after git apply of ENTRY's hunks for it."""
    with tempfile.TemporaryDirectory() as scratch:
        path = pathlib.Path(scratch, name)
        path.parent.mkdir(parents=True)
        path.write_text(text)
        try:
            git_apply(pathlib.Path(scratch), entry.diff, f'--include={name}', *options)
        except Error:
            raise Error(f'{entry.name}: the hunks for {name} do not fit the file in this repository, which has the '
                        'change of every entry: adapt one of them') from None
        return path.read_text()


class Entry:
    """One patch of a topic: headers, message, hunks."""

    def __init__(self, path):
        self.path, self.topic, self.root = path, path.parent.name, path.parents[2]
        # queue() sets the entries that follow
        self.later = ()
        self.name = str(path.relative_to(self.root))
        head, mark, self.diff = path.read_text().partition('\n---\n')
        message = email.message_from_string(head)
        self.subject = folded(message, 'Subject')
        self.carries = folded(message, 'Carries').split()
        # the file and the word in it that tell that a base has this entry's change
        self.unless = folded(message, 'Unless').split()
        self.body = message.get_payload().strip()
        if not self.subject or not self.body or not mark:
            raise Error(f'{self.name}: an entry needs a Subject: header, a message, a line with --- and hunks')
        if len(self.unless) not in (0, 2):
            raise Error(f'{self.name}: Unless: takes a file and a word')

    @property
    def message(self):
        return f'{self.subject}\n\n{self.body}\n'

    @property
    def changes(self):
        return re.findall(r'^\+\+\+ b/(.*)', self.diff, re.M)

    @functools.cached_property
    def adds(self):
        """{file that it carries: the content before later entries change it}"""
        found = {}
        for name in self.carries:
            path = self.root / name
            if not path.exists():
                raise Error(f'{self.name}: Carries: names {name}, which does not exist: add it, or correct the header')
            found[name] = path.read_text()
            for entry in reversed([entry for entry in self.later if name in entry.changes]):
                found[name] = applied(entry, name, found[name], '--reverse')
        return found

    @property
    def slug(self):
        """The file's name without its number."""
        return re.sub(r'^\d+-', '', self.path.name)


class Topic:
    """One directory of series/: a series that depends only on the topics that it needs."""

    def __init__(self, folder):
        self.name, cover = folder.name, folder / 'cover.txt'
        if not cover.exists():
            raise Error(f'series/{self.name} has no cover.txt: write one, with Subject:, Needs: and a text')
        message = email.message_from_string(cover.read_text())
        self.subject, self.text = folded(message, 'Subject'), message.get_payload().strip()
        self.needs = [name for name in folded(message, 'Needs').split() if name != 'none']
        self.entries = [Entry(path) for path in sorted(folder.glob('*.patch'))]
        if not self.subject or not self.text:
            raise Error(f'series/{self.name}/cover.txt: a cover needs a Subject: header, an empty line and a text')
        if not self.entries:
            raise Error(f'series/{self.name} has no entry: add one, or remove the directory')


def entries(topics):
    return [entry for topic in topics for entry in topic.entries]


def check_once(listed):
    """Check that no entry and no carried file is in the queue twice."""
    seen = {}
    for entry in listed:
        for what in (f'the subject "{entry.subject}"', f'the name {entry.slug}',
                     *(f'the carried file {name}' for name in entry.carries)):
            if seen.setdefault(what, entry) is not entry:
                raise Error(f'{seen[what].name} and {entry.name} both have {what}: keep it in one of them')


def queue(folder=SERIES):
    """{name: topic} of FOLDER, in the order that Needs: requires, otherwise alphabetically."""
    lost = next(iter(sorted(folder.glob('*.patch'))), None)
    if lost:
        raise Error(f'series/{lost.name} is not in a topic: move it into a directory of series/')
    found = {path.name: Topic(path) for path in sorted(folder.iterdir()) if path.is_dir()}
    for topic in found.values():
        for name in topic.needs:
            if name not in found:
                raise Error(f'series/{topic.name}/cover.txt: {name} is not a topic: choose one of {", ".join(found)}')
    order = graphlib.TopologicalSorter({name: topic.needs for name, topic in found.items()})
    try:
        order.prepare()
    except graphlib.CycleError as e:
        raise Error(f'series/: topics need each other in a circle: {", ".join(reversed(e.args[1]))}') from None
    ready, names = [], []
    while order:
        ready = sorted([*ready, *order.get_ready()])
        names.append(ready.pop(0))
        order.done(names[-1])
    topics = {name: found[name] for name in names}
    listed = entries(topics.values())
    check_once(listed)
    for position, entry in enumerate(listed, 1):
        entry.later = listed[position:]
    return topics


def with_needs(topics, names):
    """The topics NAMES and all that they need, in the order of TOPICS; all topics if NAMES is empty."""
    wanted, rest = set(), list(names or topics)
    while rest:
        name = rest.pop()
        if name not in topics:
            raise Unknown(f'{name} is not a topic: choose one of {", ".join(topics)}')
        if name not in wanted:
            wanted.add(name)
            rest += topics[name].needs
    return [topic for topic in topics.values() if topic.name in wanted]


def asked(topics, name):
    """The topic NAME, or all topics if NAME is empty."""
    return with_needs(topics, [name])[-1:] if name else [*topics.values()]
