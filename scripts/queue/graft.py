# SPDX-License-Identifier: GPL-2.0-or-later
"""Apply the topics of series/ to a base, as git commits, or write edits back.

  scripts/graft [--topic NAME[,NAME...]] [BASE]
                          BASE is trixie, sid, or the path of a QEMU checkout,
                          which gets a worktree; the default is the base that
                          was chosen last
  scripts/graft refresh   write edits in the grafted tree back to this repository
"""

import pathlib
import re
import shutil

from scripts.debian.suite import Suite
from scripts.lib.command import Parser, main
from scripts.lib.system import TOP, Error, locked, run as run_tool, say, scratch
from scripts.queue import bases
from scripts.queue.commits import FUNCTION, HEADER, commit_entries, edited, has_change, has_word
from scripts.queue.git import BASE_REF, GRAFTED_REF, Tree, identity
from scripts.queue.refresh import refresh
from scripts.queue.topics import entries, queue, with_needs


def fetch_source(suite, where):
    """Debian's source package of SUITE as a git tree, without roms/, most of its files, which no build needs."""
    with scratch(where.with_name('src.part')) as part:
        say(f'{suite}: source package of QEMU')
        dsc = Suite(suite, 'amd64').source('qemu', part)
        half = part / 'src'
        # apt has checked the signature chain down to this file's hash
        run_tool(['dpkg-source', '--no-check', '-x', str(dsc), str(half)])
        version = re.search(r'^Version: (.*)$', dsc.read_text(), re.M)[1]
        for name in ('.pc', 'roms'):
            shutil.rmtree(half / name, ignore_errors=True)
        tree = Tree(half)
        tree.git('init', '-q')
        date = run_tool(['dpkg-parsechangelog', '-l', str(half / 'debian/changelog'), '-S', 'Timestamp']).strip()
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
    # QEMU's configure has downloaded these
    for name in owner.git('ls-files', '-oi', '--exclude-standard', '--directory', 'subprojects/*/').splitlines():
        shutil.copytree(owner.path / name, where / name)
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


def one_at_a_time():
    return locked('graft', 'waiting for another scripts/graft to end')


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
    # it has all of upstream's version, or nothing of it that the series would meet
    if has_word(tree, base, *FUNCTION) and not has_word(tree, base, *HEADER):
        raise Error(f'{FUNCTION[0]} of this base has {FUNCTION[1]}, but its {HEADER[0]} has no {HEADER[1]}: choose a '
                    'base that has both, or neither')
    for entry in (entry for entry in listed if has_change(tree, base, entry)):
        say(f'{entry.name} is passed over: {entry.unless[0]} of this base has {entry.unless[1]}')
    commit = commit_entries(tree, base, listed)
    if commit != grafted:
        # without GRAFTED_REF meanwhile, nothing counts as an edit
        tree.git('update-ref', '-d', GRAFTED_REF)
        tree.git('update-ref', '--no-deref', 'HEAD', commit)
        tree.git('reset', '-q', '--hard', commit)
        tree.git('update-ref', GRAFTED_REF, commit)


def run():
    parser = Parser(description=__doc__)
    parser.add_argument('--topic', metavar='NAME[,NAME...]', help='these topics and what they need instead of all')
    parser.add_argument('base', nargs='?', metavar='BASE | refresh')
    args = parser.parse_args()
    base = args.base or bases.chosen()
    if base == 'refresh' and args.topic is None:
        with one_at_a_time():
            say(f'{refresh(Tree(bases.home() / "src"))} entries in series/')
    elif base in bases.SUITES or pathlib.Path(base).is_dir():
        graft(base, args.topic.split(',') if args.topic is not None else ())
    else:
        parser.error(f'{base}: a base is one of {", ".join(bases.SUITES)} or the path of a QEMU checkout; the other '
                     'word is refresh, without --topic')


if __name__ == '__main__':
    main(run, 'scripts/graft')
