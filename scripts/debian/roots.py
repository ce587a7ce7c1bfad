# SPDX-License-Identifier: GPL-2.0-or-later
"""Roots: unpacked Debian packages with the programs and libraries that a run uses."""

from scripts.debian.suite import Suite, host_suite
from scripts.lib.command import main
from scripts.queue import bases

# A suite whose qemu-system-ppc64 has Power11 and both nested APIs, and whose user-mode emulator has Power11
EMULATOR_SUITE = 'trixie'
# Suites whose QEMU can run L2; the libraries that a newer one needs are not in experimental or backports alone
QEMU_SUITES = ('bookworm', 'trixie', 'forky', 'sid')
QEMU = 'usr/bin/qemu-system-ppc64'
# Dependencies that no program here ever runs.
UNUSED = ('perl', 'perl-base', 'perl-modules-5.40', 'libperl5.40', 'systemd', 'debconf', 'passwd',
          'qemu-system-modules-spice', 'qemu-system-modules-opengl', 'ipxe-qemu')
SYSROOT_PACKAGES = ['libc6-dev', 'libglib2.0-dev', 'libfdt-dev', 'zlib1g-dev']
SYSROOT_UNUSED = (*UNUSED, 'python3', 'python3.11', 'python3.13', 'libpython3-stdlib', 'dpkg-dev', 'git',
                  'libglib2.0-bin', 'libglib2.0-dev-bin', 'bzip2', 'patch')


def emulator_root(suite=EMULATOR_SUITE):
    """amd64: qemu-system-ppc64 for L0, with its libraries and loader."""
    return Suite(suite, 'amd64').root(f'{suite}-amd64', ['qemu-system-ppc', 'qemu-system-data'], skip=UNUSED)


def emulator_command(root):
    """Debian's qemu-system-ppc64 below ROOT, with its own libraries and loader."""
    return [str(root / 'usr/lib64/ld-linux-x86-64.so.2'), '--library-path', str(root / 'usr/lib/x86_64-linux-gnu'),
            str(root / 'usr/bin/qemu-system-ppc64'), '-L', str(root / 'usr/share/qemu')]


def user_emulator():
    """The static user-mode emulator that runs ppc64le programs here."""
    return Suite(EMULATOR_SUITE, 'amd64').root('qemu-user', ['qemu-user'], closure=False) / 'usr/bin/qemu-ppc64le'


def meson_path():
    """The PYTHONPATH of a meson that is new enough for QEMU; that of Debian 12 is not."""
    root = Suite(EMULATOR_SUITE, 'amd64').root('meson', ['meson'], closure=False)
    return str(root / 'usr/lib/python3/dist-packages')


def guest_root(suite=None):
    """ppc64el: Debian's QEMU of SUITE, or of the base's, its libraries, firmware and busybox."""
    suite = suite or bases.base_suite()
    return Suite(suite, 'ppc64el').root(
        f'{suite}-ppc64el', ['qemu-system-ppc', 'qemu-system-data', 'busybox-static'], skip=UNUSED)


def libvirt_root(suite):
    """ppc64el: libvirt's daemon, its QEMU driver and virsh."""
    return Suite(suite, 'ppc64el').root(
        f'{suite}-ppc64el-libvirt', ['libvirt-daemon', 'libvirt-daemon-driver-qemu', 'libvirt-clients'], skip=UNUSED)


def installer_root():
    """Debian's installer for ppc64el: its kernel and its initramfs."""
    return Suite(EMULATOR_SUITE, 'ppc64el').root('installer', ['debian-installer-13-netboot-ppc64el'], closure=False)


def grub_root():
    """ppc64el: the modules of grub, of the version that this machine's grub-mkrescue has."""
    return Suite(host_suite(), 'ppc64el').root('grub', ['grub-ieee1275-bin'], closure=False)


def sysroot():
    return Suite(host_suite(), 'ppc64el').root('sysroot', SYSROOT_PACKAGES, skip=SYSROOT_UNUSED)


if __name__ == '__main__':
    main(lambda: print(meson_path()))
