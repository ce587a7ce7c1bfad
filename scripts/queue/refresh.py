# SPDX-License-Identifier: GPL-2.0-or-later
"""Writing edits of the grafted tree back to the topics that are applied there."""

import collections
import contextlib
import os
import pathlib
import re
import shutil
import tempfile
from typing import NamedTuple

from scripts.lib.system import TOP, Error, write_whole
from scripts.queue import bases
from scripts.queue.commits import apply_entry, commit_entries, edited, history
from scripts.queue.git import BASE_REF, GRAFTED_REF, index_of
from scripts.queue.series import HUNK, counted
from scripts.queue.topics import SERIES, applied, entries, queue, with_needs

SPDX = 'GPL-2.0-or-later'
# Lines of context on each side of a hunk; the first number that makes the hunk's place unique is used.
CONTEXT = (1, 2, 3)


class Step(NamedTuple):
    """A commit of the branch with its edits: message, trees before and after; KEPT if scripts/graft made the same."""
    subject: str
    body: str
    before: str
    after: str
    kept: bool = False


def widen(hunk, old):
    """Give HUNK, which has one line of context, what makes its place unique in OLD, the lines of the file."""
    start, new, rest, body = int(hunk[1]) - 1, int(hunk[2]), hunk[3], hunk[4]
    end = start + sum(line[:1] in (' ', '-') for line in body.split('\n')[:-1])
    for context in CONTEXT:
        first, last = max(0, start - context + 1), end + context - 1
        lines = old[first:last]
        if sum(old[at:at + len(lines)] == lines for at in range(len(old))) == 1:
            break
    before, after = (''.join(f' {line}\n' for line in lines) for lines in (old[first:start], old[end:last]))
    return counted(HUNK.match(f'@@ -{first + 1} +{new - start + first} {rest}{before}{body}{after}'))


def hunks_of(tree, step, names):
    """What STEP changes in NAMES, with as little context as each hunk needs."""
    out = ''
    for name in names:
        text = tree.git('diff-tree', '-p', '-U1', '--no-renames', '--diff-algorithm=histogram',
                        step.before, step.after, '--', name)
        old = tree.show(step.before, name).split('\n')[:-1]
        out += HUNK.sub(lambda hunk, old=old: widen(hunk, old), re.sub(r'^index .*\n', '', text, flags=re.M))
    return out


def changed(tree, step, kind):
    """The files that STEP adds (A) or changes (a)."""
    return tree.git('diff-tree', '-r', '--name-only', '--no-renames', f'--diff-filter={kind}', step.before,
                    step.after).split()


def text_of(tree, step, old):
    """The text of STEP's entry: OLD, byte for byte, if that still produces STEP."""
    same = old and old.message == f'{step.subject}\n\n{step.body}\n'
    if same and step.kept:
        return old.path.read_text()
    # fails if another entry changed the context of its hunks
    with contextlib.suppress(Error), index_of(tree, step.before) as index:
        if same and step.after == apply_entry(
                tree, old, step.before, index,
                lambda tree, _, name: tree.git('rev-parse', '--verify', '-q', f'{step.after}:{name}').strip()):
            return old.path.read_text()
    carries = ''.join(f' {name}' for name in changed(tree, step, 'A'))
    unless = f'Unless: {" ".join(old.unless)}\n' if old and old.unless else ''
    return f'Subject: {step.subject}\nCarries:{carries}\n{unless}SPDX-License-Identifier: {SPDX}\n\n' \
        f'{step.body}\n---\n' + hunks_of(tree, step, changed(tree, step, 'a'))


def owner(tree, base, name):
    """The last commit that changes NAME, to which an uncommitted edit belongs."""
    commit = tree.git('rev-list', '-1', f'{base}..HEAD', '--', name).strip()
    if not commit:
        raise Error(f'no entry changes {name}: commit the edit in {os.path.relpath(tree.path, TOP)}, so that it '
                    'becomes a new entry, then refresh again')
    return commit


def steps_of(tree, base):
    """The steps of the branch from BASE on, including uncommitted edits."""
    owners, names, found, before = {name: owner(tree, base, name) for name in edited(tree)}, [], [], base
    with index_of(tree, base) as index:
        for commit in tree.git('rev-list', '--reverse', f'{base}..HEAD').split():
            tree.git('read-tree', commit, index=index)
            names += [name for name in owners if owners[name] == commit]
            for name in names:
                tree.git('update-index', '--add', '--remove', '--', name, index=index)
            # configure puts this file there, and the user's git add -A adds it
            tree.git('update-index', '--force-remove', '--', str(bases.DEVICES), index=index)
            after = tree.git('write-tree', index=index).strip()
            subject, body = tree.git('show', '-s', '--format=%s%n%b', commit).split('\n', 1)
            found.append(Step(subject, body.strip(), before, after))
            before = after
    return found


