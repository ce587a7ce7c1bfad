# SPDX-License-Identifier: GPL-2.0-or-later
"""The QEMUs that tests compare: our builds, brought up to date, those of Debian, and any other."""

import contextlib
import functools
import os
import pathlib
import re
import signal
import subprocess
import sys
from typing import NamedTuple

from scripts.debian import roots
from scripts.lib.command import main
from scripts.lib.system import TOP, Error, Unknown, locked, run
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
    """Why a build failed, on one line: the errors of meson or the compiler, or else the last lines of its output."""
    lines = text.splitlines()
    # "ld returned 1 exit status" gives no reason
    errors = [line for line in lines if re.search(' error: (?!ld returned)|ERROR: ', line)]
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


class Qemu(NamedTuple):
    """A ppc64le qemu-system-ppc64 with KVM, and the root with its libraries; also a path, for open() and the like."""
    name: str
    path: pathlib.Path
    root: pathlib.Path

    def __str__(self):
        return str(self.path)

    __fspath__ = __str__

    @property
    def like(self):
        """The QEMU whose results are expected of this one: without other expectations, ours."""
        return self.name if self.name in (*OURS, 'distro') else 'patched'

    def version(self):
        """The first line of the --version output; Debian's has the version of the package."""
        return ask(self, '--version').splitlines()[0]

    def release(self):
        """The release of QEMU, such as 10.0.13."""
        return re.search(r'version (\S+)', self.version())[1]


@functools.cache
def ask(one, *options):
    return run([roots.user_emulator(), '-L', one.root, one.path, *options])


# {name: the build with KVM} of our QEMU, and of one like it with upstream's own version instead of the series
OURS = {'patched': 'kvm', 'upstream': 'upstream/kvm'}
QEMU_HELP = "the QEMU that runs L2: patched (default), distro for Debian's, upstream for one with upstream's own " \
            f'version, a suite of Debian ({", ".join(roots.QEMU_SUITES)}), or the path of a qemu-system-ppc64 for ' \
            'ppc64le'
ROOT_HELP = "root file system with the libraries of a QEMU at a path; by default, those of Debian's QEMU"


def elsewhere(word, root):
    """The QEMU at the path WORD, which must be one for ppc64le that starts, with KVM and the machine pseries."""
    path = pathlib.Path(word).absolute()
    head = path.read_bytes()[:20] if os.access(path, os.R_OK) and path.is_file() else None
    if head is None:
        raise Unknown(f'{word} is not a readable file: give --qemu {", ".join(OURS)}, distro, '
                      f'{", ".join(roots.QEMU_SUITES)}, or the path of a qemu-system-ppc64')
    # ELF, 64-bit, little-endian; the machine is EM_PPC64
    if head[:6] != b'\x7fELF\2\1' or head[18:] != b'\x15\0':
        raise Unknown(f'{word} is not a program for ppc64le: give the path of a qemu-system-ppc64 for ppc64le')
    found = Qemu(word, path, root.absolute() if root else roots.guest_root())
    try:
        lost = [name for name, option in (('KVM', '-accel'), ('pseries', '-machine'))
                if not re.search(rf'^{name.lower()}\b', ask(found, option, 'help'), re.M)]
    except Error as e:
        raise Unknown(f'{word} does not start with the libraries in {found.root} ({e}): give others with '
                      '--qemu-root') from None
    if lost:
        raise Unknown(f'{word} lacks {" and ".join(lost)}: give the path of a qemu-system-ppc64 with KVM')
    return found


@functools.cache
def qemu(word, root=None):
    """The QEMU that --qemu WORD stands for; the libraries of one at a path are in ROOT, or else in guest_root()."""
    if word in OURS:
        return Qemu(word, built(OURS[word]), roots.guest_root())
    if word == 'distro' or word in roots.QEMU_SUITES:
        place = roots.guest_root(None if word == 'distro' else word)
        return Qemu(word, place / roots.QEMU, place)
    return elsewhere(word, root)


def qemus(words, root=None):
    """The QEMUs that the WORDS of --qemu stand for, with --qemu-root ROOT."""
    if root and all(word in (*OURS, 'distro', *roots.QEMU_SUITES) for word in words):
        raise Unknown(f'--qemu-root {root} is for a QEMU at a path: omit it, or give --qemu a path')
    return [qemu(word, root) for word in words]


if __name__ == '__main__':
    main(lambda: ninja(*sys.argv[1:]))
