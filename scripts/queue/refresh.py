# Copyright (c) 2026 QEMU contributors
# SPDX-License-Identifier: GPL-2.0-or-later
"""Writing edits of the grafted tree back to the topics that are applied there."""

import collections
import itertools
import os
import pathlib
import re
import shutil
import tempfile
from typing import NamedTuple

from scripts.lib.system import TOP, Error, scratch, write_whole
from scripts.queue import bases
from scripts.queue.commits import apply_entry, commit_entries, edited, says
from scripts.queue.git import BASE_REF, GRAFTED_REF, Tree, unlock
from scripts.queue.topics import SERIES, applied, entries, queue, with_needs

SPDX = 'GPL-2.0-or-later'
# Lines of context on each side of a hunk; the first number that makes the hunk's place unique is used.
CONTEXT = (1, 2, 3)


class Step(NamedTuple):
    """A commit of the branch with the edits that belong to it: its message, the trees before and after it."""
    subject: str
    body: str
    before: str
    after: str


def widen(hunk, old_lines):
    """Give HUNK (a -U1 hunk: header and lines) the context that makes its place unique."""
    start, new, func = re.match(r'@@ -(\d+)(?:,\d+)? \+(\d+)(?:,\d+)? @@(.*)', hunk[0]).groups()
    start, new = int(start), int(new)
    body = hunk[1:]
    shown = [line[1:] for line in body if line[:1] in (' ', '-')]

    def certain(lines):
        text = '\n'.join(lines)
        return ('\n' + '\n'.join(old_lines) + '\n').count('\n' + text + '\n') == 1

    for extra in range(len(CONTEXT)):
        first, last = max(0, start - 1 - extra), min(len(old_lines), start - 1 + len(shown) + extra)
        lines = old_lines[first:start - 1] + shown + old_lines[start - 1 + len(shown):last]
        if certain(lines) or extra == len(CONTEXT) - 1:
            before = [' ' + line for line in old_lines[first:start - 1]]
            after = [' ' + line for line in old_lines[start - 1 + len(shown):last]]
            count = len(before) + len(after)
            added = sum(line[:1] == '+' for line in body)
            removed = sum(line[:1] == '-' for line in body)
            kept = sum(line[:1] == ' ' for line in body) + count
            return [f'@@ -{first + 1},{removed + kept} +{new - start + first + 1},{added + kept} @@{func}',
                    *before, *body, *after]
    return hunk


def hunks_of(tree, step, names):
    """What STEP changes in NAMES, with as little context as each hunk needs."""
    out = []
    for name in names:
        text = tree.git('diff-tree', '-p', '-U1', '--no-renames', '--diff-algorithm=histogram',
                        step.before, step.after, '--', name)
        lines = text.splitlines()
        starts = [i for i, line in enumerate(lines) if line.startswith('@@ ')] + [len(lines)]
        out += [line for line in lines[:starts[0]] if not line.startswith('index ')]
        old = tree.show(step.before, name).split('\n')[:-1]
        for first, last in itertools.pairwise(starts):
            out += widen(lines[first:last], old)
    return '\n'.join(out) + '\n' if out else ''


def changed(tree, step, kind):
    """The files that STEP adds (A) or changes (a)."""
    return tree.git('diff-tree', '-r', '--name-only', '--no-renames', f'--diff-filter={kind}', step.before,
                    step.after).split()


def text_of(tree, step, old):
    """The text of STEP's entry: OLD, byte for byte, if that still produces STEP."""
    with tempfile.TemporaryDirectory() as folder:
        index = pathlib.Path(folder, 'index')
        tree.git('read-tree', step.before, index=index)
        try:
            if old and old.message == f'{step.subject}\n\n{step.body}\n' and step.after == apply_entry(
                    tree, old, step.before, index,
                    lambda tree, _, name: tree.git('rev-parse', '--verify', '-q', f'{step.after}:{name}').strip()):
                return old.path.read_text()
        except Error:
            # another entry changed the context of its hunks
            pass
    carries = ''.join(f' {name}' for name in changed(tree, step, 'A'))
    unless = f'Unless: {" ".join(old.unless)}\n' if old and old.unless else ''
    return f'Subject: {step.subject}\nCarries:{carries}\n{unless}SPDX-License-Identifier: {SPDX}\n\n' \
        f'{step.body}\n---\n' + hunks_of(tree, step, changed(tree, step, 'a'))


