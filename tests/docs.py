# Copyright (c) 2026 QEMU contributors
# SPDX-License-Identifier: GPL-2.0-or-later
"""Check that the commands in the documents exist and take the options shown there.  Prints TAP.

With --run, also run the commands that a new user types first.
"""

import argparse
import contextlib
import io
import os
import re
import runpy
import shutil
import subprocess
import sys
from unittest import mock

from scripts.lib.command import Parser, main
from scripts.lib.system import BUILD, TOP, Error, run
from scripts.queue import bases
from scripts.queue.git import BASE_REF, Tree, clone
from tests.tap import point, report

COMMAND = re.compile(r'(?:make \S|scripts/|python3 -m |\./configure).*')
BLOCK = re.compile(r'^```\w*\n(.*?)^```$|::(?: \w+)?\n\n((?:[ ]+.*\n|\n)+)', re.M | re.S)
# The module that a command in scripts/ starts
STARTS = re.compile(r'^PYTHON.* -m (\S+)', re.M)
CHECKOUT = BUILD / 'check/qemu'
# {a new user's command: what runs for it}
FIRST = {
    './configure': './configure',
    'make boot': 'make boot',
    'scripts/graft /path/to/qemu': f'BASE={CHECKOUT} scripts/graft {CHECKOUT}',
    'scripts/kvmsim run ask-limited --qemu patched': 'scripts/kvmsim run ask-limited --qemu patched',
    'scripts/lab run --compat power10 --do reboot --do savevm --do migrate':
        'scripts/lab run --compat power10 --do reboot --do savevm --do migrate',
    'make series': 'make series',
}


class Parsed(BaseException):
    """A command has parsed its options."""


def commands():
    """{command in a document, without its comment: document}"""
    found = {}
    for name in Tree(TOP).git('ls-files', '--', '*.md', '*.rst').splitlines():
        text = (TOP / name).read_text()
        lines = [line for block in BLOCK.findall(text) for line in ''.join(block).splitlines()]
        # in running text, one word is the name of a file
        for line in [*lines, *re.findall(r'``?([^`\s]+ [^`\n]+)``?', BLOCK.sub('', text))]:
            command = line.split('  #')[0].strip()
            if COMMAND.fullmatch(command):
                found.setdefault(command, name)
    return found


def makes(command):
    """Check that make has the target, and that the Makefile uses the variables."""
    unused = [word for word in re.findall(r'(\w+)=', command) if f'$({word})' not in (TOP / 'Makefile').read_text()]
    if unused:
        raise Error(f'the Makefile does not use {", ".join(unused)}')
    run(['sh', '-c', f'{command} -n'], cwd=TOP)


def parses(words):
    """Check that the Python program WORDS accepts its options, without running further."""
    def parse(parser, *args):
        real(parser, *args)
        raise Parsed
    real, said = argparse.ArgumentParser.parse_args, io.StringIO()
    module = words[2] if words[0] == 'python3' else STARTS.search((TOP / words[0]).read_text())[1]
    with mock.patch.object(argparse.ArgumentParser, 'parse_args', parse), contextlib.redirect_stderr(said), \
            mock.patch.object(sys, 'argv', [str(TOP / words[0]), *words[3 if words[0] == 'python3' else 1:]]):
        try:
            runpy.run_module(module, run_name='__main__')
        except Parsed:
            return
        except (SystemExit, ImportError) as e:
            raise Error(said.getvalue().strip() or str(e)) from None
    raise Error('it does not parse its options')


def takes(command):
    """Check that COMMAND exists and accepts its options."""
    # the files of an example are elsewhere
    words = re.sub(r'(?<!\S)/\S+', sys.executable, command).split()
    if words[0] == 'make':
        makes(command)
    elif words[0] == 'python3' or STARTS.search((TOP / words[0]).read_text()):
        parses(words)
    else:
        run([*words, '--help'], cwd=TOP)


def runs(command):
    done = subprocess.run(['sh', '-c', FIRST[command]], cwd=TOP, check=False, text=True, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        raise Error('\n'.join([f'exits with {done.returncode}', *done.stdout.strip().splitlines()[-5:]]))


def checkout():
    """Make a checkout of QEMU like that of a new user."""
    shutil.rmtree(CHECKOUT, ignore_errors=True)
    CHECKOUT.parent.mkdir(parents=True, exist_ok=True)
    copy = clone(Tree(bases.home() / 'src'), CHECKOUT)
    copy.git('checkout', '-q', '-b', 'base', BASE_REF)


def check():
    parser = Parser(description=__doc__)
    parser.add_argument('--run', action='store_true', help='also run the commands that a new user types first')
    slow = parser.parse_args().run
    os.chdir(TOP)
    shown = commands()
    lost = {*FIRST} - {*shown}
    if lost:
        raise Error(f'tests/docs.py: in no document: {", ".join(lost)}')
    checks = [(f'{command} ({name})', takes, command) for command, name in shown.items()]
    if slow:
        checkout()
        checks += [(f'run: {command}', runs, command) for command in FIRST]
    return report((point(*one) for one in checks), len(checks))['failed'] > 0


if __name__ == '__main__':
    main(check)
