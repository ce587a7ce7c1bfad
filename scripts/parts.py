#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the parts of a run are: QEMU binaries, their libraries, emulators.

Each function returns a part that stands complete, and makes it first where
it does not.
"""

import contextlib
import functools
import os
import pathlib
import re
import signal
import struct
import subprocess
import sys

from debian import BUILD, TOP, Error, Suite, locked, reason, write_whole

# Whose source packages can be a base; the first where none was chosen
SUITES = ('trixie', 'sid')
# A suite whose qemu-system-ppc64 has Power11 and both nested APIs, and whose
# user-mode emulator has Power11.
EMULATOR_SUITE = 'trixie'
# What the packages of a root depend on but no program of ours ever runs.
UNUSED = ('perl', 'perl-base', 'perl-modules-5.40', 'libperl5.40', 'systemd', 'debconf', 'passwd',
          'qemu-system-modules-spice', 'qemu-system-modules-opengl', 'ipxe-qemu')

# QEMU's configure takes a choice of devices from here only.
DEVICES = pathlib.Path('configs/devices/ppc64-softmmu/host-compat.mak')


def base():
    """The base to work on, a suite's name or a path: BASE, else what was last chosen."""
    chosen = BUILD / 'base'
    return os.environ.get('BASE') or (chosen.read_text().strip() if chosen.exists() else SUITES[0])


def choose(name):
    """Make NAME the base, unless BASE says otherwise for the time being."""
    if not os.environ.get('BASE'):
        BUILD.mkdir(exist_ok=True)
        write_whole(BUILD / 'base', f'{name if name in SUITES else pathlib.Path(name).resolve()}\n')


def base_suite():
    """The Debian suite whose own QEMU is the base's unpatched counterpart."""
    return base() if base() in SUITES else SUITES[0]


def home():
    """The folder of the base's grafted tree (src) and builds (kvm, tcg)."""
    name = base()
    return BUILD / (name if name in SUITES else re.sub(r'[^\w.+]+', '-', str(pathlib.Path(name).resolve())).strip('-'))


def emulator_root():
    """amd64: qemu-system-ppc64 for L0, with its libraries and loader."""
    return Suite(EMULATOR_SUITE, 'amd64').root(
        BUILD / 'roots' / f'{EMULATOR_SUITE}-amd64', ['qemu-system-ppc', 'qemu-system-data'], skip=UNUSED)


def emulator_command(root):
    """Debian's qemu-system-ppc64 below ROOT, with its own libraries and loader."""
    return [str(root / 'usr/lib64/ld-linux-x86-64.so.2'), '--library-path', str(root / 'usr/lib/x86_64-linux-gnu'),
            str(root / 'usr/bin/qemu-system-ppc64'), '-L', str(root / 'usr/share/qemu')]


def powernv_root(machine):
    """amd64: a qemu-system-ppc64 that has MACHINE, powernv10 or powernv11."""
    if machine == 'powernv10':
        return emulator_root()
    return Suite('sid', 'amd64').root(BUILD / 'roots/sid-amd64', ['qemu-system-ppc', 'qemu-system-data'], skip=UNUSED)


def user_emulator():
    """The static user-mode emulator that runs ppc64le programs here."""
    return Suite(EMULATOR_SUITE, 'amd64').root(
        BUILD / 'roots' / 'qemu-user', ['qemu-user'], closure=False) / 'usr/bin/qemu-ppc64le'


def meson_path():
    """A meson new enough for QEMU, for PYTHONPATH: Debian 12's own is not."""
    root = Suite(EMULATOR_SUITE, 'amd64').root(BUILD / 'roots' / 'meson', ['meson'], closure=False)
    return str(root / 'usr/lib/python3/dist-packages')


def guest_root():
    """ppc64el: Debian's own QEMU of the base's suite, its libraries, firmware and busybox."""
    suite = base_suite()
    return Suite(suite, 'ppc64el').root(
        BUILD / 'roots' / f'{suite}-ppc64el', ['qemu-system-ppc', 'qemu-system-data', 'busybox'], skip=UNUSED)