def fold(tree, commits, names):
    """{file: position of the last commit that changes it, to which an uncommitted edit belongs}"""
    places = {}
    for name in names:
        touching = [i for i, commit in enumerate(commits) if tree.git(
            'diff', '--name-only', f'{commit}^', commit, '--', name).strip()]
        if not touching:
            raise Error(f'no entry changes {name}: commit the edit in {os.path.relpath(tree.path, TOP)}, so that it '
                        'becomes a new entry, then refresh again')
        places[name] = touching[-1]
    return places


def steps_of(tree, base):
    """The steps of the branch from BASE on, including uncommitted edits."""
    commits = tree.git('rev-list', '--reverse', f'{base}..HEAD').split()
    places, found, before = fold(tree, commits, edited(tree)), [], base
    with tempfile.TemporaryDirectory() as folder:
        index = pathlib.Path(folder, 'index')
        for i, commit in enumerate(commits):
            tree.git('read-tree', commit, index=index)
            for name in (name for name, place in places.items() if place <= i):
                tree.git('update-index', '--add', '--remove', '--', name, index=index)
            # configure puts this file there, and the user's git add -A adds it
            tree.git('update-index', '--force-remove', '--', str(bases.DEVICES), index=index)
            after = tree.git('write-tree', index=index).strip()
            subject, body = tree.git('show', '-s', '--format=%s%n%b', commit).split('\n', 1)
            found.append(Step(subject, body.strip(), before, after))
            before = after
    return found


def topics_of(steps, known, chosen):
    """The topic of each of STEPS: a new commit belongs to the topic of the one before it, or of the first known one."""
    names = [known[step.subject].topic if step.subject in known else None for step in steps]
    first = next(filter(None, names), None)
    names = list(itertools.accumulate(names, lambda last, own: own or last, initial=first))[1:]
    subjects = [step.subject for step in steps]
    for step, name in zip(steps, names):
        if subjects.count(step.subject) > 1 or not step.body:
            raise Error(f'the commit "{step.subject}" has the same subject as another commit, or no body: reword it')
        if name not in chosen:
            raise Error(f'the commit "{step.subject}" is an entry of {name}, which is not applied: run scripts/graft '
                        f'--topic {name} first')
    for name in chosen:
        if name not in names:
            raise Error(f'no commit of the topic {name} is left: restore one, or remove series/{name} and graft')
    return names


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def entry_of(tree, step, old):
    """(file name without its number, text) of STEP's entry, which was OLD before."""
    words = re.sub(r'[^a-z0-9]+', '-', step.subject.lower()).strip('-')
    return old.slug if old else f'{words[:52].strip("-")}.patch', text_of(tree, step, old)


def write_topic(tree, folder, steps, known, passed):
    """Write STEPS as the entries of FOLDER and number them; keep those PASSED over, by position, only."""
    written = [entry_of(tree, step, known.get(step.subject)) for step in steps]
    for position, entry in passed.items():
        written.insert(position, (entry.slug, entry.path.read_text()))
    texts = {folder / f'{number:04}-{slug}': text for number, (slug, text) in enumerate(written, 1)}
    for path in {*folder.glob('*.patch')} - {*texts}:
        path.unlink()
    for path, text in texts.items():
        write(path, text)


