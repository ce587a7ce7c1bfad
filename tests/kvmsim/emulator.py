# SPDX-License-Identifier: GPL-2.0-or-later
"""The command that runs QEMU under user-mode emulation, on the simulated KVM."""

import pathlib
import shutil

from scripts.debian import binaries, roots
from scripts.lib.system import BUILD, locked, run
from tests import qcow2
from tests.kvmsim import power

HERE = pathlib.Path(__file__).resolve().parent
LIBRARY = BUILD / 'kvmsim' / 'libkvmsim.so'
COMPILER = 'powerpc64le-linux-gnu-gcc'


def library():
    """The simulated KVM, rebuilt if its sources are newer."""
    with locked('kvmsim'):
        newest = max(path.stat().st_mtime for path in HERE.glob('*.[ch]'))
        if not LIBRARY.exists() or LIBRARY.stat().st_mtime < newest:
            LIBRARY.parent.mkdir(parents=True, exist_ok=True)
            half = LIBRARY.with_suffix('.part')
            run([COMPILER, '-Wall', '-Werror', '-O2', '-g', '-shared', '-fPIC', '-o', str(half),
                 *map(str, sorted(HERE.glob('*.c'))), '-ldl', '-pthread'])
            half.rename(LIBRARY)
    return LIBRARY


def runtimes(qemu, home):
    """Options for a sanitized QEMU."""
    if b'libubsan.so' not in pathlib.Path(qemu).read_bytes():
        return []
    # link only the compiler's runtimes: their directory also has an older C library
    place = home / 'runtimes'
    place.mkdir()
    for name in ('libubsan.so', 'libstdc++.so.6'):
        real = pathlib.Path(run([COMPILER, f'-print-file-name={name}']).strip()).resolve()
        (place / '.'.join(real.name.split('.')[:3])).symlink_to(real)
    return ['-E', f'LD_LIBRARY_PATH={place}', '-E', 'UBSAN_OPTIONS=print_stacktrace=1']


def root_of(qemu, home, settings):
    """A directory with the libraries of QEMU, a Qemu or a build of ours, and the host's device tree as /proc."""
    root = home / 'root'
    root.mkdir()
    for entry in (qemu.root if isinstance(qemu, binaries.Qemu) else roots.guest_root()).iterdir():
        if entry.name != 'proc':
            (root / entry.name).symlink_to(entry)
    power.write_device_tree(root, settings)
    return root


def command(qemu, settings, home, incoming, disk):
    """The command that runs QEMU in the directory HOME, stopped or waiting for a migration."""
    host = settings['host']
    machine = ['pseries', *(['x-vof=on'] if settings['firmware'] == 'vof' else []), settings['machine']]
    words = [roots.user_emulator(), '-E', f'LD_PRELOAD={library()}', *runtimes(qemu, home),
             # the emulator has no such CPU: the library changes the PVR
             *(['-cpu', 'power11', '-E', f'KVMSIM_PVR={power.HOSTS[host]:#x}'] if host == 'future' else ['-cpu', host]),
             '-L', root_of(qemu, home, settings), qemu,
             # the simulated kernel has no interrupt controller
             '-accel', 'kvm,kernel-irqchip=off', '-machine', ','.join(filter(None, machine)), '-cpu', settings['cpu'],
             '-smp', settings['smp'], '-m', f'{settings["memory"]}M', '-nodefaults', '-display', 'none',
             '-qmp', 'stdio', '-L', roots.guest_root() / 'usr/share/qemu',
             '-trace', 'kvm_host_c*', '-trace', 'ppc_host_compat_*', '-trace', 'spapr_cas_no*',
             *(['-incoming', 'defer'] if incoming else ['-S'])]
    if disk:
        if not disk.exists():
            shutil.copyfile(qcow2.empty_disk(), disk)
        words += ['-blockdev', f'qcow2,node-name=disk,file.driver=file,file.filename={disk}']
    return list(map(str, words))
