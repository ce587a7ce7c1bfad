# Copyright (c) 2026 QEMU contributors
# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernels that L1 and L2 boot: the newest of a Debian suite, in build/kernels."""

import contextlib
import fcntl
import functools
import lzma
import re

from scripts.debian.suite import Suite, compare_versions
from scripts.lib.system import BUILD, Error, locked, run, say, scratch, write_whole

SUITES = ('trixie', 'sid', 'experimental')
# Debian's flavor for each page size.
FLAVORS = {'4k': 'powerpc64le', '64k': 'powerpc64le-64k'}
MODULES = ('irqbypass', 'kvm', 'kvm-hv')
CROSS = 'powerpc64le-linux-gnu-'
KERNELS = BUILD / 'kernels'
IMAGES = BUILD / 'images'


def compare_suites(pages):
    found = {}
    for suite in SUITES:
        version = Suite(suite, 'ppc64el').version(f'linux-image-{FLAVORS[pages]}')
        if version:
            found[suite] = version
    if not found:
        raise Error(f'none of {", ".join(SUITES)} has a ppc64el kernel on this mirror: try again later')
    return functools.reduce(lambda a, b: b if compare_versions(found[b], found[a]) > 0 else a, found)


def remembered(name, suites, ask):
    """The result of ASK(), which takes seconds; called again only if the lists of SUITES are newer."""
    known = KERNELS / name
    with locked(name):
        for suite in suites:
            suite.refresh()
        if not known.exists() or any(suite.updated.stat().st_mtime >= known.stat().st_mtime for suite in suites):
            found = ask()
            KERNELS.mkdir(parents=True, exist_ok=True)
            write_whole(known, found)
        return known.read_text()


def newest_suite(pages='4k'):
    """The suite with the newest kernel."""
    suites = [Suite(name, 'ppc64el') for name in SUITES]
    return remembered(f'newest-{pages}', suites, lambda: compare_suites(pages))


def kernel_packages(suite, pages):
    """The packages that contain the kernel image and its modules."""
    found, wanted = [], [f'linux-image-{FLAVORS[pages]}']
    while wanted:
        package = wanted.pop()
        if package not in found and re.match(r'linux-(image|binary|modules)-', package):
            found.append(package)
            wanted += suite.depends(package)
    return [package for package in found if re.search(r'-\d', package)]


class Kernel:
    """A suite's newest kernel, stripped, with the modules of KVM; a lock keeps other processes from removing it."""

    def __init__(self, suite, pages):
        self.suite, self.pages, self.name = Suite(suite, 'ppc64el'), pages, f'{suite}-{pages}'
        self.part = KERNELS / f'{self.name}.part'
        with locked(f'kernel-{self.name}'):
            self.home = self._newest()
            self.vmlinux = self.home / 'vmlinux'
            self.held = open(self.vmlinux, 'rb')    # pylint: disable=consider-using-with
            fcntl.flock(self.held, fcntl.LOCK_SH)
            self._remove_others()

    def _version(self):
        version = self.suite.version(f'linux-image-{FLAVORS[self.pages]}')
        if not version:
            raise Error(f'{self.suite.name} has no ppc64el kernel with {self.pages} pages on this mirror: '
                        'choose another suite')
        return version

    def _wanted(self):
        """The directory of the suite's newest kernel, which may not exist yet."""
        return KERNELS / f'{self.name}-{remembered(f"version-{self.name}", [self.suite], self._version)}'

    def _newest(self):
        """The directory of the suite's newest kernel; if that cannot be downloaded, of the newest local one."""
        home = self._wanted()
        if not home.exists():
            try:
                home = self._unpack()
            except Error as e:
                here = sorted(self._all(), key=lambda path: path.stat().st_mtime)
                if not here:
                    raise
                home = here[-1]
                say(f'continuing with {home.name}: {e}')
        return home

    def _all(self):
        return KERNELS.glob(f'{self.name}-*')

    def _remove_others(self):
        """Remove older kernels that no process has locked, and the images with them."""
        for old in self._all():
            with open(old / 'vmlinux', 'rb') as held, contextlib.suppress(BlockingIOError):
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                for image in IMAGES.glob(f'*-{old.name}-*.cpio'):
                    image.unlink()
                with scratch(self.part) as part:
                    old.rename(part / 'old')

    def _unpack(self):
        suite = self.suite
        with scratch(self.part) as part:
            # if the mirror has replaced the kernel, the package name is new: call kernel_packages() again
            root = suite.fresh(lambda: suite.root(
                part / f'unpacked-{self.name}',
                kernel_packages(suite, self.pages), closure=False))
            half = part / 'half'
            half.mkdir()
            image = next(iter([*root.glob('boot/vmlinu*'), *root.glob('usr/lib/modules/*/vmlinu*')]), None)
            if not image:
                raise Error(f'no kernel in the packages of {suite.name}: choose another suite')
            run([CROSS + 'strip', '-o', str(half / 'vmlinux'), str(image)])
            for name in MODULES:
                for packed in root.glob(f'usr/lib/modules/**/{name}.ko.xz'):
                    (half / f'{name}.ko').write_bytes(lzma.decompress(packed.read_bytes()))
            if not (half / 'kvm-hv.ko').exists():
                raise Error(f'no kvm-hv module in the packages of {suite.name}: choose another suite')
            return half.rename(self._wanted())


@functools.cache
def newest_kernel(suite, pages):
    """The same kernel for all runs of this process, even if the suite gets a newer one."""
    return Kernel(suite, pages)
