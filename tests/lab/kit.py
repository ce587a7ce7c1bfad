# SPDX-License-Identifier: GPL-2.0-or-later
"""Pack everything that "scripts/lab here" needs on a POWER host into a tarball in build/."""

import gzip
import importlib
import pathlib
import sys
import tarfile

from scripts.debian import binaries
from scripts.lib.command import Parser, main
from scripts.lib.system import BUILD, TOP, run, scratch
from tests.lab import images

README = '''\
Guests on your own POWER host
=============================
On ppc64le Linux with /dev/kvm, as root or as a user who may open /dev/kvm:

    scripts/lab here --qemu PATH [--other PATH]

--qemu takes the qemu-system-ppc64 to test, and --other one to compare it with. If
this directory has qemu/qemu-system-ppc64, that is the patched QEMU.

The command starts guests with the kernel of this machine, without network or
disk, and prints a table that you can mail. It needs python3 (3.11 or newer), and
changes nothing on this machine. "scripts/lab here --help" lists all options.

The guests run only tests/lab/probe, which is built from probe.c beside it.
'''


def modules():
    """scripts/lab, and the modules of this repository that it imports."""
    importlib.import_module('tests.lab.__main__')
    found = {pathlib.Path(module.__file__) for module in sys.modules.values() if getattr(module, '__file__', None)}
    return {TOP / 'scripts/lab', *(path for path in found if TOP in path.parents)}


def make(with_qemu):
    """Pack the kit, and return its path."""
    sources = (*modules(), TOP / 'tests/lab/probe.c', TOP / 'LICENSE')
    files = {str(path.relative_to(TOP)): path for path in sources}
    files['tests/lab/probe'] = images.probe()
    if with_qemu:
        # with its own libraries, not with the host's
        files |= {f'qemu/{name}': path for name, path in images.bundle(binaries.qemu('patched')).items()}
    output = BUILD / f'host-kit{"-qemu" if with_qemu else ""}.tar.gz'
    # reproducible: the same commit gives the same tarball
    stamp = int(run(['git', '-C', str(TOP), 'log', '-1', '--format=%ct']))

    def member(info):
        info.mode, info.mtime = 0o755 if info.mode & 0o100 else 0o644, stamp
        info.uid = info.gid = 0
        info.uname = info.gname = ''
        return info
    with scratch(output.with_suffix('.part')) as part:
        files['README'] = part / 'README'
        files['README'].write_text(README)
        with gzip.GzipFile(part / 'kit', 'wb', mtime=stamp) as packed, \
                tarfile.open(fileobj=packed, mode='w', dereference=True) as archive:
            for name, path in sorted(files.items()):
                archive.add(path, f'host-kit/{name}', filter=member)
        return (part / 'kit').rename(output)


def pack():
    parser = Parser(description=__doc__)
    parser.add_argument('--qemu', action='store_true', help='include our QEMU: build/host-kit-qemu.tar.gz instead of '
                                                            'build/host-kit.tar.gz')
    print(make(parser.parse_args().qemu).relative_to(TOP))


if __name__ == '__main__':
    main(pack, 'make host-kit')
