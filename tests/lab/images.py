# SPDX-License-Identifier: GPL-2.0-or-later
"""The initramfs images of L1 and L2 in build/images, and a disk; an image is either complete or does not exist."""

import functools
import gzip
import hashlib
import pathlib
import re
import stat

from scripts.debian import binaries, kernels, roots
from scripts.debian.kernels import CROSS, IMAGES
from scripts.lib.system import Error, hold, locked, run, say, scratch, unused
from tests import qcow2

HERE = pathlib.Path(__file__).resolve().parent
LINKS = {**{f'bin/{applet}': 'busybox' for applet in ('sh', 'mount', 'insmod', 'stty', 'sed', 'dirname', 'readlink')},
         'usr/bin/qemu-system-ppc64': '/qemu/qemu-system-ppc64'}
MOUNT_POINTS = ('proc', 'sys', 'dev', 'run', 'tmp')


def libraries(root, *programs):
    """The shared libraries below ROOT that PROGRAMS need."""
    folders = [root / 'usr/lib/powerpc64le-linux-gnu', root / 'usr/lib64', root / 'usr/lib']
    found, wanted = {}, [*programs]
    while wanted:
        for name in re.findall(r'NEEDED.*\[(.*)\]', run(['readelf', '-d', str(wanted.pop())])):
            if name not in found:
                found[name] = next((f / name for f in folders if (f / name).exists()), None)
                if not found[name]:
                    raise Error(f'{name} is missing from {root.name}: remove that directory, then run this again')
                wanted.append(found[name])
    return found


def probe():
    """The program that L1 runs, and that is the init of L2."""
    binary, source = IMAGES / 'probe', HERE / 'probe.c'
    with locked('probe'):
        if not binary.exists() or binary.stat().st_mtime < source.stat().st_mtime:
            with scratch(IMAGES / 'probe.part') as part:
                run([CROSS + 'gcc', '-static', '-O2', '-Wall', '-Werror', '-o', part / 'probe', source])
                (part / 'probe').rename(binary)
    return binary


def member(name, mode, data=b''):
    """One member of a "newc" cpio archive, without time stamps, so that builds are reproducible."""
    name = name.encode() + b'\0'
    fields = (0, mode, 1, 0, 0, 0, len(data), 0, 0, 0, 0, len(name), 0)
    head = b'070701' + b''.join(b'%08x' % field for field in fields) + name
    return b''.join(part + bytes(-len(part) % 4) for part in (head, data))


def pack(files, output, links=(), opener=pathlib.Path.open):
    """Write an initramfs with FILES ({path in the archive: path here}) and LINKS ((path, target)...) to OUTPUT."""
    names = {pathlib.PurePath(name) for name in (*files, *dict(links))}
    folders = {str(folder) for name in names for folder in name.parents} - {'.'} | set(MOUNT_POINTS)
    with opener(output, 'wb') as out:
        for name in sorted(folders):
            out.write(member(name, stat.S_IFDIR | 0o755))
        for name, source in sorted(files.items()):
            out.write(member(name, source.stat().st_mode, source.read_bytes()))
        for name, target in sorted(links):
            out.write(member(name, stat.S_IFLNK | 0o777, target.encode()))
        out.write(member('TRAILER!!!', 0))


pack_host = functools.partial(pack, links=LINKS.items())


def make_disk(files, output):
    """Write a disk with FILES, which SLOF boots grub from, to OUTPUT."""
    run(['grub-mkrescue', '-d', str(roots.grub_root() / 'usr/lib/grub/powerpc-ieee1275'), '-o', str(output),
         *(f'{name}={path}' for name, path in sorted(files.items()))])


def bundle(qemu):
    """A QEMU with its own libraries and firmware, run by a launcher: {path below its directory: path here}"""
    firmware = next(place for place in (qemu.root, roots.guest_root()) if (place / 'usr/share/qemu/vof.bin').exists())
    return {'qemu-system-ppc64': HERE / 'qemu-launcher', 'lib/qemu-system-ppc64': qemu.path,
            **{f'lib/{name}': path for name, path in libraries(qemu.root, qemu.path).items()},
            **{f'firmware/{name}': firmware / 'usr/share/qemu' / name for name in ('vof.bin', 'slof.bin')}}


def host_files(kernel, qemu):
    """The files that a KVM host needs to run QEMU: {path in the archive: path here}."""
    files = {'init': HERE / 'l1-init', 'bin/busybox': roots.guest_root() / 'usr/bin/busybox', 'bin/probe': probe()}
    files |= {f'lib/modules/{module.name}': module for module in kernel.home.glob('*.ko')}
    return files | {f'qemu/{name}': path for name, path in bundle(qemu).items()}


def image(stem, files, make=pack_host):
    """The image that MAKE(FILES, output) writes, made again if a file changed."""
    key = hashlib.sha256(''.join(
        f'{name} {path.resolve()} {path.stat().st_mode} {path.stat().st_size} {path.stat().st_mtime_ns}\n'
        for name, path in sorted(files.items())).encode()).hexdigest()[:16]
    output = IMAGES / f'{stem}-{key}.image'
    with locked(f'image-{stem}'):
        if not output.exists():
            say(f'packing {stem}')
            with scratch(output.with_suffix('.part')) as part:
                make(files, part / 'half')
                (part / 'half').rename(output)
        hold(output)
        for old in IMAGES.glob(f'{stem}-{"[0-9a-f]" * 16}.image'):
            with unused(old) as free:
                if free:
                    old.unlink()
    return output


def installer():
    """A disk with grub and Debian's installer, whose initramfs starts the probe instead of the installer."""
    return image('installer', {
        **{f'boot/{path.name}': path for path in roots.installer_root().glob('**/debian-installer/ppc64el/*')},
        'boot/probe': image('probe', {'probe': probe()}, pack),
        'boot/grub/grub.cfg': HERE / 'grub-commands'}, make_disk)


def l1_initrd(config, kernel, qemu, stem='l1', more=None):
    """L1's initramfs: KVM, QEMU with its libraries and firmware, L2's kernel, and MORE files."""
    # the same QEMU of two bases is two files
    which = f'{qemu.name.rpartition("/")[2]}-{hashlib.sha256(str(qemu.path).encode()).hexdigest()[:8]}'
    guest = kernels.newest_kernel(config.l2_kernel, config.pages)
    names = '-'.join(dict.fromkeys([kernel.home.name, guest.home.name, 'installer'][:2 + config.installer]))
    system = {'l2/disk': installer()} if config.installer else {
        'l2/vmlinux': guest.vmlinux, 'l2/initrd': image('l2', {'init': probe()}, pack), 'l2/disk': qcow2.empty_disk()}
    return image(f'{stem}-{names}-{which}', {**(more or {}), **host_files(kernel, qemu), **system})


def l0_initrd(kernel, l1):
    """The initramfs of Linux as L0, which contains L1's; compressed, because skiboot accepts at most 128 MiB."""
    return image(f'l0-{l1.stem.rpartition("-")[0]}', {
        **host_files(kernel, binaries.qemu('distro')), 'l1/vmlinux': kernel.vmlinux, 'l1/initrd': l1},
        functools.partial(pack_host, opener=functools.partial(gzip.open, compresslevel=1)))