def libvirt_root():
    """ppc64el: libvirt's daemon, its QEMU driver and virsh."""
    return Suite(EMULATOR_SUITE, 'ppc64el').root(
        BUILD / 'roots' / f'{EMULATOR_SUITE}-ppc64el-libvirt',
        ['libvirt-daemon', 'libvirt-daemon-driver-qemu', 'libvirt-clients'], skip=UNUSED)


def distro_qemu():
    """Debian's own ppc64le qemu-system-ppc64; it runs with guest_root()'s libraries."""
    return guest_root() / 'usr/bin/qemu-system-ppc64'


def building(place):
    """Hold PLACE, a folder that QEMU is configured or built in."""
    return locked(place, f'waiting for another build in {place.relative_to(TOP)} to end')


def ninja(place, *targets):
    """Become ninja in PLACE, once nobody else is at work there; it and all that it starts hold the lock."""
    with building(pathlib.Path(place).resolve()) as lock:
        os.set_inheritable(lock.fileno(), True)
        os.execvpe('ninja', ['ninja', '-C', place, *targets], dict(os.environ, PYTHONPATH=meson_path()))


def failures(text):
    """What a build that failed says of it, on one line: the compiler's errors, else its last words."""
    lines = text.splitlines()
    # the linker's own says nothing
    errors = [line for line in lines if re.search(' error: (?!ld returned)', line)]
    return ' / '.join(errors or (line for line in lines[-12:] if line.strip()))


def build(target):
    """make TARGET; interrupted, it leaves no process of the build."""
    # what make says is for an error only
    with building(home() / target):
        pass
    with subprocess.Popen(['make', '-s', '-C', TOP, target], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, start_new_session=True) as made:
        try:
            words = made.communicate()[0]
        except BaseException:
            # ninja and all below it, too; the pipe ends with the last of them
            with contextlib.suppress(ProcessLookupError):
                os.killpg(made.pid, signal.SIGTERM)
            made.communicate()
            raise
    if made.returncode:
        raise Error(f'building QEMU failed ({failures(words)}): make {target} says more')


# Python 3.6, which "lab here" can have, knows no functools.cache
@functools.lru_cache(maxsize=None)
def built(target):
    """The qemu-system-ppc64 of one of our builds: that in QEMU_BUILDS as it is, else ours, up to date."""
    builds = os.environ.get('QEMU_BUILDS')
    if not builds:
        build(target)
    path = pathlib.Path(builds or home(), target, 'qemu-system-ppc64')
    if not path.exists():
        raise Error(f'QEMU_BUILDS={builds} has no {target}/qemu-system-ppc64: build it there, or unset QEMU_BUILDS')
    return path


def patched_qemu():
    """Our ppc64le QEMU with KVM; it runs with guest_root()'s libraries."""
    return built('kvm')


def native_qemu():
    """Our QEMU for this machine, with TCG."""
    return built('tcg')


def qcow2():
    """An empty image for snapshots: header, refcounts, and a level-1 table."""
    cluster = 1 << 16
    header = struct.pack('>4sIQIIQIIQQIIQ', b'QFI\xfb', 2, 0, 0, 16, 1 << 20, 0, 1, 3 * cluster, cluster, 1, 0, 0)
    image = bytearray(4 * cluster)
    image[:len(header)] = header
    image[cluster:cluster + 8] = struct.pack('>Q', 2 * cluster)
    image[2 * cluster:2 * cluster + 8] = struct.pack('>4H', 1, 1, 1, 1)
    return image


def empty_disk():
    path = BUILD / 'empty.qcow2'
    with locked('empty.qcow2'):
        if not path.exists():
            half = path.with_suffix('.part')
            half.write_bytes(qcow2())
            half.rename(path)
    return path


if __name__ == '__main__':
    # for the Makefile
    does = {'base': lambda: print(base()), 'home': lambda: print(home().relative_to(TOP)),
            'meson': lambda: print(meson_path()), 'ninja': ninja}
    try:
        does[sys.argv[1]](*sys.argv[2:])
    except (Error, OSError) as e:
        print(f'scripts/parts.py: {reason(e)}', file=sys.stderr)
        sys.exit(1)
