# SPDX-License-Identifier: GPL-2.0-or-later
"""Programs, threads, locks and files that are replaced atomically."""

import concurrent.futures
import contextlib
import errno
import fcntl
import pathlib
import shutil
import subprocess
import sys

TOP = pathlib.Path(__file__).resolve().parents[2]
BUILD = TOP / 'build'
# What this process holds: see hold()
held = []


class Error(Exception):
    """Says in one sentence what failed and what to do about it."""


class Unknown(Error):
    """Bad input, which means exit code 2."""


@contextlib.contextmanager
def locked(name, busy=None):
    """Hold build/NAME.lock, so that one process at a time makes NAME; if another does, print BUSY and wait."""
    path = BUILD / f'{name}.lock'
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, 'w') as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if busy:
                say(busy)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock


def hold(path):
    """Keep PATH for this process until it ends, so that unused() is false for others."""
    held.append(open(path, 'rb'))    # pylint: disable=consider-using-with
    fcntl.flock(held[-1], fcntl.LOCK_SH)


@contextlib.contextmanager
def unused(path):
    """Whether no process holds PATH; if so, none can begin to before the end."""
    with open(path, 'rb') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


@contextlib.contextmanager
def scratch(place):
    """Make PLACE an empty directory and remove it at the end; a killed run may have left files there."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def write_whole(path, text):
    """Write TEXT, or bytes, to PATH; if this is interrupted, PATH keeps its old content."""
    half = path.with_name(f'{path.name}.part')
    half.write_bytes(text if isinstance(text, bytes) else text.encode())
    half.rename(path)


def say(text):
    clear = '\r\033[K' if sys.stderr.isatty() else ''
    print(clear + text, file=sys.stderr, flush=True)


def tried(command, data=None, stderr=subprocess.PIPE, **kwargs):
    """Run COMMAND quietly, with DATA as its input, and return what came of it; it may fail."""
    given = {'stdin': subprocess.DEVNULL} if data is None else {'input': data}
    try:
        return subprocess.run(command, check=False, text=True, stdout=subprocess.PIPE, stderr=stderr, **given, **kwargs)
    except FileNotFoundError:
        raise Error(f'{command[0]} is not installed: run ./configure, which installs it or prints the command that '
                    'does') from None


def run(command, **kwargs):
    """Run COMMAND quietly, and return its output; if it fails, its error messages become the Error."""
    done = tried(command, **kwargs)
    if done.returncode:
        words = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        errors = [line for line in words if line.startswith(('E:', 'error:', 'fatal:'))]
        raise Error(culprit(words, '; '.join(errors or words[-3:])) or f'{command[0]} failed')
    return done.stdout


@contextlib.contextmanager
def workers(jobs, end):
    """Threads; if one fails or the run is interrupted, END() ends the processes that the others wait for."""
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        try:
            yield pool
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            end()
            raise


def culprit(lines, usual):
    """The first of LINES that says that the disk is full, which causes the others; or else USUAL."""
    return next((line for line in lines if line.endswith('No space left on device')), usual)


def reason(error):
    """The text of ERROR; an OSError does not say what to do, so add that."""
    if not isinstance(error, OSError):
        return str(error)
    about = f'{error.filename}: {error.strerror}' if error.filename else error.strerror
    advice = 'free some space on the disk of build/, then' if error.errno == errno.ENOSPC else 'fix that, then'
    return f'{about}: {advice} run this again'
