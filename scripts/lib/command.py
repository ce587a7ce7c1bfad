# SPDX-License-Identifier: GPL-2.0-or-later
"""Options, errors, signals and exit codes of all commands."""

import argparse
import os
import pathlib
import signal
import sys

from scripts.lib.system import TOP, Error, Unknown, reason


class Parser(argparse.ArgumentParser):
    """A parser that accepts no abbreviated options, and reports a mistake as main() reports any error."""

    def __init__(self, **kwargs):
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter,
                         **{'prog': sys.argv[0], **kwargs})

    def error(self, message):
        raise Unknown(message)


def no_options(doc):
    """Handle --help for a command without options; DOC is the help text."""
    Parser(description=doc).parse_args()


def main(does, called=None):
    """Exit with the value that DOES() returns, or print an error on one line, after CALLED or the module's path.

    The exit code is 0, 1 if the command failed, 2 for bad input, or 130 if it was interrupted.
    """
    sys.argv[0] = called or str(pathlib.Path(sys.argv[0]).resolve().relative_to(TOP))
    # what programs print is parsed; some look at LANGUAGE in any locale but C
    os.environ.update(LC_ALL='C.UTF-8', LANGUAGE='')
    # QEMU's scripts have modules of their own
    for variable in ('PYTHONPATH', 'PYTHONSAFEPATH'):
        os.environ.pop(variable, None)
    for number in (signal.SIGTERM, signal.SIGHUP):
        # clean up as for Ctrl-C, so that no child process is left behind
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)
    try:
        code = int(does() or 0)
    except (Error, OSError) as e:
        print(f'{sys.argv[0]}: {reason(e)}', file=sys.stderr)
        code = 2 if isinstance(e, Unknown) else 1
    except KeyboardInterrupt:
        print(f'{sys.argv[0]}: interrupted', file=sys.stderr)
        code = 130
    sys.exit(code)
