# SPDX-License-Identifier: GPL-2.0-or-later
"""Check the topics of series/ on the grafted base.  Prints TAP."""

import contextlib
import os
import pathlib
import re
import shutil
import tempfile

from scripts.debian import kernels
from scripts.debian.suite import Suite, compare_versions
from scripts.lib.command import main, no_options
from scripts.lib.system import BUILD, TOP, Error, run, tried
from scripts.queue import bases
from scripts.queue.commits import FUNCTION, HEADER, commit_entries, commit_topic, functions, has_change, history
from scripts.queue.git import BASE_REF, GRAFTED_REF, Tree, clone, identity
from scripts.queue.refresh import copied, refresh, texts
from scripts.queue.topics import SERIES, Entry, entries, queue
from tests.queue.stand_in import STAND_IN, base_with
from tests.tap import Skip, point, report

MAX_CONTEXT = 3
# Intended: a manual header update, and new files
KNOWN_WARNINGS = ('added, moved or deleted file(s), does MAINTAINERS need updating?',
                  'imported from Linux, are you using scripts/update-linux-headers.sh?')
COVER = 'Subject: s\nNeeds: {}\n\nText.\n'
ENTRY = 'Subject: {}\nCarries: {}\n\nBecause.\n---\n'
# {mistake: (the files of series/ that cause it, words of the error)}; one and two are topics in this order
MISTAKES = {
    'a circle': ({'{one}/cover.txt': COVER.format('{two}'), '{two}/cover.txt': COVER.format('{one}')}, 'in a circle'),
    'a need that is not a topic': ({'{two}/cover.txt': COVER.format('nobody')}, 'nobody is not a topic'),
    'a subject in two topics': ({'{one}/0098-x.patch': ENTRY.format('the same', ''),
                                 '{two}/0099-y.patch': ENTRY.format('the same', '')}, 'the subject "the same"'),
    'a name in two topics': ({'{one}/0098-same.patch': ENTRY.format('x', ''),
                              '{two}/0099-same.patch': ENTRY.format('y', '')}, 'the name same.patch'),
    'a file carried twice': ({'{one}/0098-x.patch': ENTRY.format('x', 'hw/ppc/same.c'),
                              '{two}/0099-y.patch': ENTRY.format('y', 'hw/ppc/same.c')}, 'file hw/ppc/same.c'),
    'an entry outside of topics': ({'0001-lost.patch': ENTRY.format('lost', '')}, 'is not in a topic'),
    'a topic without cover letter': ({'{two}/cover.txt': None}, 'has no cover.txt'),
    'a topic without entries': ({'{two}/*.patch': None}, 'has no entry'),
}
MAILS = BUILD / 'check/series'
EDIT = '/* edited */'
INTERFACE = r'#define\s+(KVM_(?:CAP_)?PPC_(?:GET_)?COMPAT_CAP\w*)\s+([^/\n]+)'


def check_text(path, fields, text):
    head = path.read_text().partition('\n\n')[0]
    for field in (*fields, 'SPDX-License-Identifier'):
        if f'{field}:' not in head:
            raise Error(f'no {field}: header')
    for line in text.splitlines():
        if len(line) > 76 and not line.startswith('Fixes: '):
            raise Error(f'a line is longer than 76 characters: {line}')


def check_cover(topic):
    """Check that a cover letter has its headers, and that the entries are numbered from 1."""
    check_text(SERIES / topic.name / 'cover.txt', ('Subject', 'Needs'), f'{topic.subject}\n{topic.text}')
    for number, entry in enumerate(topic.entries, 1):
        if not entry.path.name.startswith(f'{number:04}-'):
            raise Error(f'{entry.name} is number {number}: rename it, or run scripts/graft and scripts/graft refresh')


