# Copyright (c) 2026 QEMU contributors
# SPDX-License-Identifier: GPL-2.0-or-later
"""What L1 and L2 boot: Debian's kernels, and an initramfs of what they need.

Everything is made once, under build/kernels and build/images, and stands
there complete or not at all.
"""

import contextlib
import fcntl
import functools
import gzip
import hashlib
import lzma
import pathlib
import re
import stat

from lib import binaries, roots
from lib.debian import Suite, compare_versions
from lib.system import BUILD, Error, locked, run, say, scratch, write_whole

HERE = pathlib.Path(__file__).resolve().parent
SUITES = ('trixie', 'sid', 'experimental')
# Debian's flavour for each page size.
FLAVOURS = {'4k': 'powerpc64le', '64k': 'powerpc64le-64k'}
MODULES = ('irqbypass', 'kvm', 'kvm-hv')
APPLETS = ('sh', 'mount', 'insmod', 'stty', 'sed')
MOUNT_POINTS = ('proc', 'sys', 'dev', 'run', 'tmp')
CROSS = 'powerpc64le-linux-gnu-'
IMAGES = BUILD / 'images'
KERNELS = BUILD / 'kernels'


def compare_suites(pages):
    found = {}
    for suite in SUITES:
        version = Suite(suite, 'ppc64el').version(f'linux-image-{FLAVOURS[pages]}')
        if version:
            found[suite] = version
    if not found:
        raise Error(f'none of {", ".join(SUITES)} has a ppc64el kernel on this mirror: try again later')
    return functools.reduce(lambda a, b: b if compare_versions(found[b], found[a]) > 0 else a, found)


def remembered(name, suites, ask):
    """What ASK() says; asking apt takes seconds, so it is asked anew only when the lists of SUITES are new."""
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
    """The packages that hold the kernel proper and its modules."""
    found, wanted = [], [f'linux-image-{FLAVOURS[pages]}']
    while wanted:
        package = wanted.pop()
        if package not in found and re.match(r'linux-(image|binary|modules)-', package):
            found.append(package)
            wanted += suite.depends(package)
    return [package for package in found if re.search(r'-\d', package)]


class Kernel:
    """A suite's newest kernel, stripped, with the modules that KVM needs; no other process removes it."""

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
        version = self.suite.version(f'linux-image-{FLAVOURS[self.pages]}')
        if not version:
            raise Error(f'{self.suite.name} has no ppc64el kernel with {self.pages} pages on this mirror: '
                        'choose another suite')
        return version

    def _wanted(self):
        """Where the suite's newest kernel is, or will be."""
        return KERNELS / f'{self.name}-{remembered(f"version-{self.name}", [self.suite], self._version)}'

    def _newest(self):
        """The folder of the suite's newest kernel; where that cannot be had, of the newest that is here."""
        home = self._wanted()
        if not home.exists():
            try:
                home = self._unpack()
            except Error as e:
                here = sorted(self._all(), key=lambda path: path.stat().st_mtime)
                if not here:
                    raise
                home = here[-1]
                say(f'going on with {home.name}: {e}')
        return home

    def _all(self):
        return KERNELS.glob(f'{self.name}-*')

    def _remove_others(self):
        """Remove older kernels that nobody holds, and what was packed with them."""
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
            # a kernel that the mirror has replaced has another name since
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


# not functools.cache, which Python 3.6 lacks
@functools.lru_cache(maxsize=None)
def newest_kernel(suite, pages):
    """The same for all runs of this process, whatever its suite has meanwhile."""
    return Kernel(suite, pages)


def libraries(root, *programs):
    """The shared libraries below ROOT that PROGRAMS need."""
    folders = [root / 'usr/lib/powerpc64le-linux-gnu', root / 'usr/lib64', root / 'usr/lib']
    found, wanted = {}, [*programs]
    while wanted:
        for name in re.findall(r'NEEDED.*\[(.*)\]', run(['readelf', '-d', str(wanted.pop())])):
            if name not in found:
                found[name] = next((f / name for f in folders if (f / name).exists()), None)
                if not found[name]:
                    raise Error(f'{name} is missing from {root.name}: remove that folder and run again')
                wanted.append(found[name])
    return found


def stale(output, source):
    return not output.exists() or output.stat().st_mtime < source.stat().st_mtime


