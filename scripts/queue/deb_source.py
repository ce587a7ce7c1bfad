# SPDX-License-Identifier: GPL-2.0-or-later
"""Build Debian's source package of QEMU with the series as quilt patches.

Writes the package to build/deb-source/SUITE.  Unpacks it again to check that
every patch applies.  Fails if lintian reports errors that Debian's package
does not have.
"""

import concurrent.futures
import email.utils
import os
import re
import shutil

from scripts.debian.suite import Suite
from scripts.lib.command import Parser, main
from scripts.lib.system import BUILD, TOP, Error, locked, run as tool, say
from scripts.queue import bases
from scripts.queue.git import BASE_REF, Tree, identity, need_identity
from scripts.queue.graft import graft
from scripts.queue.topics import entries, queue

QUEUE = 'ppc-host-compat'
# Sorts above the suite's version, and below every later one in the suite, of which a rebuild (+b1) is the lowest
LOCAL = '+0hostcompat1'


def write_patches(tree, package, who):
    """Append the grafted commits to the suite's patches, with DEP-3 headers."""
    names = []
    commits = tree.git('rev-list', '--reverse', f'{BASE_REF}..HEAD').split()
    by_subject = {entry.subject: entry for entry in entries(queue().values())}
    for commit in commits:
        subject, body = tree.git('show', '-s', '--format=%s%n%b', commit).split('\n', 1)
        entry = by_subject[subject]
        stamp = Tree(TOP).git('log', '-1', '--format=%cs', '--', str(entry.path), *entry.carries).strip()
        long = ''.join(f' {line or "."}\n' for line in body.strip().splitlines())
        diff = tree.git('diff-tree', '-p', '--no-renames', f'{commit}^', commit)
        names.append(f'{QUEUE}/{entry.topic}/{entry.path.name}')
        path = package / 'debian/patches' / names[-1]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'Description: {subject}\n{long}Author: {who}\nForwarded: no\nLast-Update: {stamp}\n---\n'
                        f'{diff}')
    series = package / 'debian/patches/series'
    series.write_text(series.read_text().rstrip('\n') + '\n' + '\n'.join(names) + '\n')
    return names


def write_changelog(package, version, who):
    path = package / 'debian/changelog'
    old = path.read_text()
    suite = re.match(r'\S+ \(\S+\) (\S+);', old)[1]
    path.write_text(f'''qemu ({version}) {suite}; urgency=medium

  * Limit ppc64 KVM guests to the CPU modes that their host has:
    d/patches/{QUEUE}/.

 -- {who}  {email.utils.formatdate(localtime=False)}

{old}''')


def lint(dsc):
    text = tool(['lintian', '--allow-root', '--fail-on', 'none', '-L', 'error', str(dsc)])
    return {line for line in text.splitlines() if line.startswith('E: ')}


def version_of(package):
    return tool(['dpkg-parsechangelog', '-l', str(package / 'debian/changelog'), '-S', 'Version']).strip()


def build(suite):
    """Build the package in build/deb-source/SUITE, and return a summary."""
    need_identity()
    place = BUILD / 'deb-source' / suite
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    graft(suite)
    tree = Tree(bases.home() / 'src')
    me = identity()
    who = f'{me["GIT_AUTHOR_NAME"]} <{me["GIT_AUTHOR_EMAIL"]}>'
    theirs = Suite(suite, 'amd64').source('qemu', place)
    package = place / 'qemu'
    tool(['dpkg-source', '--no-check', '-x', str(theirs), str(package)])
    version, grafted = version_of(package), version_of(tree.path)
    if version != grafted:
        raise Error(f'{suite} now has QEMU {version}, but the grafted tree is {grafted}: remove '
                    f'{bases.home().relative_to(TOP)}, then run this again')
    ours = version + LOCAL
    # dpkg-source -x has applied the suite's patches; dpkg-source -b applies ours
    names = write_patches(tree, package, who)
    write_changelog(package, ours, who)
    tool(['dpkg-source', '-b', 'qemu'], cwd=place)
    dsc = place / f'qemu_{ours.split(":")[-1]}.dsc'
    proof = place / 'proof'
    tool(['dpkg-source', '--no-check', '-x', str(dsc), str(proof)])
    changed = tree.git('diff', '--name-only', BASE_REF, 'HEAD').split()
    for name in changed:
        if (proof / name).read_bytes() != (tree.path / name).read_bytes():
            raise Error(f'{name} in the package differs from the grafted tree')
    # each takes minutes
    say(f'{suite}: lintian, on both packages')
    with concurrent.futures.ThreadPoolExecutor() as pool:
        known, found = pool.map(lint, (theirs, dsc))
    new = found - known
    if new:
        raise Error('lintian finds new errors: ' + '; '.join(sorted(new)))
    for done in (package, proof):
        shutil.rmtree(done)
    return f'{dsc.relative_to(TOP)}: {len(names)} patches, {len(changed)} files as in the grafted tree, ' \
        'no new error from lintian'


def run():
    parser = Parser(description=__doc__)
    parser.add_argument('suite', nargs='?', choices=bases.SUITES, default=bases.SUITES[0])
    suite = parser.parse_args().suite
    os.environ['BASE'] = suite
    with locked(f'deb-source-{suite}', 'waiting for another make deb-source to end'):
        print(build(suite))


if __name__ == '__main__':
    main(run, 'make deb-source')