def check_entry(entry):
    """Check that an entry has its headers and a message, and little context of the base."""
    check_text(entry.path, ('Subject', 'Carries'), entry.message)
    for hunk in re.split(r'^@@ .*\n', entry.diff, flags=re.M)[1:]:
        lines = re.split(r'^diff --git', hunk, flags=re.M)[0].splitlines()
        kinds = ''.join(line[:1] for line in lines)
        longest = max(map(len, re.findall(r'^ *| *$', kinds)))
        if longest > MAX_CONTEXT:
            raise Error(f'a hunk has {longest} lines of context on a side: at most {MAX_CONTEXT} are allowed')


def check_applies(tree, topics):
    """Check that the queue reproduces the grafted branch, with every hunk in its place."""
    if history(tree, commit_entries(tree, tree.tip(BASE_REF), entries(topics.values()))) != history(tree, 'HEAD'):
        raise Error('the grafted branch differs from series/: run scripts/graft')


@contextlib.contextmanager
def checkout(tree, commit, *names):
    """A clone of TREE at COMMIT, only with the folders of NAMES."""
    with tempfile.TemporaryDirectory() as scratch:
        copy = clone(tree, pathlib.Path(scratch, 'qemu'))
        copy.git('sparse-checkout', 'set', *sorted({str(pathlib.PurePath(name).parent) for name in names} - {'.'}))
        copy.git('checkout', '-q', '--detach', commit)
        yield copy


def check_am(tree, topics, topic):
    """Check that patch, and git am, of TOPIC's mails, without those of entries that the base has, give its tree."""
    below, tip = commit_topic(tree, topics, topic.name)
    mails = [str(mail) for entry, mail in zip(topic.entries, sorted((MAILS / topic.name).iterdir())[1:])
             if not has_change(tree, below, entry)]
    with checkout(tree, below, *tree.git('diff', '--name-only', below, tip).split()) as copy:
        for mail in mails:
            # rpmbuild allows no fuzz; patch needs some if a hunk has more context before than after it
            run(['patch', '-p1', '-s', '--fuzz=0', '--no-backup-if-mismatch', '-i', mail], cwd=copy.path)
        copy.git('add', '-A')
        patched = copy.git('write-tree')
        copy.git('reset', '-q', '--hard')
        copy.git('am', '-q', *mails, extra=identity())
        if not patched == copy.git('rev-parse', 'HEAD^{tree}') == tree.git('rev-parse', f'{tip}^{{tree}}'):
            raise Error('patch or git am produces another tree than scripts/graft')


@contextlib.contextmanager
def grafted(copy):
    """Graft onto the checkout COPY, which does not become the base of others: (exit code, messages, grafted tree)."""
    home = bases.home(copy.path)
    try:
        yield *graft(str(copy.path), BASE=str(copy.path)), Tree(home / 'src')
    finally:
        shutil.rmtree(home, ignore_errors=True)


def write_alone(topics):
    """{topic: its mails}, written from a copy of the files that scripts/series needs, without the rest."""
    shutil.rmtree(MAILS, ignore_errors=True)
    with tempfile.TemporaryDirectory() as scratch:
        root = copied(SERIES, pathlib.Path(scratch)).parent
        shutil.copytree(TOP / 'scripts', root / 'scripts', ignore=shutil.ignore_patterns('debian'))
        # a bare machine has no identity
        (root / 'config').write_text('[user]\nname = a\nemail = a@localhost\n')
        run([str(root / 'scripts/series'), '-o', str(MAILS)],
            env={**os.environ, 'GIT_CONFIG_GLOBAL': str(root / 'config')})
    return {name: sorted((MAILS / name).iterdir()) for name in topics}


def check_worktrees(tree):
    """Check that two worktrees of one repository can be bases, and that graft changes no branch there."""
    with checkout(tree, BASE_REF, 'target/ppc/compat.c', 'subprojects/.gitignore') as one:
        (one.path / 'subprojects/slirp').mkdir()
        two = Tree(one.path.with_name('two'))
        one.git('branch', 'host-compat')
        one.git('worktree', 'add', '-q', '-b', 'two', str(two.path))
        before = one.git('for-each-ref', 'refs/heads')
        with grafted(one) as first, grafted(two) as second:
            for code, said, made in first, second:
                if code or made.git('diff', '--name-only', 'HEAD', tree.tip('HEAD')):
                    raise Error(f'graft exits with {code} and says: {said}')
            if one.git('for-each-ref', 'refs/heads') != before or not (first[2].path / 'subprojects/slirp').exists():
                raise Error('a branch of the checkout has changed, or its worktree lacks a subproject')


