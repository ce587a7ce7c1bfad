# SPDX-License-Identifier: GPL-2.0-or-later
"""What L1 and L2 boot: Debian's kernels, and an initramfs of what they need.

Everything is made once, under build/kernels and build/images, and stands
there complete or not at all.
"""

import functools
import hashlib
import lzma
import os
import pathlib
import re
import shutil
import subprocess
import tempfile

from debian import BUILD, TOP, Error, Suite, locked, run, say
import parts

HERE = pathlib.Path(__file__).resolve().parent
SUITES = ('trixie', 'sid', 'experimental')
# Debian's flavour for each page size.
FLAVOURS = {'4k': 'powerpc64le', '64k': 'powerpc64le-64k'}
MODULES = ('irqbypass', 'kvm', 'kvm-hv')
APPLETS = ('sh', 'mount', 'insmod', 'stty', 'sed', 'dmesg', 'cat', 'echo', 'grep', 'kill', 'sleep')
CROSS = 'powerpc64le-linux-gnu-'


def newer(a, b):
    return subprocess.run(['dpkg', '--compare-versions', a, 'gt', b], check=False).returncode == 0


@functools.cache
def newest_suite(pages='4k'):
    """The suite with the newest kernel."""
    found = {}
    for suite in SUITES:
        version = Suite(suite, 'ppc64el').version(f'linux-image-{FLAVOURS[pages]}')
        if version:
            found[suite] = version
    if not found:
        raise Error(f'none of {", ".join(SUITES)} has a ppc64el kernel on this mirror: try again later')
    return functools.reduce(lambda a, b: b if newer(found[b], found[a]) else a, found)


def kernel_packages(suite, flavour):
    """The packages that hold the kernel proper and its modules."""
    found, wanted = [], [f'linux-image-{flavour}']
    while wanted:
        package = wanted.pop()
        if package not in found and re.match(r'linux-(image|binary|modules)-', package):
            found.append(package)
            wanted += suite.depends(package)
    return [package for package in found if re.search(r'-\d', package)]


class Kernel:
    """A suite's newest kernel, stripped, with the modules that KVM needs."""

    def __init__(self, suite, pages='4k'):
        self.suite, self.pages = suite, pages
        self.home = BUILD / 'kernels' / f'{suite}-{pages}'
        self.vmlinux = self.home / 'vmlinux'

    def make(self):
        with locked(f'kernel-{self.home.name}'):
            if not self.home.exists():
                self._unpack()
        return self

    def _unpack(self):
        suite = Suite(self.suite, 'ppc64el')
        packages = kernel_packages(suite, FLAVOURS[self.pages])
        if not packages:
            raise Error(f'{self.suite} has no ppc64el kernel with {self.pages} pages: choose another suite')
        self.home.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.home.parent) as scratch:
            root = suite.root(pathlib.Path(scratch, f'unpacked-{self.home.name}'), packages, closure=False)
            half = pathlib.Path(scratch, 'half')
            half.mkdir()
            image = next(iter([*root.glob('boot/vmlinu*'), *root.glob('usr/lib/modules/*/vmlinu*')]), None)
            if not image:
                raise Error(f'no kernel in {", ".join(packages)}')
            run([CROSS + 'strip', '-o', str(half / 'vmlinux'), str(image)])
            for name in MODULES:
                for packed in root.glob(f'usr/lib/modules/**/{name}.ko.xz'):
                    (half / f'{name}.ko').write_bytes(lzma.decompress(packed.read_bytes()))
            if not (half / 'kvm-hv.ko').exists():
                raise Error(f'no kvm-hv module in {", ".join(packages)}')
            half.rename(self.home)


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


def probe():
    """The program that L1 runs and that is L2's init."""
    binary, source = BUILD / 'images' / 'probe', HERE / 'probe.c'
    if not binary.exists() or binary.stat().st_mtime < source.stat().st_mtime:
        binary.parent.mkdir(parents=True, exist_ok=True)
        half = binary.with_suffix(f'.{os.getpid()}')
        run([CROSS + 'gcc', '-static', '-O2', '-Wall', '-Werror', '-o', str(half), str(source)])
        half.rename(binary)
    return binary


def archive(stage, output):
    """Pack folder STAGE, links followed, as a kernel takes it."""
    names = '\n'.join(sorted(str(path.relative_to(stage)) for path in stage.rglob('*')))
    with open(output, 'wb') as out:
        done = subprocess.run(['cpio', '--quiet', '-L', '-o', '-H', 'newc', '--reproducible'], cwd=stage,
                              input=names.encode(), stdout=out, stderr=subprocess.PIPE, check=False)
    if done.returncode:
        raise Error(f'cannot pack {output.name}: {done.stderr.decode().strip()}')


def stage_files(files, links, output):
    """Pack FILES ({path in the archive: path here}) and LINKS to one of them."""
    with tempfile.TemporaryDirectory(dir=output.parent) as scratch:
        stage = pathlib.Path(scratch, 'stage')
        for folder in ('proc', 'sys', 'dev', 'run', 'tmp'):
            (stage / folder).mkdir(parents=True)
        for name, source in [*files.items(), *((name, files[to]) for name, to in links.items())]:
            (stage / name).parent.mkdir(parents=True, exist_ok=True)
            (stage / name).symlink_to(source)
        half = pathlib.Path(scratch, 'half')
        archive(stage, half)
        half.rename(output)


def l2_initrd():
    output = BUILD / 'images' / 'l2.cpio'
    init = probe()
    if not output.exists() or output.stat().st_mtime < init.stat().st_mtime:
        stage_files({'init': init}, {}, output)
    return output


def l1_initrd(kernel, qemu):
    """L1's initramfs: KVM, QEMU with all that it loads, and L2's kernel."""
    root = parts.guest_root()
    busybox = root / 'usr/bin/busybox'
    firmware = root / 'usr/share/qemu'
    files = {
        'init': HERE / 'l1-init', 'bin/busybox': busybox, 'bin/probe': probe(),
        'usr/bin/qemu-system-ppc64': qemu,
        'usr/share/qemu/vof.bin': firmware / 'vof.bin', 'usr/share/qemu/slof.bin': firmware / 'slof.bin',
        'l2/vmlinux': kernel.vmlinux, 'l2/initrd': l2_initrd(),
        'lib64/ld64.so.2': root / 'usr/lib64/ld64.so.2',
    }
    files |= {f'lib/modules/{module.name}': module for module in kernel.home.glob('*.ko')}
    files |= {f'usr/lib/{name}': path for name, path in libraries(root, qemu, busybox).items()}
    key = hashlib.sha256(''.join(
        f'{name} {path.resolve()} {path.stat().st_mode} {path.stat().st_size} {path.stat().st_mtime_ns}\n'
        for name, path in sorted(files.items())).encode()).hexdigest()[:16]
    stem = f'l1-{kernel.home.name}-{"patched" if TOP in qemu.parents and "kvm" in qemu.parts else "distro"}'
    output = BUILD / 'images' / f'{stem}-{key}.cpio'
    with locked(f'image-{stem}'):
        if not output.exists():
            say(f'packing {stem}')
            for old in output.parent.glob(f'{stem}-*.cpio'):
                old.unlink()
            stage_files(files, {f'bin/{applet}': 'bin/busybox' for applet in APPLETS}, output)
    return output
