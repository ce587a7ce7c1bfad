# SPDX-License-Identifier: GPL-2.0-or-later
"""Build and test each topic of series/ with only the topics that it needs.

Works in build/BASE/topics, so the builds of the whole series do not change.
Does not run the tests on Debian's QEMU: make check does.  Prints TAP.
"""

import os
import re
import sys

from scripts.debian.builds import build_commit, prepared
from scripts.lib.command import Parser, main
from scripts.lib.system import TOP, Error, locked, say, tried
from scripts.queue import bases
from scripts.queue.commits import commit_topic
from scripts.queue.git import Tree
from scripts.queue.graft import graft
from scripts.queue.topics import asked, queue
from tests.tap import point, report

# The most lines of C that a topic may add to QEMU's own folders, to keep the core small
LIMITS = {'host-compat': 300}
C_FILES = [f'{folder}/*.{kind}' for folder in ('hw', 'include', 'target') for kind in 'ch']
# {kind of a topic's tests: (command, line of a passed test, line of a failed test)}
TESTS = {
    'scenarios': (['scripts/kvmsim', 'suite', '--qemu', 'patched'],
                  r'^\S.* patched passed; ', r'^(\S+).* patched (?!passed)'),
    'hcall cases': ([sys.executable, '-m', 'tests.hcall.check'], r'^ok ', r'^not ok \d+ - (.*)'),
}
# ... and the most failed tests that are named
MOST = 5


def test(topic, what, builds):
    """How many of the topic's tests of a kind pass on the QEMUs in BUILDS."""
    words, passed, failed = TESTS[what]
    done = tried([*words, '--topic', topic.name], cwd=TOP, env=dict(os.environ, QEMU_BUILDS=str(builds)))
    bad, good = re.findall(failed, done.stdout, re.M), len(re.findall(passed, done.stdout, re.M))
    if done.returncode or bad:
        say('\n'.join(line for line in (done.stdout + done.stderr).splitlines() if not re.match(passed, line)))
        names = ', '.join(bad[:MOST]) + ', ...' * (len(bad) > MOST)
        raise Error(f'{len(bad)} of {len(bad) + good} {what} fail ({names})' if bad else
                    f'{words[-1]} exits with {done.returncode}')
    return good


def check(tree, topics, topic):
    """Check a topic; returns a description for its line, and reports all failures in one error."""
    say(topic.name)
    below, tip = commit_topic(tree, topics, topic.name)
    copy = prepared(tree, bases.home() / 'topics', tip)
    rows = tree.git('diff-tree', '-r', '--numstat', '--no-renames', below, tip, '--', *C_FILES).splitlines()
    lines, limit = sum(int(row.split()[0]) for row in rows), LIMITS.get(topic.name)
    count = int(tree.git('rev-list', '--count', f'{below}..{tip}'))
    words = [f'{count} commit{"s" * (count > 1)}', f'{lines} lines of C', build_commit(copy)]
    wrong = [f'{lines} lines of C, but at most {limit} are allowed'] if limit and lines > limit else []
    for what in TESTS:
        say(f'{topic.name}: {what}')
        try:
            passed = test(topic, what, copy.path.parent)
            words += [f'{passed} {what}'] if passed else []
        except Error as e:
            wrong.append(str(e))
    if wrong:
        raise Error('\n'.join(wrong))
    return ', '.join(words)


def check_all():
    parser = Parser(description=__doc__)
    parser.add_argument('topics', nargs='*', metavar='TOPIC', help='these instead of all')
    known = queue()
    wanted = [topic for name in parser.parse_args().topics or known for topic in asked(known, name)]
    with locked('topics'):
        graft(bases.chosen())
        tree = Tree(bases.home() / 'src')
        return report(point(topic.name, check, tree, known, topic) for topic in wanted)['failed'] > 0


if __name__ == '__main__':
    main(check_all)