def check_neither(tree):
    (function, caller), (header, word) = FUNCTION, HEADER
    with checkout(tree, BASE_REF, function, header) as copy:
        (copy.path / function).write_text(f'{tree.show(BASE_REF, function)}/* {caller} */\n')
        (copy.path / header).write_text(tree.show(BASE_REF, header).replace(word, 'OTHER'))
        copy.git('commit', '-q', '-a', '-m', 'half', extra=identity())
        with grafted(copy) as (code, said, _):
            if code != 1 or f'its {header} has no {word}' not in said or '\n' in said:
                raise Error(f'graft exits with {code} and says: {said}')


def graft(*words, **env):
    done = tried([TOP / 'scripts/graft', *words], env=dict(os.environ, **env))
    return done.returncode, done.stderr.strip()


def check_unknown(topics):
    """Check that an unknown topic gives exit code 2 and a line with the known ones."""
    code, said = graft('--topic', f'nobody,{next(iter(topics))}')
    if code != 2 or said != f'scripts/graft: nobody is not a topic: choose one of {", ".join(topics)}':
        raise Error(f'graft exits with {code} and says: {said}')


def check_mistake(topics, spoiled, words):
    """Check that the queue with the SPOILED files (None: removed) is rejected, with WORDS in a one-line error."""
    one, two, *_ = topics
    with tempfile.TemporaryDirectory() as scratch:
        folder = copied(SERIES, pathlib.Path(scratch))
        for name, text in spoiled.items():
            name = name.format(one=one, two=two)
            for path in folder.glob(name) if text is None else ():
                path.unlink()
            if text is not None:
                (folder / name).write_text(text.format(one=one, two=two))
        try:
            queue(folder)
        except Error as e:
            if words not in str(e) or '\n' in str(e):
                raise Error(f'the error is "{e}"') from None
            return
    raise Error('the queue was accepted')


def check_refresh(tree, topics, base, name):
    """Check that an edit in NAME, on BASE, changes only the last entry that touches it, and NAME if carried."""
    listed = entries(topics.values())
    owner = [entry for entry in listed if name in (*entry.carries, *entry.changes)][-1]
    wanted = {name for entry in listed if name in entry.carries} | \
        {owner.name for _ in owner.changes if name not in owner.carries}
    tip = commit_entries(tree, base, listed)
    with checkout(tree, tip, name) as copy:
        copy.git('update-ref', BASE_REF, base)
        copy.git('update-ref', GRAFTED_REF, tip)
        root = copy.path.with_name('root')
        folder, before = copied(SERIES, root), texts(root)
        path = copy.path / name
        path.write_text(f'{path.read_text()}{EDIT}\n')
        refresh(copy, folder)
        after = texts(root)
    changed = {name for name in {*before, *after} if before.get(name) != after.get(name)}
    if changed != wanted or not all(EDIT in after[name] for name in wanted):
        raise Error(f'{", ".join(sorted(changed)) or "nothing"} changes instead of {", ".join(wanted) or "nothing"}')


def changed_later(topics):
    """(file, topic) of the files that a topic carries, which needs no other, and that another topic changes."""
    return [(name, topic) for topic in topics.values() if not topic.needs
            for entry in topic.entries for name in entry.carries
            if any(name in other.changes and other.topic != topic.name for other in entry.later)]


