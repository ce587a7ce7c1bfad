# Copyright (c) 2026 QEMU contributors
# SPDX-License-Identifier: GPL-2.0-or-later
"""A topic as mails: patches for git am, and a cover letter with figures from the last runs."""

import json
import pathlib
import re
import shutil
import textwrap

from lib.commits import commit_topic
from lib.git import identity
from lib.queue import FIGURES, entries, with_needs
from lib.system import BUILD, run, say
from tests.lab import matrix


def write_mails(tree, topic, commits, output, version=None, rfc=False):
    """Write TOPIC, the range COMMITS, to files in OUTPUT; return them in order, the cover letter first."""
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


def matrix_figures(rows):
    right = {qemu: [matrix.came_to(row['runs'][qemu]) == row['patched'] for row in rows] for qemu in matrix.QEMUS}
    kernels = sorted({run['l1']['kernel'] for row in rows for run in row['runs'].values()})
    return f'Of {len(rows)} combinations of host, mode, nested API, kernel and options, {sum(right["distro"])} come ' \
        f'out right with unpatched QEMU and {sum(right["patched"])} with all series of this set ' \
        f'(Linux {", ".join(kernels)}).'


def bench_figures(found):
    *_, ours, theirs = found['runs']
    return f'A change of mode of {ours["vcpus"]} vCPUs takes {ours["cas"]} ioctls instead of {theirs["cas"]}.'


# How the cover letter words the results of "make matrix" and "make bench" in build/
WORDS = dict(zip(FIGURES, (matrix_figures, bench_figures), strict=True))


def figures(topics, topic):
    changed = max(entry.path.stat().st_mtime for entry in entries(topics.values()))
    for name in topic.figures:
        path = BUILD / f'{name}.json'
        if path.exists() and path.stat().st_mtime > changed:
            yield textwrap.fill(WORDS[name](json.loads(path.read_text())), 76)
        else:
            say(f'{topic.name}: the cover letter has no figures of "make {name}", which has not run since the series '
                'changed')


def needed(topics, topic):
    subjects = [other.subject for other in with_needs(topics, [topic.name]) if other is not topic]
    if subjects:
        yield 'This applies on top of\n' + '\n'.join(f'  {subject}' for subject in subjects)


def recipients(tree, mails):
    """The people and lists that QEMU's MAINTAINERS names for these patches."""
    found = run(['perl', 'scripts/get_maintainer.pl', '--nogit', '--nogit-fallback', '--norolestats',
                 *map(str, mails)], cwd=tree.path)
    return '---\nTo, from scripts/get_maintainer.pl:\n' + ''.join(f'  {line}\n' for line in found.splitlines())


def complete_cover(cover, tree, mails, paragraphs):
    """Add PARAGRAPHS and the recipients after the text, before git's list of patches."""
    text, *summary = re.split(r'\n\n(?=.+ \(\d+\):\n)', cover.read_text(), maxsplit=1)
    cover.write_text('\n\n'.join([text, *paragraphs, recipients(tree, mails).rstrip(), *summary]))


def write_series(tree, topics, topic, version=None, rfc=False):
    """Write TOPIC to build/series, with a complete cover letter; return the files in order."""
    mails = write_mails(tree, topic, commit_topic(tree, topics, topic.name), BUILD / 'series' / topic.name,
                        version, rfc)
    complete_cover(mails[0], tree, mails[1:], [*figures(topics, topic), *needed(topics, topic)])
    return mails
