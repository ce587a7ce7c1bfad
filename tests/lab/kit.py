# Copyright (c) 2026 QEMU contributors
# SPDX-License-Identifier: GPL-2.0-or-later
"""Pack everything that "scripts/lab here" needs on a POWER host into a tarball in build/."""

import gzip
import io
import modulefinder
import pathlib
import sys
import tarfile

from scripts.debian import binaries
from scripts.lib.command import Parser, main
from scripts.lib.system import BUILD, TOP, run
from tests.lab import images

NAME = 'host-kit'
README = '''\
Guests on your own POWER host
=============================
On ppc64le Linux with /dev/kvm, as root or as a user who may open /dev/kvm:

    scripts/lab here --qemu PATH [--other PATH]

PATH is a qemu-system-ppc64: the one to test, and one to compare it with.
{qemu}
The command starts guests with the kernel of this machine, without network or
disk, and prints a table that you can mail. It needs python3 (3.11 or newer), and
changes nothing on this machine. "scripts/lab here --help" lists all options.

The guests run only tests/lab/probe, which is built from the C files beside it.
'''
OURS = '''\
This directory contains a patched QEMU: --qemu qemu/qemu-system-ppc64. The
repository that this tarball comes from builds it from Debian's source.
'''


def modules():
    """scripts/lab, and the modules of this repository that it imports."""
    finder = modulefinder.ModuleFinder([str(TOP), *sys.path])
    finder.import_hook('tests.lab.__main__')
    found = {pathlib.Path(module.__file__) for module in finder.modules.values() if module.__file__}
    return sorted({TOP / 'scripts/lab', *(path for path in found if TOP in path.parents)})


def contents(with_qemu):
    """{path in the kit: (mode, bytes)}"""
    files = {str(path.relative_to(TOP)): path for path in modules()}
    files.update({str(path.relative_to(TOP)): path for path in TOP.glob('tests/lab/*.[ch]')})
    files.update({'LICENSE': TOP / 'LICENSE', 'tests/lab/probe': images.probe()})
    if with_qemu:
        # with its own libraries, not with the host's
        files.update({f'qemu/{name}': path for name, path in images.bundle(binaries.qemu('patched')).items()})
    found = {name: (0o755 if path.stat().st_mode & 0o100 else 0o644, path.read_bytes())
             for name, path in files.items()}
    found['README'] = (0o644, README.format(qemu=OURS if with_qemu else '').encode())
    return found


def make(with_qemu):
    """Pack the kit, and return its path."""
    output = BUILD / f'{NAME}{"-qemu" if with_qemu else ""}.tar.gz'
    half = output.with_suffix('.part')
    # reproducible: the same commit gives the same tarball
    stamp = int(run(['git', '-C', str(TOP), 'log', '-1', '--format=%ct']))
    with gzip.GzipFile(half, 'wb', mtime=stamp) as packed, tarfile.open(fileobj=packed, mode='w') as archive:
        for name, (mode, data) in sorted(contents(with_qemu).items()):
            member = tarfile.TarInfo(f'{NAME}/{name}')
            member.mode, member.size, member.mtime = mode, len(data), stamp
            archive.addfile(member, io.BytesIO(data))
    half.rename(output)
    return output


def pack():
    parser = Parser(description=__doc__)
    parser.add_argument('--qemu', action='store_true', help='include our QEMU: build/host-kit-qemu.tar.gz instead of '
                                                            'build/host-kit.tar.gz')
    print(make(parser.parse_args().qemu).relative_to(TOP))


if __name__ == '__main__':
    main(pack, 'make host-kit')