def check_unless(tree, topics):
    """Check that an entry is passed over on a base that has its change, and that a refresh there keeps it."""
    listed, base = entries(topics.values()), base_with(tree)
    tip = commit_entries(tree, base, listed)
    left = {*tree.git('diff', '--name-only', tip, 'HEAD').split()} - {*Entry(STAND_IN).changes}
    if left:
        raise Error(f'{left} differs from what the series makes of it on a base without the change')
    count = int(tree.git('rev-list', '--count', f'{base}..{tip}'))
    if count != len([entry for entry in listed if tuple(entry.unless) != HEADER]):
        raise Error(f'{count} of {len(listed)} entries are applied')
    hunks = [name for entry in listed for name in functions(entry.diff)]
    check_refresh(tree, topics, base, max(hunks, key=hunks.count))


def check_style(tree, mail):
    """Check that the base's checkpatch finds no errors and only known warnings."""
    done = tried(['perl', 'scripts/checkpatch.pl', '--no-color', mail], cwd=tree.path)
    found = [line for line in done.stdout.splitlines() if re.match('(ERROR|WARNING): ', line)
             and not any(known in line for known in KNOWN_WARNINGS)]
    if found or not done.stdout.strip():
        raise Error('; '.join(found) or done.stderr.strip() or 'checkpatch said nothing')


def interface(folder, asm):
    """{name: value} of the interface's constants in FOLDER, and the fields of its structure."""
    text = '\n'.join((folder / name).read_text() for name in ('linux/kvm.h', f'{asm}/kvm.h')).replace('\\\n', '')
    struct = re.search(r'struct kvm_ppc_compat_caps \{(.*?)\}', text, re.S)
    return {**{name: ' '.join(value.split()) for name, value in re.findall(INTERFACE, text)},
            'struct kvm_ppc_compat_caps': struct and re.findall(r'(__u\d+)\s+(\w+)', struct[1])}


def check_headers(tree):
    for suite, version in kernels.by_interface('linux-libc-dev'):
        with contextlib.suppress(Error):
            kernel = Suite(suite, 'ppc64el').root('linux-libc-dev', ['linux-libc-dev'], closure=False)
            break
    else:
        raise Skip('no suite has the header on this mirror')
    theirs = interface(kernel / 'usr/include', 'powerpc64le-linux-gnu/asm')
    ours = interface(tree.path / 'linux-headers', 'asm-powerpc')
    if not theirs['struct kvm_ppc_compat_caps'] and compare_versions(version, f'{kernels.INTERFACE}~') < 0:
        raise Skip(f'{suite} currently has no header with the interface')
    for name, value in ours.items():
        if theirs.get(name) != value:
            raise Error(f'{name} is {value} here and {theirs.get(name)} in the kernel')


def form(tree, topics):
    """The checks of make quick: (what is checked, function, its arguments)"""
    written = write_alone(topics)
    for topic in topics.values():
        yield f'{topic.name}: cover letter', check_cover, topic
        for entry, mail in zip(topic.entries, written[topic.name][1:], strict=True):
            yield f'{topic.name}/{entry.path.name}: form', check_entry, entry
            yield f'{topic.name}/{entry.path.name}: checkpatch', check_style, tree, mail
    yield 'the queue applies', check_applies, tree, topics


def checks(tree, topics):
    yield from form(tree, topics)
    for topic in topics.values():
        yield f'{topic.name}: patch and git am give the same tree', check_am, tree, topics, topic
    yield 'an unknown topic is refused', check_unknown, topics
    for name, mistake in MISTAKES.items():
        yield f'the queue: {name}', check_mistake, topics, *mistake
    base, changed = tree.tip(BASE_REF), changed_later(topics)
    for name, topic in changed[:1]:
        yield f'refresh after an edit of {name}', check_refresh, tree, topics, base, name
        yield f'refresh after an edit of {name}, only with {topic.name}', check_refresh, tree, {topic.name: topic}, \
            base, name
    yield 'an entry that the base has is passed over', check_unless, tree, topics
    yield "a base with half of upstream's own version is refused", check_neither, tree
    yield 'two worktrees of a repository are bases', check_worktrees, tree
    yield "the kernel's own header agrees", check_headers, tree


def check():
    no_options(__doc__)
    return report(point(*row) for row in checks(Tree(bases.home() / 'src'), queue()))['failed'] > 0


if __name__ == '__main__':
    main(check)
