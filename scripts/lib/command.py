# Copyright (c) 2026 QEMU contributors
# SPDX-License-Identifier: GPL-2.0-or-later
"""What all commands share: options, errors, signals and exit codes."""

import argparse
import pathlib
import signal
import sys

from lib.system import TOP, Error, Unknown, reason


def name():
    """The command, as a person finds it in the top folder."""
    path = pathlib.Path(sys.argv[0]).resolve()
    return str(path.relative_to(TOP)) if TOP in path.parents else path.name


class Parser(argparse.ArgumentParser):
    """Options have one name each; a mistake is an error like any other."""

    def __init__(self, **kwargs):
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter,
                         **{'prog': name(), **kwargs})

    def error(self, message):
        raise Unknown(message)


def no_options(doc):
    """DOC is all the help that a command without options has."""
    Parser(description=doc).parse_args()


def main(does, called=None):
    """End the process with what DOES() returns, or with one line that says what went wrong.

    The line begins with CALLED, else with the command.

    The exit code is 0, 1 if it failed, 2 for bad input, or 130 if it was interrupted.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        # as Ctrl-C does: nothing that was started stays behind
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)
    try:
        code = int(does() or 0)
    except (Error, OSError) as e:
        print(f'{called or name()}: {reason(e)}', file=sys.stderr)
        code = 2 if isinstance(e, Unknown) else 1
    except KeyboardInterrupt:
        print(f'{called or name()}: interrupted', file=sys.stderr)
        code = 130
    sys.exit(code)
