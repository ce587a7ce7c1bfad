# Copyright (c) 2026 QEMU contributors
# SPDX-License-Identifier: GPL-2.0-or-later
"""The QEMUs that we build, up to date."""

import contextlib
import functools
import os
import pathlib
import re
import signal
import subprocess

from lib import bases, roots
from lib.system import TOP, Error, locked


def building(place):
    """Hold PLACE, a folder that QEMU is configured or built in."""
    return locked(place, f'waiting for another build in {place.relative_to(TOP)} to end')


def ninja(place, *targets):
    """Become ninja in PLACE, once nobody else is at work there; it and all that it starts hold the lock."""
    with building(pathlib.Path(place).resolve()) as lock:
        os.set_inheritable(lock.fileno(), True)
        os.execvpe('ninja', ['ninja', '-C', place, *targets], dict(os.environ, PYTHONPATH=roots.meson_path()))


def failures(text):
    """What a build that failed says of it, on one line: the compiler's errors, else its last words."""
    lines = text.splitlines()
    # the linker's own says nothing
    errors = [line for line in lines if re.search(' error: (?!ld returned)', line)]
    return ' / '.join(errors or (line for line in lines[-12:] if line.strip()))


def build(target):
    """make TARGET; interrupted, it leaves no process of the build."""
    # what make says is for an error only
    with building(bases.home() / target):
        pass
    with subprocess.Popen(['make', '-s', '-C', TOP, target], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, start_new_session=True) as made:
        try:
            words = made.communicate()[0]
        except BaseException:
            # ninja and all below it, too; the pipe ends with the last of them
            with contextlib.suppress(ProcessLookupError):
                os.killpg(made.pid, signal.SIGTERM)
            made.communicate()
            raise
    if made.returncode:
        raise Error(f'building QEMU failed ({failures(words)}): make {target} says more')


# Python 3.6, which "lab here" can have, knows no functools.cache
@functools.lru_cache(maxsize=None)
def built(target):
    """The qemu-system-ppc64 of one of our builds: that in QEMU_BUILDS as it is, else ours, up to date."""
    builds = os.environ.get('QEMU_BUILDS')
    if not builds:
        build(target)
    path = pathlib.Path(builds or bases.home(), target, 'qemu-system-ppc64')
    if not path.exists():
        raise Error(f'QEMU_BUILDS={builds} has no {target}/qemu-system-ppc64: build it there, or unset QEMU_BUILDS')
    return path


def patched_qemu():
    """Our ppc64le QEMU with KVM; it runs with guest_root()'s libraries."""
    return built('kvm')


def native_qemu():
    """Our QEMU for this machine, with TCG."""
    return built('tcg')
