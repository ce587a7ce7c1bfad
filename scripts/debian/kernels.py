# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernels that L1 and L2 boot: the newest of a Debian suite, in build/kernels."""

import functools
import gzip
import lzma
import pathlib
import re

from scripts.debian.suite import Suite, compare_versions, newest_first
from scripts.lib.system import BUILD, Error, hold, locked, run, say, scratch, unused, write_whole

SUITES = ('trixie', 'trixie-backports', 'sid', 'experimental')
# The first Linux with KVM_PPC_GET_COMPAT_CAPS; in Debian's order, its release candidates (7.3~rc1) come before it
INTERFACE = '7.3'
FLAVORS = {'4k': 'powerpc64le', '64k': 'powerpc64le-64k'}
MODULES = ('irqbypass', 'kvm', 'kvm-hv', 'ibmveth')
# {how a module's name ends: what reads it}
READERS = {'.ko': pathlib.Path.read_bytes, '.xz': lambda path: lzma.decompress(path.read_bytes()),
           '.gz': lambda path: gzip.decompress(path.read_bytes())}
CROSS = 'powerpc64le-linux-gnu-'
KERNELS = BUILD / 'kernels'
IMAGES = BUILD / 'images'


def version(suite, package):
    """The version of PACKAGE in SUITE; asks apt, which takes a second, only if the lists are newer."""
    known = KERNELS / f'version-{suite.name}-{package}'
    with locked(known.name):
        suite.refresh()
        if not known.exists() or suite.updated.stat().st_mtime >= known.stat().st_mtime:
            known.parent.mkdir(parents=True, exist_ok=True)
            write_whole(known, suite.versions(package).get(package, ''))
        found = known.read_text()
    if not found:
        raise Error(f'{suite.name} has no {package} for {suite.arch} on this mirror: choose another suite')
    return found


def by_interface(package, suites=SUITES):
    """[(suite, version)] of SUITES with PACKAGE of Linux: releases with the interface, then candidates, then others."""
    found = {}
    for suite in suites:
        try:
            found[suite] = version(Suite(suite, 'ppc64el'), package)
        except Error as e:
            say(f'passing over {suite}: {e}')

    def worth(number):
        return 2 * (compare_versions(number, f'{INTERFACE}~') >= 0) + ('~rc' not in number)
    newest = {number: place for place, number in enumerate(newest_first({*found.values()}))}
    return sorted(found.items(), key=lambda one: (-worth(one[1]), newest[one[1]]))


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
    """A suite's newest kernel, stripped, with the modules of KVM."""

    def __init__(self, suite, pages):
        self.suite, self.pages, self.name = Suite(suite, 'ppc64el'), pages, f'{suite}-{pages}'
        with locked(f'kernel-{self.name}'):
            self.home = self._newest()
            self.vmlinux = self.home / 'vmlinux'
            hold(self.vmlinux)
            self._remove_others()

    def _wanted(self):
        """The directory of the suite's newest kernel, which may not exist yet."""
        return KERNELS / f'{self.name}-{version(self.suite, f"linux-image-{FLAVORS[self.pages]}")}'

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
        # not those of trixie-backports for trixie
        return KERNELS.glob(f'{self.name}-[0-9]*')

    def _remove_others(self):
        """Remove older kernels that no process uses, and the images with them."""
        for old in self._all():
            with unused(old / 'vmlinux') as free:
                if free:
                    for image in IMAGES.glob(f'*-{old.name}-*.image'):
                        image.unlink()
                    with scratch(KERNELS / f'{self.name}.part') as part:
                        old.rename(part / 'old')

    def _unpack(self):
        with scratch(KERNELS / f'{self.name}.part') as part:
            root, half = part / f'kernel-{self.name}', part / 'half'
            self.suite.unpack(root, lambda: kernel_packages(self.suite, self.pages), closure=False)
            half.mkdir()
            image = next(iter([*root.glob('boot/vmlinu*'), *root.glob('usr/lib/modules/*/vmlinu*')]), None)
            if not image:
                raise Error(f'no kernel in the packages of {self.suite.name}: choose another suite')
            run([CROSS + 'strip', '-o', str(half / 'vmlinux'), str(image)])
            for name in MODULES:
                for packed in root.glob(f'usr/lib/modules/**/{name}.ko*'):
                    if packed.suffix not in READERS:
                        raise Error(f'{self.suite.name} has {packed.name}, which this cannot read: choose another '
                                    f'suite, whose modules end in {", ".join(READERS)}')
                    (half / f'{name}.ko').write_bytes(READERS[packed.suffix](packed))
            if not (half / 'kvm-hv.ko').exists():
                raise Error(f'no kvm-hv module in the packages of {self.suite.name}: choose another suite')
            return half.rename(self._wanted())


@functools.cache
def newest_kernel(suite, pages):
    """The same kernel for all runs of this process, even if the suite gets a newer one."""
    if suite != 'newest':
        return Kernel(suite, pages)
    for name, _ in by_interface(f'linux-image-{FLAVORS[pages]}'):
        try:
            return newest_kernel(name, pages)
        except Error as e:
            say(f'passing over {name}: {e}')
    raise Error(f'no kernel of {", ".join(SUITES)} is on this mirror: try again later')
