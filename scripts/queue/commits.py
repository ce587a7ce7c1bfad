# SPDX-License-Identifier: GPL-2.0-or-later
"""Applying entries to a base, as commits."""

import functools
import itertools
import re

from scripts.lib.system import Error
from scripts.queue.bases import DEVICES, home
from scripts.queue.git import BASE_REF, Tree, identity, index_of
from scripts.queue.topics import entries, with_needs

# What tells upstream's own version of the series, and the kernel's header that it needs, as (file, word)
FUNCTION = ('target/ppc/kvm.c', 'kvm_ppc_host_compat_pvr')
HEADER = ('linux-headers/linux/kvm.h', 'KVM_PPC_GET_COMPAT_CAPS')
# {(parent, time, all of an entry): the commit of it that this process has made}
made = {}


def functions(diff):
    """{file: [function of each hunk's @@ line, without repetitions]}, for C files only."""
    found, name = {}, None
    for line in diff.splitlines():
        if line.startswith('+++ b/'):
            name = line[6:]
        elif line.startswith('@@ ') and name and name.endswith(('.c', '.h')):
            # without its parameters, which can differ between bases
            text = line.split('@@', 2)[2].strip()
            call = re.search(r'(\w+)\(', text)
            found.setdefault(name, []).append(call[1] if call else text)
    return {name: [func for func, _ in itertools.groupby(hunks)] for name, hunks in found.items()}


def check_places(tree, entry, before, after):
    """Check that every hunk is in the function that its @@ line names."""
    landed = functions(tree.git('diff-tree', '-p', '-U1', before, after, '--', *functions(entry.diff)))
    for name, wanted in functions(entry.diff).items():
        if landed.get(name) != wanted:
            odd = next((w for w in wanted if w not in landed.get(name, [])), wanted[-1])
            raise Error(f'{entry.name}: {name}: the hunk for "{odd}" applies to another function on this base: give '
                        'it more context, or adapt it')


def carried(tree, entry, name):
    """The blob of a file that ENTRY carries, as ENTRY leaves it."""
    return tree.git('hash-object', '-w', '--stdin', data=entry.adds[name]).strip()


def apply_entry(tree, entry, parent, index, blob=carried):
    """Apply ENTRY to PARENT in INDEX, and return the tree; BLOB gives the content of each file that ENTRY carries."""
    if entry.diff.strip():
        done = tree.git('apply', '--cached', '--recount', '--whitespace=nowarn', '-', index=index,
                        data=entry.diff, check=False)
        if done.returncode:
            failed = re.search(r'patch failed: (.*?):(\d+)', done.stderr)
            where = f'{failed[1]}: the hunk at line {failed[2]}' if failed else \
                done.stderr.strip().splitlines()[0].replace('error: ', '')
            raise Error(f'{entry.name}: {where} does not apply to this base: adapt the entry, or choose another base')
    for name in entry.carries:
        wanted = blob(tree, entry, name)
        there = tree.git('ls-files', '-s', '--', name, index=index).split()
        if there and there[1] != wanted:
            raise Error(f'{entry.name}: this base has a different {name} already: adapt the entry, or choose another '
                        'base')
        tree.git('update-index', '--add', '--cacheinfo', f'100644,{wanted},{name}', index=index)
    new = tree.git('write-tree', index=index).strip()
    check_places(tree, entry, parent, new)
    return new


def has_word(tree, commit, name, word):
    return not tree.git('grep', '-q', '-w', '-F', '-e', word, commit, '--', name, check=False).returncode


@functools.cache
def over_upstream():
    """Whether the base has upstream's version."""
    return has_word(Tree(home() / 'src'), BASE_REF, *FUNCTION)


def has_change(tree, commit, entry):
    """Whether COMMIT has the change of ENTRY, according to its Unless: header."""
    return bool(entry.unless) and has_word(tree, commit, *entry.unless)


def commit_entries(tree, base, listed):
    """Commit the entries that BASE lacks, without touching the work tree, and return the last commit."""
    seconds = int(tree.git('show', '-s', '--format=%ct', base))
    commit = held = base
    with index_of(tree, base) as index:
        for number, entry in enumerate(listed, 1):
            if has_change(tree, commit, entry):
                continue
            when = f'{seconds + number} +0000'
            key = (commit, when, entry.message, entry.diff, *entry.adds.items())
            # a clone may lack it
            if key not in made or not tree.tip(made[key]):
                if held != commit:
                    tree.git('read-tree', commit, index=index)
                date = {'GIT_AUTHOR_DATE': when, 'GIT_COMMITTER_DATE': when}
                made[key] = held = tree.git(
                    'commit-tree', '-p', commit, '-F', '-', apply_entry(tree, entry, commit, index),
                    data=entry.message, extra={**identity(), **date}).strip()
            commit = made[key]
    return commit


def commit_topic(tree, topics, name):
    """Apply a topic on top of what it needs; return the last commit of the topics it needs, and its own last one."""
    *needs, topic = with_needs(topics, [name])
    below = commit_entries(tree, tree.tip(BASE_REF), entries(needs))
    return below, commit_entries(tree, below, topic.entries)


def edited(tree):
    """The paths that differ from HEAD, including new ones."""
    lines = tree.git('status', '--porcelain', '-z', '-uall').split('\0')
    return [line[3:] for line in lines if line and line[3:] != str(DEVICES)]


def history(tree, tip):
    """The messages and trees of the commits up to TIP, for a comparison that ignores the committer."""
    return tree.git('log', '--format=%T %B', f'{BASE_REF}..{tip}')
