# SPDX-License-Identifier: GPL-2.0-or-later
"""Write each topic to a directory, as patches for git am with a cover letter.

Needs only this repository, git, and Python 3.9 or newer.
"""

import email.message
import email.policy
import email.utils
import pathlib
import re
import shutil
import tempfile
from email.headerregistry import Address

from scripts.lib.command import Parser, main
from scripts.lib.system import BUILD, TOP, Error
from scripts.queue.git import Tree, identity, need_identity
from scripts.queue.topics import asked, git_apply, queue, with_needs

# A hunk: its @@ line and the lines after it, in which an empty line is one of context
HUNK = re.compile(r'^@@ -(\d+)\S* \+(\d+)\S* (@@.*\n)((?:[-+ \\].*\n|\n)*)', re.M)


def counted(hunk):
    """A hunk with the numbers of its lines, which an entry need not have right."""
    old, new, rest, body = hunk.groups()
    kinds = [line[:1] for line in body.splitlines()]
    fewer, more = (len(kinds) - kinds.count(other) - kinds.count('\\') for other in '+-')
    return f'@@ -{old},{fewer} +{new},{more} {rest}{body}'


def new_file(name, text):
    lines = text.splitlines()
    return f'diff --git a/{name} b/{name}\nnew file mode 100644\n--- /dev/null\n+++ b/{name}\n' \
        f'@@ -0,0 +1,{len(lines)} @@\n' + ''.join(f'+{line}\n' for line in lines)


def diff_of(entry):
    """What ENTRY changes and adds, by file."""
    parts = re.split(r'^(?=diff --git )', HUNK.sub(counted, entry.diff), flags=re.M)
    parts = [part for part in parts if part] + [new_file(*added) for added in entry.adds.items()]
    return ''.join(sorted(parts, key=lambda part: part.splitlines()[0]))


def mail(subject, text):
    who = identity()
    made = email.message.EmailMessage(email.policy.default.clone(max_line_length=None))
    # by this line, git knows a mail
    made.set_unixfrom(f'From {"0" * 40} Mon Sep 17 00:00:00 2001')
    made['From'] = Address(who['GIT_AUTHOR_NAME'], addr_spec=who['GIT_AUTHOR_EMAIL'])
    made['Date'] = email.utils.localtime()
    made['Subject'] = subject
    made.set_content(text, cte='8bit')
    return made.as_bytes(unixfrom=True)


def patch(entry):
    diff, who = diff_of(entry), identity()
    with tempfile.TemporaryDirectory() as scratch:
        stat = git_apply(pathlib.Path(scratch), diff, '--stat', '--summary')
    trailer = f'Signed-off-by: {who["GIT_AUTHOR_NAME"]} <{who["GIT_AUTHOR_EMAIL"]}>'
    signed = Tree(TOP).git('interpret-trailers', '--trailer', trailer, data=entry.message)
    _, _, body = signed.partition('\n\n')
    return f'{body}---\n{stat}\n{diff}'


def cover(topics, topic):
    needs = ''.join(f'  {other.subject}\n' for other in with_needs(topics, [topic.name]) if other is not topic)
    needs = needs and f'This applies on top of\n{needs}\n'
    listed = ''.join(f'  {entry.subject}\n' for entry in topic.entries)
    return f'{topic.text}\n\n{needs}{identity()["GIT_AUTHOR_NAME"]} ({len(topic.entries)}):\n{listed}'


def write_mails(topics, topic, folder, version='', rfc=False):
    """Write TOPIC to files in FOLDER, which is created; return them in order, the cover letter first."""
    folder.mkdir(parents=True)
    count = len(topic.entries)
    kind = ' '.join([*(['RFC'] if rfc else []), 'PATCH', *([f'v{version}'] if version else [])])
    texts = [('0000-cover-letter.patch', topic.subject, cover(topics, topic)),
             *((entry.path.name, entry.subject, patch(entry)) for entry in topic.entries)]
    paths = []
    for number, (name, subject, text) in enumerate(texts):
        paths.append(folder / (f'v{version}-{name}' if version else name))
        paths[-1].write_bytes(mail(f'[{kind} {number:0{len(str(count))}}/{count}] {subject}', text))
    return paths


def run():
    parser = Parser(description=__doc__)
    parser.add_argument('-o', '--output', metavar='DIR', type=pathlib.Path,
                        help='make a directory for each topic in DIR instead of build/series')
    parser.add_argument('--topic', metavar='NAME', help='this one instead of all')
    parser.add_argument('--version', metavar='vN', help='revision of the series, such as v2')
    parser.add_argument('--rfc', action='store_true', help='mark every patch [RFC PATCH]')
    args = parser.parse_args()
    if args.version and not args.version.lstrip('v').isdigit():
        parser.error(f'--version {args.version}: a revision is v1, v2, ...')
    topics = queue()
    need_identity()
    wanted = {topic: (args.output or BUILD / 'series') / topic.name for topic in asked(topics, args.topic)}
    if not args.output:
        shutil.rmtree(BUILD / 'series', ignore_errors=True)
    for folder in wanted.values():
        if folder.exists():
            raise Error(f'{folder} exists: remove it, or choose another directory')
    for topic, folder in wanted.items():
        for path in write_mails(topics, topic, folder, (args.version or '').lstrip('v'), args.rfc):
            print(path if args.output else path.relative_to(TOP))


if __name__ == '__main__':
    main(run, 'scripts/series')
