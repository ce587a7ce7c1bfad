# SPDX-License-Identifier: GPL-2.0-or-later
"""Check that the commands in the documents exist and take the options shown there.  Prints TAP."""

import argparse
import contextlib
import io
import os
import re
import runpy
import sys
from unittest import mock

from scripts.lib.command import main, no_options
from scripts.lib.system import TOP, Error, run
from scripts.queue.git import Tree
from tests.tap import point, report

COMMAND = re.compile(r'(?:make \S|scripts/|python3 -m |\./configure).*')
BLOCK = re.compile(r'^```\w*\n(.*?)^```$|::(?: \w+)?\n\n((?:[ ]+.*\n|\n)+)', re.M | re.S)
# The module that a command in scripts/ starts
STARTS = re.compile(r'^PYTHON.* -m (\S+)', re.M)


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


def parses(module, words):
    """Check that the program MODULE accepts the options WORDS, without running further."""
    def parse(parser, *args):
        real(parser, *args)
        raise Parsed
    real, said = argparse.ArgumentParser.parse_args, io.StringIO()
    with mock.patch.object(argparse.ArgumentParser, 'parse_args', parse), contextlib.redirect_stderr(said), \
            mock.patch.object(sys, 'argv', [__file__, *words]):
        try:
            runpy.run_module(module, run_name='__main__', alter_sys=False)
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
    elif words[0] == 'python3':
        parses(words[2], words[3:])
    elif starts := STARTS.search((TOP / words[0]).read_text()):
        parses(starts[1], words[1:])
    else:
        run([*words, '--help'], cwd=TOP)


def check():
    no_options(__doc__)
    os.chdir(TOP)
    return report(point(f'{command} ({name})', takes, command) for command, name in commands().items())['failed'] > 0


if __name__ == '__main__':
    main(check)
