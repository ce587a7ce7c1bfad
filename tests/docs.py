# Copyright (c) 2026 QEMU contributors
# SPDX-License-Identifier: GPL-2.0-or-later
"""Run every command that a document shows.  Prints TAP.

tests/docs.cfg says how to run each command.  It needs a row for every command,
and for every block without commands, and no other rows.
"""

import re
import shutil
import subprocess
from typing import NamedTuple

from lib import bases
from lib.command import main, no_options
from lib.git import BASE_REF, Tree, clone
from lib.system import BUILD, TOP, Error
from lib.tap import point, report

TABLE = TOP / 'tests/docs.cfg'
# Marks a block as commands; in running text, a command needs an argument.
COMMAND = r'(?:make|scripts/\S+|python3|virsh|git|dpkg-source|\(QEMU\)|-machine) \S.*|\./configure.*'
# QEMU's answer to the command before it
ANSWER = '{"return": '
FENCED = re.compile(r'^```\w*\n(.*?)^```$', re.M | re.S)
LITERAL = re.compile(r'::(?: \w+)?\n\n((?:[ ]+.*\n|\n)+)')
# {pattern in the row's command: text that the scenario must contain}
ASKS = {r'property"?[=:] ?"?([\w-]+)': 'get /machine {}', r'-machine pseries,(\S+)': 'machine = {}'}


class Row(NamedTuple):
    """One line of docs.cfg."""
    kind: str
    command: str
    instead: str


def rows():
    found = []
    for number, line in enumerate(TABLE.read_text().splitlines(), 1):
        if line.strip() and not line.startswith('#'):
            kind, _, rest = line.partition(' ')
            command, arrow, instead = rest.strip().partition(' => ')
            if kind not in CHECKS or bool(arrow) != (kind in REPLACED):
                raise Error(f'tests/docs.cfg:{number}: a row is one of {", ".join(CHECKS)} and a command, then => and '
                            f'what runs instead of it for {", ".join(REPLACED)}')
            found.append(Row(kind, command, instead))
    return found


def lines(block):
    """The lines of BLOCK without comments; joins lines after a backslash or inside quotes."""
    joined = re.sub(r"\\\n *", '', block)
    joined = re.sub(r"'[^'\n]*\n[^']*'", lambda quoted: ' '.join(quoted[0].split()), joined)
    found = [line.split('  #')[0].strip() for line in joined.splitlines()]
    return [line for line in found if line and not line.startswith(ANSWER)]


def shown_in(text):
    """The commands in a document; the first line of a block without commands."""
    for block in FENCED.findall(text) + LITERAL.findall(text):
        typed = lines(block)
        yield from typed if any(re.fullmatch(COMMAND, line) for line in typed) else typed[:1]
    running = FENCED.sub('', text)
    yield from (line for line in re.findall(r'``?([^`\n]+)``?', running) if re.fullmatch(COMMAND, line))


def commands():
    """{command as printed, without its comment: document}"""
    found = {}
    for document in Tree(TOP).git('ls-files', '--', '*.md', '*.rst').splitlines():
        for command in shown_in((TOP / document).read_text()):
            found.setdefault(command, document)
    return found


def shell(command):
    """Check that COMMAND exits with 0, and does not change this work tree."""
    tree = Tree(TOP)
    before = tree.git('status', '--porcelain')
    done = subprocess.run(['sh', '-c', command], cwd=TOP, check=False, text=True, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        raise Error('\n# '.join([f'exits with {done.returncode}', *done.stdout.strip().splitlines()[-5:]]))
    changed = set(tree.git('status', '--porcelain').splitlines()) ^ set(before.splitlines())
    if changed:
        raise Error(f'the work tree differs afterwards ({", ".join(sorted(changed))}): write below build/')


def scenario(row):
    """Check that the scenario passes, and does what the command does."""
    name = row.instead
    wanted = [says.format(value[1]) for asks, says in ASKS.items() if (value := re.search(asks, row.command))]
    stanza = re.search(rf'^\[{re.escape(name)}\]\n(.*?)(?=^\[|\Z)', ''.join(
        path.read_text() for path in sorted((TOP / 'tests/kvmsim').glob('*.cfg'))), re.M | re.S)
    if not (wanted and stanza and all(words in stanza[1] for words in wanted)):
        raise Error(f'there is no scenario {name} that says "{" ".join(wanted)}"')
    shell(f'scripts/kvmsim run {name}')


def ci(row):
    if not re.search(rf'(?<!\S){re.escape(row.command)}$', (TOP / '.ci/run').read_text(), re.M):
        raise Error(f'.ci/run does not run {row.command}')


def by(row):
    """Check that make or make check runs another command that does it."""
    callers = ''.join(path.read_text() for path in (TOP / 'Makefile', *TOP.glob('tests/**/meson.build')))
    if not re.search(rf'(?<![\w/]){re.escape(row.instead)}\b', callers):
        raise Error(f'make and make check do not run {row.instead}')


CHECKS = {'run': lambda row: shell(row.command), 'short': lambda row: shell(row.instead), 'ci': ci, 'by': by,
          'scenario': scenario, 'shown': lambda row: None}
REPLACED = ('short', 'by', 'scenario')


def checkout():
    """Make a checkout of QEMU like that of a new user."""
    place = BUILD / 'check/qemu'
    shutil.rmtree(place, ignore_errors=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    copy = clone(Tree(bases.home() / 'src'), place)
    copy.git('checkout', '-q', '-b', 'base', BASE_REF)


def check_table(shown, table):
    known = {row.command for row in table}
    lost = [f'{command} ({document}) has no row' for command, document in shown.items() if command not in known]
    lost += [f'{command} is in no document' for command in known if command not in shown]
    if lost:
        raise Error('tests/docs.cfg: ' + '; '.join(lost))


def check():
    no_options(__doc__)
    table, shown = rows(), commands()
    checkout()
    checks = [('every command has a row', check_table, shown, table),
              *((row.command, CHECKS[row.kind], row) for row in table)]
    return report((point(*one) for one in checks), len(checks))['failed'] > 0


if __name__ == '__main__':
    main(check)
