# Copyright (c) 2026 QEMU contributors
# SPDX-License-Identifier: GPL-2.0-or-later
"""Programs, locks and whole files: what every command needs of this machine."""

import contextlib
import errno
import fcntl
import pathlib
import shutil
import subprocess
import sys

TOP = pathlib.Path(__file__).resolve().parents[2]
BUILD = TOP / 'build'
# Mounts and processes end with the script, even where it gets no chance to end them
ALONE = ['setpriv', '--pdeathsig', 'KILL', '--',
         'unshare', '--mount', '--pid', '--fork', '--kill-child', '--mount-proc']


class Error(Exception):
    """What failed and what to do about it, in one sentence."""


class Unknown(Error):
    """Bad input, for exit code 2."""


@contextlib.contextmanager
def locked(name, busy=None):
    """Hold build/NAME.lock: one process at a time makes what NAME stands for.

    BUSY is said where another process has it.
    """
    BUILD.mkdir(exist_ok=True)
    with open(BUILD / f'{name}.lock', 'w') as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if busy:
                say(busy)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock


@contextlib.contextmanager
def scratch(place):
    """PLACE, an empty folder for as long as it is needed; what a killed run left there goes first."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def write_whole(path, text):
    """PATH has TEXT, or what it had before."""
    half = path.with_name(f'{path.name}.part')
    half.write_text(text)
    half.rename(path)


def say(text):
    clear = '\r\033[K' if sys.stderr.isatty() else ''
    print(clear + text, file=sys.stderr, flush=True)


def run(command, **kwargs):
    """Run COMMAND quietly; its own last words become the error."""
    try:
        # "lab here" runs on Python 3.6, too: text=True has its old name there
        return subprocess.run(command, check=True, universal_newlines=True, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, **kwargs).stdout
    except FileNotFoundError:
        raise Error(f'{command[0]} is not installed: run ./configure, which names '
                    'or installs what is missing') from None
    except subprocess.CalledProcessError as e:
        words = [line for line in (e.stderr or e.stdout).splitlines() if line.strip()]
        errors = [line for line in words if line.startswith(('E:', 'error:', 'fatal:'))]
        raise Error('; '.join(errors or words[-3:]) or f'{command[0]} failed') from None


def culprit(lines, usual):
    """The one of LINES that says that the disk is full, which others follow; else USUAL."""
    return next((line for line in lines if line.endswith('No space left on device')), usual)


def reason(error):
    """What ERROR says and what to do; an OSError says only half of it."""
    if not isinstance(error, OSError):
        return str(error)
    about = f'{error.filename}: {error.strerror}' if error.filename else error.strerror
    advice = 'free some space on the disk of build/, then' if error.errno == errno.ENOSPC else 'fix that, then'
    return f'{about}: {advice} run this again'
