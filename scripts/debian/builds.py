# SPDX-License-Identifier: GPL-2.0-or-later
"""The builds of QEMU; as a program, the second half of configure, after it has installed the packages.

Grafts the series and configures two builds: for ppc64le with KVM, and for this
machine with TCG.  Does not compile anything.
"""

import concurrent.futures
import os
import shutil
import subprocess

from scripts.debian import binaries, roots
from scripts.lib.command import Parser, main
from scripts.lib.system import TOP, Error, locked, say, tried
from scripts.queue import bases
from scripts.queue.git import worktree
from scripts.queue.graft import graft

COMMON = ['--without-default-features', '--enable-fdt=system', '--disable-docs', '--disable-tools',
          '--disable-user', '--disable-download', '--disable-install-blobs', '--enable-trace-backends=log',
          '--disable-werror', '--disable-debug-info', '--python=/usr/bin/python3']
FEW_DEVICES = ['--without-default-devices', f'--with-devices-ppc64={bases.DEVICES.stem}']
# The programs that every commit of the series must build
TARGETS = {'kvm': ['qemu-system-ppc64', 'qemu-system-ppc'], 'tcg': ['qemu-system-ppc64']}
# The 32-bit target only has to link: target/ppc/kvm.c is in both.
KVM = ['--target-list=ppc64-softmmu,ppc-softmmu', '--enable-kvm', '--disable-tcg',
       '--cross-prefix=powerpc64le-linux-gnu-', '--cc=ccache powerpc64le-linux-gnu-gcc']
TCG = ['--target-list=ppc64-softmmu', '--enable-tcg', '--cc=ccache gcc']


def configure(name, options, extra_env, home=None):
    """Run QEMU's configure for build NAME beside HOME's src, unless the build has these options already."""
    home = home or bases.home()
    source, place = home / 'src', home / name
    devices = TOP / 'scripts/debian/pseries.mak'
    # a newer package in the sysroot can have files that are older than the build
    packages = (roots.sysroot() / '.packages').read_text() if 'PKG_CONFIG_SYSROOT_DIR' in extra_env else ''
    wanted = '\n'.join([*options, devices.read_text(), packages])
    with locked('devices'):
        # a new time stamp would make every build run configure again
        if not (source / bases.DEVICES).exists() or (source / bases.DEVICES).read_text() != devices.read_text():
            shutil.copyfile(devices, source / bases.DEVICES)
    stamp = place / '.configured'
    if stamp.exists() and stamp.read_text() == wanted:
        return
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    say(f'{home.name}: configuring QEMU ({name})')
    in_build([source / 'configure', *options], place, **extra_env)
    for told in place.glob('config-meson.*'):
        # in a git tree, this would override --disable-werror as soon as meson runs again, and all would be rebuilt
        when = told.stat().st_mtime_ns
        told.write_text(told.read_text().replace('werror = true\n', ''))
        os.utime(told, ns=(when, when))
    stamp.write_text(wanted)


def in_build(words, place=None, **more_env):
    """Run the command WORDS (in PLACE) with the environment of QEMU's build; see failures() for its error."""
    env = dict(os.environ, **more_env, PYTHONPATH=roots.meson_path(), CCACHE_BASEDIR=str(TOP), CCACHE_NOHASHDIR='1')
    done = tried(words, env=env, cwd=place, stderr=subprocess.STDOUT)
    if done.returncode:
        raise Error(binaries.failures(done.stdout))


def configurations(root):
    """{name: (options of QEMU's configure, environment)}"""
    # QEMU 10.1 does not link without powernv
    powernv = 'pnv_chip_find_core' in (bases.home() / 'src/target/ppc/misc_helper.c').read_text()
    common = COMMON + ([] if powernv else FEW_DEVICES)
    kvm = common + KVM + [f'--extra-cflags=--sysroot={root}', f'--extra-ldflags=--sysroot={root}']
    env = {'PKG_CONFIG': 'pkg-config', 'PKG_CONFIG_SYSROOT_DIR': str(root),
           'PKG_CONFIG_LIBDIR': f'{root}/usr/lib/powerpc64le-linux-gnu/pkgconfig:{root}/usr/share/pkgconfig'}
    return {'kvm': (kvm, env), 'tcg': (common + TCG, {})}


def prepared(tree, home, commit, *options, names=None):
    """A worktree of TREE at COMMIT in HOME, with the builds of the series configured beside it."""
    copy = worktree(tree, home / 'src', commit)
    for name in TARGETS if names is None else names:
        own, env = configurations(roots.sysroot())[name]
        configure(name, [*own, *options], env, home)
    return copy


def build_commit(copy):
    for name, targets in TARGETS.items():
        in_build(['ninja', '-C', copy.path.parent / name, *targets])
    return f'builds ({", ".join(TARGETS)})'


def ready(name, options, env):
    with binaries.building(bases.home() / name):
        configure(name, options, env)


def run():
    parser = Parser(description=__doc__)
    parser.add_argument('base', nargs='?', metavar='BASE', help='trixie, sid, or the path of a QEMU checkout')
    wanted = parser.parse_args().base or bases.chosen()
    with locked('prepare', 'waiting for another ./configure to end'), concurrent.futures.ThreadPoolExecutor() as pool:
        needed = [pool.submit(graft, wanted), pool.submit(roots.meson_path), pool.submit(roots.sysroot)]
        root = [one.result() for one in needed][-1]
        for done in [pool.submit(ready, name, *how) for name, how in configurations(root).items()]:
            done.result()


if __name__ == '__main__':
    main(run, 'configure')