def write_carried(tree, folder, steps, listed):
    """Write the files that STEPS add, as all of FOLDER leaves them; remove those that only the entries LISTED added."""
    brought = {name: tree.show(step.after, name) for step in steps for name in changed(tree, step, 'A')}
    for entry in entries(queue(folder).values()):
        for name in {*entry.changes} & {*brought}:
            brought[name] = applied(entry, name, brought[name])
    for name, text in brought.items():
        write(folder.parent / name, text)
    for name in {name for entry in listed for name in entry.carries} - {*brought}:
        (folder.parent / name).unlink(missing_ok=True)


def copied(folder, root):
    """Copy the queue in FOLDER, and the files that it carries, to ROOT."""
    shutil.copytree(folder, root / folder.name)
    for name in (name for entry in entries(queue(folder).values()) for name in entry.carries):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder.parent / name, root / name)
    return root / folder.name


def files(root):
    return sorted(str(path.relative_to(root)) for path in root.rglob('*') if path.is_file())


def rewrite(tree, folder):
    """Write the branch's commits and uncommitted edits to FOLDER; return the resulting commit and their number."""
    base, topics = tree.tip(BASE_REF), queue(folder)
    subjects = tree.git('log', '--format=%s', f'{BASE_REF}..{GRAFTED_REF}').splitlines()
    grafted = [topic for topic in topics.values() if any(entry.subject in subjects for entry in topic.entries)]
    if says(tree, commit_entries(tree, base, entries(grafted))) != says(tree, GRAFTED_REF):
        raise Error(f'series/ or a file that it carries was changed since scripts/graft ran: stash or drop the edits '
                    f'in {os.path.relpath(tree.path, TOP)}, run scripts/graft, restore the edits, then refresh')
    steps, known = steps_of(tree, base), {entry.subject: entry for entry in entries(topics.values())}
    names, own = [topic.name for topic in grafted], collections.defaultdict(list)
    passed = {topic.name: {position: entry for position, entry in enumerate(topic.entries)
                           if entry.subject not in subjects} for topic in grafted}
    for step, name in zip(steps, topics_of(steps, known, names)):
        own[name].append(step)
    for name in names:
        write_topic(tree, folder / name, own[name], known, passed[name])
    write_carried(tree, folder, steps, [entry for entry in entries(grafted) if entry.subject in subjects])
    commit = commit_entries(tree, base, entries(with_needs(queue(folder), names)))
    left = tree.git('diff', '--name-only', commit, steps[-1].after).split()
    if left:
        raise Error(f'the entries would not reproduce {left[0]}, so none was written: edit the entry that changes it '
                    'by hand')
    return commit, len(steps)


def refresh(tree, folder=SERIES):
    """Write the branch's commits and uncommitted edits back to FOLDER; return the number of commits."""
    if not tree.tip(GRAFTED_REF):
        raise Error('there is no complete grafted tree yet: run scripts/graft first')
    root = folder.parent
    with scratch(root / 'build/refresh.part') as part:
        copy = copied(folder, part / 'root')
        before = files(part / 'root')
        commit, count = rewrite(tree, copy)
        gone = {*before} - {*files(part / 'root')}
        for name, text in (('tree', str(tree.path)), ('commit', commit), ('gone', '\n'.join(gone))):
            (part / name).write_text(text)
        part.rename(root / 'build/refresh')
    finish(root)
    return count


def finish(root=TOP):
    """Put the output of a refresh in place; if this is interrupted, the next run completes it."""
    ready = root / 'build/refresh'
    if not ready.exists():
        return
    for name in (ready / 'gone').read_text().splitlines():
        (root / name).unlink(missing_ok=True)
    for name in files(ready / 'root'):
        text, path = (ready / 'root' / name).read_text(), root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text() != text:
            write_whole(path, text)
    tree, commit = Tree((ready / 'tree').read_text()), (ready / 'commit').read_text()
    unlock(tree)
    tree.git('update-ref', '--no-deref', 'HEAD', commit)
    tree.git('update-ref', GRAFTED_REF, commit)
    tree.git('reset', '-q', '--mixed', commit)
    with scratch(root / 'build/refresh.part') as part:
        ready.rename(part / 'done')
