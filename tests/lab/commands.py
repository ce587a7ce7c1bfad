# SPDX-License-Identifier: GPL-2.0-or-later
"""The command lines of the QEMUs of a run: L0, L1 if L0 is Linux, and L2."""

import re
import shlex

from scripts.debian import binaries, roots

# L0's CPU is given by family; its exact PVR does not matter.
HOSTS = ('power9', 'power10', 'power11')
MODES = ('power8', 'power9', 'power10', 'power11')
APIS = {'v1': 'cap-nested-hv=on', 'v2': 'cap-nested-papr=on'}
# The machines that Linux KVM HV runs on as L0, and their CPUs
POWERNV = {'powernv10': 'power10', 'powernv11': 'power11'}
# /dev/hvc0 and up in L1; Linux as L0 has one of its own before them.  The last two are of the QEMU that L2 migrates to.
CONSOLES = ('l1', 'l2', 'qmp', 'l2-to', 'qmp-to')
# Checking the kernel's own certificate takes half a second under TCG
COMMAND_LINE = 'console=hvc0 quiet panic=-1 initcall_blacklist=load_system_certificate_list'
# With an unpatched L0, L2 hangs as soon as L1 clears reference bits
L0_NEEDS = {'distro': ' damon_stat.enabled=0', 'patched': ''}
# Tells L2's init to start the work that it checks during steps
L2_WORK = '-- work'
# The firmware of an emulated PowerNV machine advertises no mitigation that KVM could pass on
POWERNV_GUEST = ',cap-cfpc=broken,cap-sbbc=broken,cap-ibs=broken,cap-ccf-assist=off'
# A host with 4 KiB pages cannot provide the 64 KiB pages that the machine has by default
L1_PAGES = {'4k': ',cap-hpt-max-page-size=4096', '64k': ''}
L2_TRACE = 'spapr_cas_pvr'
VIRTIO = ['-device', 'virtio-blk-pci,drive=disk', '-netdev', 'hubport,id=net,hubid=0',
          '-device', 'virtio-net-pci,netdev=net,romfile=']


def l0_command(which):
    """The command of L0's QEMU, ours or Debian's."""
    root = roots.emulator_root()
    if which == 'patched':
        return [str(binaries.built('tcg')), '-L', str(root / 'usr/share/qemu')]
    return roots.emulator_command(root)


def l1_options(config, kernel, initrd, memory):
    """The options of L1, without the accelerator and the consoles."""
    mode = '' if config.compat == 'none' else f',max-cpu-compat={config.compat}'
    caps, cpu = (POWERNV_GUEST + L1_PAGES[config.pages], 'host') if config.l0_stack else ('', config.host)
    return ['-nodefaults', '-no-user-config', '-display', 'none', '-smp', config.l1_smp, '-m', memory,
            '-cpu', cpu, '-machine', f'pseries,{APIS[config.api]},x-vof=on{mode}{caps}', '-kernel', str(kernel),
            '-initrd', str(initrd), '-append', COMMAND_LINE + L0_NEEDS[config.l0]]


def powernv_command(config, kernel, initrd):
    """The command of the machine that runs Linux as L0, with its default PCI host bridges."""
    # the usual suite's QEMU has no powernv11
    root = roots.emulator_root('sid' if config.l0_stack == 'powernv11' else roots.EMULATOR_SUITE)
    return [*roots.emulator_command(root), '-machine', config.l0_stack, '-cpu', config.host, '-accel', 'tcg',
            '-smp', '1', '-m', '4G', '-no-user-config', '-display', 'none', '-net', 'none', '-monitor', 'none',
            '-kernel', str(kernel.vmlinux), '-initrd', str(initrd), '-append', COMMAND_LINE + L0_NEEDS[config.l0],
            '-device', f'virtio-serial-pci,bus=pcie.0,max_ports={len(CONSOLES) + 1}']


def attach(config, name):
    """What connects the chardev NAME of L0's QEMU."""
    if config.l0_stack and name != 'l0':
        return ['-device', f'virtconsole,chardev={name},nr={CONSOLES.index(name) + 1}']
    return ['-serial', f'chardev:{name}']


def wired(fd, address):
    """The network card of the L1 with this ADDRESS, at the end FD of a wire."""
    card = f'spapr-vlan,netdev=wire,mac=52:54:00:00:00:0{address[-1]}'
    return ['-netdev', f'socket,id=wire,fd={fd}', '-device', card]


def l1_command(config, memory):
    """The command that starts L1, for the shell of Linux as L0."""
    words = ['qemu-system-ppc64', '-accel', 'kvm', *l1_options(config, '/l1/vmlinux', '/l1/initrd', memory)]
    for number, name in enumerate(CONSOLES, 1):
        words += ['-chardev', f'serial,id={name},path=/dev/hvc{number}', '-serial', f'chardev:{name}']
    return shlex.join(words)


def cpus(config):
    """The value of -smp, which allows for one more core if one will be plugged."""
    count, _, rest = config.smp.partition(',')
    if 'hotplug' not in config.do or 'maxcpus' in rest:
        return config.smp
    threads = re.search(r'threads=(\d+)', rest)
    return f'{config.smp},maxcpus={int(count) + int(threads[1] if threads else 1)}'


def l2_options(config, machine, disk, kernel=None, initrd=None, append=None):
    """The options of L2's QEMU on any host, without its consoles; without KERNEL and its APPEND, L2 boots from DISK."""
    words = ' '.join(filter(None, [COMMAND_LINE, append, L2_WORK if config.do else None]))
    system = ['-kernel', str(kernel), '-initrd', str(initrd), '-append', words] if kernel else []
    return ['-nodefaults', '-no-user-config', '-display', 'none', '-accel', 'kvm', '-machine', machine,
            '-serial', 'chardev:l2', '-mon', 'chardev=qmp,mode=control', *system,
            '-blockdev', f'{"qcow2" if kernel else "raw"},node-name=disk,file.driver=file,file.filename={disk}']


def l2_command(config, console, monitor, extra):
    machine = f'pseries,x-vof={"off" if config.installer else "on"}{L1_PAGES[config.pages]}' + \
        POWERNV_GUEST * bool(config.l0_stack) + (f',{config.l2_machine}' if config.l2_machine else '')
    system = () if config.installer else ('/l2/vmlinux', '/l2/initrd', config.l2_append)
    guest = l2_options(config, machine, '/l2/disk', *system)
    words = ['qemu-system-ppc64', *guest, '-cpu', config.l2_cpu, '-smp', cpus(config), '-m', config.memory,
             '-trace', L2_TRACE]
    words += VIRTIO if config.virtio or config.installer else []
    for name, place in (('l2', console), ('qmp', monitor)):
        words += ['-chardev', f'serial,id={name},path=/dev/hvc{CONSOLES.index(place)}']
    return shlex.join([*words, *extra])


def near(mode, allowed):
    """{mode, below, above}: MODE and its neighbors that exist; below, only those in ALLOWED."""
    number = MODES.index(mode)
    below, above = [older for older in MODES[:number] if older in allowed], MODES[number + 1:]
    return {'mode': mode, **dict(zip(['below'], below[-1:])), **dict(zip(['above'], above))}


def fill(row, known):
    """ROW with the names in braces replaced by values from KNOWN, or None if one is missing."""
    try:
        # not format(): regular expressions contain braces, too
        return row._replace(**{key: re.sub(r'{([a-z]+)}', lambda name: known[name[1]], text)
                               for key, text in row._asdict().items() if isinstance(text, str)})
    except KeyError:
        return None
