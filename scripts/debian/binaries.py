# Copyright (c) 2026 QEMU contributors
# SPDX-License-Identifier: GPL-2.0-or-later
"""Our builds of QEMU, brought up to date."""

import contextlib
import functools
import os
import pathlib
import re
import signal
import subprocess
import sys

from scripts.debian import roots
from scripts.lib.command import main
from scripts.lib.system import TOP, Error, locked
from scripts.queue import bases


def building(place):
    """Lock PLACE, a directory that QEMU is configured or built in."""
    return locked(place, f'waiting for another build in {place.relative_to(TOP)} to end')


def ninja(place, *targets):
    """Lock PLACE and exec ninja there; ninja and all its children hold the lock."""
    with building(pathlib.Path(place).resolve()) as lock:
        os.set_inheritable(lock.fileno(), True)
        os.execvpe('ninja', ['ninja', '-C', place, *targets], dict(os.environ, PYTHONPATH=roots.meson_path()))


def failures(text):
    """Why a build failed, on one line: the compiler's errors, or else the last lines of its output."""
    lines = text.splitlines()
    # "ld returned 1 exit status" gives no reason
    errors = [line for line in lines if re.search(' error: (?!ld returned)', line)]
    return ' / '.join(errors or (line for line in lines[-12:] if line.strip()))


def build(target):
    """Run make TARGET; if interrupted, leave no process of the build behind."""
    # tells the user if another build is running; make's output is shown only in an error
    with building(bases.home() / target):
        pass
    with subprocess.Popen(['make', '-s', '-C', TOP, target], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, start_new_session=True) as made:
        try:
            words = made.communicate()[0]
        except BaseException:
            # end ninja and its children, too; communicate() returns when the last one has closed the pipe
            with contextlib.suppress(ProcessLookupError):
                os.killpg(made.pid, signal.SIGTERM)
            made.communicate()
            raise
    if made.returncode:
        raise Error(f'building QEMU failed ({failures(words)}): run make {target} for details')


@functools.cache
def built(target):
    """The qemu-system-ppc64 of a build: from $QEMU_BUILDS as it is, or else from build/, brought up to date."""
    builds = os.environ.get('QEMU_BUILDS')
    if not builds:
        build(target)
    path = pathlib.Path(builds or bases.home(), target, 'qemu-system-ppc64')
    if not path.exists():
        raise Error(f'QEMU_BUILDS={builds} has no {target}/qemu-system-ppc64: build it there, or unset QEMU_BUILDS')
    return path


def patched_qemu():
    """Our ppc64le QEMU with KVM; it needs the libraries of guest_root()."""
    return built('kvm')


def upstream_qemu():
    """A QEMU like ours, but with upstream's own version instead of the series."""
    return built('upstream/kvm')


def native_qemu():
    """Our QEMU for this machine, with TCG."""
    return built('tcg')


# {name: the function that returns the path} of the QEMUs that tests compare
QEMUS = {'distro': roots.distro_qemu, 'upstream': upstream_qemu, 'patched': patched_qemu}


if __name__ == '__main__':
    main(lambda: ninja(*sys.argv[1:]))