def probe():
    """The program that L1 runs and that is L2's init."""
    binary, sources = IMAGES / 'probe', [HERE / 'probe.c', HERE / 'work.c']
    with locked('probe'):
        if any(stale(binary, source) for source in (*sources, HERE / 'work.h')):
            with scratch(IMAGES / 'probe.part') as part:
                half = part / 'probe'
                run([CROSS + 'gcc', '-static', '-O2', '-Wall', '-Werror', '-o', str(half), *map(str, sources)])
                half.rename(binary)
    return binary


def member(name, mode, data=b''):
    """One member of a "newc" cpio archive, the same bytes each time."""
    name = name.encode() + b'\0'
    fields = (0, mode, 1, 0, 0, 0, len(data), 0, 0, 0, 0, len(name), 0)
    head = b'070701' + b''.join(b'%08x' % field for field in fields) + name
    return b''.join(part + bytes(-len(part) % 4) for part in (head, data))


def pack(files, links, output, opener=pathlib.Path.open):
    """Write FILES ({path in the archive: path here}) and LINKS to OUTPUT, as a kernel takes it."""
    names = {pathlib.PurePath(name) for name in (*files, *links)}
    folders = {str(folder) for name in names for folder in name.parents} - {'.'} | set(MOUNT_POINTS)
    with scratch(output.with_suffix('.part')) as part:
        half = part / 'half'
        with opener(half, 'wb') as out:
            for name in sorted(folders):
                out.write(member(name, stat.S_IFDIR | 0o755))
            for name, source in sorted(files.items()):
                out.write(member(name, source.stat().st_mode, source.read_bytes()))
            for name, target in sorted(links.items()):
                out.write(member(name, stat.S_IFLNK | 0o777, target.encode()))
            out.write(member('TRAILER!!!', 0))
        half.rename(output)


def l2_initrd():
    output, init = IMAGES / 'l2.cpio', probe()
    with locked('l2-initrd'):
        if stale(output, init):
            pack({'init': init}, {}, output)
    return output


def host_files(kernel, qemu):
    """What a KVM host needs to run QEMU: {path in the archive: path here}."""
    root = roots.guest_root()
    busybox = root / 'usr/bin/busybox'
    firmware = root / 'usr/share/qemu'
    files = {
        'init': HERE / 'l1-init', 'bin/busybox': busybox, 'bin/probe': probe(),
        'usr/bin/qemu-system-ppc64': qemu,
        'usr/share/qemu/vof.bin': firmware / 'vof.bin', 'usr/share/qemu/slof.bin': firmware / 'slof.bin',
        'lib64/ld64.so.2': root / 'usr/lib64/ld64.so.2',
    }
    files |= {f'lib/modules/{module.name}': module for module in kernel.home.glob('*.ko')}
    return files | {f'usr/lib/{name}': path for name, path in libraries(root, qemu, busybox).items()}


def initrd(stem, files, opener=pathlib.Path.open):
    """The archive of FILES, made anew where one of them changed."""
    key = hashlib.sha256(''.join(
        f'{name} {path.resolve()} {path.stat().st_mode} {path.stat().st_size} {path.stat().st_mtime_ns}\n'
        for name, path in sorted(files.items())).encode()).hexdigest()[:16]
    output = IMAGES / f'{stem}-{key}.cpio'
    with locked(f'image-{stem}'):
        if not output.exists():
            say(f'packing {stem}')
            for old in output.parent.glob(f'{stem}-*.cpio'):
                old.unlink()
            pack(files, {f'bin/{applet}': 'busybox' for applet in APPLETS}, output, opener)
    return output


def l1_initrd(kernel, qemu, stem='l1', more=None):
    """L1's initramfs: KVM, QEMU with all that it loads, L2's kernel, and MORE files."""
    which = 'distro' if qemu == roots.distro_qemu() else 'patched'
    return initrd(f'{stem}-{kernel.home.name}-{which}', {
        **(more or {}), **host_files(kernel, qemu), 'l2/vmlinux': kernel.vmlinux, 'l2/initrd': l2_initrd(),
        'l2/disk': binaries.empty_disk()})


def l0_initrd(kernel, l1):
    """The initramfs of Linux as L0, with L1's inside; skiboot takes 128 MiB, so it is compressed."""
    return initrd(f'l0-{l1.stem.rpartition("-")[0]}', {
        **host_files(kernel, roots.distro_qemu()), 'l1/vmlinux': kernel.vmlinux, 'l1/initrd': l1},
        lambda path, mode: gzip.open(path, mode, compresslevel=1))