def topics_of(steps, known, chosen):
    """{topic: its steps}; a new commit belongs to the topic of the one before it, or of the first known one."""
    names = [known[step.subject].topic if step.subject in known else None for step in steps]
    last, found = next(filter(None, names), None), collections.defaultdict(list)
    subjects = [step.subject for step in steps]
    for step, name in zip(steps, names):
        last = name or last
        if subjects.count(step.subject) > 1 or not step.body:
            raise Error(f'the commit "{step.subject}" has the same subject as another commit, or no body: reword it')
        if last not in chosen:
            raise Error(f'the commit "{step.subject}" is an entry of {last}, which is not applied: run scripts/graft '
                        f'--topic {last} first')
        found[last].append(step)
    return found


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text() != text:
        write_whole(path, text)


def entry_of(tree, step, old):
    """(file name without its number, text) of STEP's entry, which was OLD before."""
    words = re.sub(r'[^a-z0-9]+', '-', step.subject.lower()).strip('-')
    return old.slug if old else f'{words[:52].strip("-")}.patch', text_of(tree, step, old)


def write_topic(tree, folder, steps, known, passed):
    """Write STEPS as the entries of FOLDER and number them; keep those PASSED over, by position, only."""
    written = [entry_of(tree, step, known.get(step.subject)) for step in steps]
    for position, entry in passed.items():
        written.insert(position, (entry.slug, entry.path.read_text()))
    for path in folder.glob('*.patch'):
        path.unlink()
    for number, (slug, text) in enumerate(written, 1):
        (folder / f'{number:04}-{slug}').write_text(text)


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
        write(root / name, (folder.parent / name).read_text())
    return root / folder.name


def texts(root):
    """{file: its text} of all files below ROOT."""
    return {str(path.relative_to(root)): path.read_text() for path in root.rglob('*') if path.is_file()}


def rewrite(tree, folder):
    """Write the branch's commits and uncommitted edits to FOLDER; return the resulting commit and their number."""
    base, topics = tree.tip(BASE_REF), queue(folder)
    subjects = tree.git('log', '--format=%s', f'{BASE_REF}..{GRAFTED_REF}').splitlines()
    grafted = [topic for topic in topics.values() if any(entry.subject in subjects for entry in topic.entries)]
    commit = commit_entries(tree, base, entries(grafted))
    if history(tree, commit) != history(tree, GRAFTED_REF):
        raise Error(f'series/ or a file that it carries was changed since scripts/graft ran: stash or drop the edits '
                    f'in {os.path.relpath(tree.path, TOP)}, run scripts/graft, restore the edits, then refresh')
    trees = tree.git('log', '--reverse', '--format=%T', f'{base}..{commit}').split()
    made = {*zip([base, *trees], trees)}
    steps = [step._replace(kept=(step.before, step.after) in made) for step in steps_of(tree, base)]
    known = {entry.subject: entry for entry in entries(topics.values())}
    own = topics_of(steps, known, [topic.name for topic in grafted])
    for topic in grafted:
        passed = {position: entry for position, entry in enumerate(topic.entries) if entry.subject not in subjects}
        write_topic(tree, folder / topic.name, own[topic.name], known, passed)
    write_carried(tree, folder, steps, [entry for entry in entries(grafted) if entry.subject in subjects])
    commit = commit_entries(tree, base, entries(with_needs(queue(folder), [*own])))
    left = tree.git('diff', '--name-only', commit, steps[-1].after).split()
    if left:
        raise Error(f'the entries would not reproduce {left[0]}, so none was written: edit the entry that changes it '
                    'by hand')
    return commit, len(steps)


def refresh(tree, folder=SERIES):
    """Write the branch's commits and uncommitted edits back to FOLDER; return the number of commits."""
    if not tree.tip(GRAFTED_REF):
        raise Error('there is no complete grafted tree yet: run scripts/graft first')
    with tempfile.TemporaryDirectory() as scratch:
        root = pathlib.Path(scratch)
        copy = copied(folder, root)
        before = texts(root)
        commit, count = rewrite(tree, copy)
        after = texts(root)
        for name in {*before} - {*after}:
            (folder.parent / name).unlink()
        for name, text in after.items():
            write(folder.parent / name, text)
    tree.git('update-ref', '--no-deref', 'HEAD', commit)
    tree.git('update-ref', GRAFTED_REF, commit)
    tree.git('reset', '-q', '--mixed', commit)
    return count
