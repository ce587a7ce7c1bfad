# Copyright (c) 2026 QEMU contributors
# SPDX-License-Identifier: GPL-2.0-or-later
"""Ask random hosts for their CPU modes, with the C code of the series under AddressSanitizer.

PROGRAM is tests/asan/host.c, which meson builds.
"""

import errno
import pathlib
import random
import subprocess
import tempfile

from lib.command import Parser, main
from tests.kvmsim import power
from tests.kvmsim.chance import MODES, generate, stanza
from tests.kvmsim.machine import write_device_tree
from tests.kvmsim.model import host_of
from tests.kvmsim.scenario import parse

HOSTS = 300


def spoil(rng, cpus):
    """Add invalid lengths of cpu-version, and nodes that are not CPUs."""
    for path in cpus.glob('*/cpu-version'):
        if path.stat().st_size != 4:
            path.write_bytes(rng.randbytes(rng.choice((0, 1, 3, 5, 8, 70000))))
    for kind in rng.sample((b'', b'cpu', b'cpux', b'cpu\0\0', rng.randbytes(4), rng.randbytes(500)), 2):
        node = cpus / f'node@{len(kind)}-{rng.getrandbits(32):x}'
        node.mkdir()
        (node / 'device_type').write_bytes(kind)
        (node / 'cpu-version').write_bytes(rng.randbytes(4))
    (cpus / ('name' * rng.randint(1, 50))).write_bytes(rng.randbytes(3))


def line_of(settings, limit, root):
    """The host's line in the input of tests/asan/host.c."""
    # a kernel has the extension exactly if it has the ioctl
    has_ioctl = power.KERNELS[settings['kernel']][0]
    error = getattr(errno, settings['caps-error'][0]) if settings['caps-error'] else 0
    return (f'{root} {power.MODES[settings["host"]]:#x} {int(has_ioctl)} {error} '
            f'{settings["caps"]:#x} {limit:#x}\n')


def expected(settings, limit):
    host = host_of(settings)
    if limit and host.modes and limit not in host.modes:
        return 'refused'
    bits = sum(power.CAPS[power.mode_name(mode)] for mode in host.modes or ())
    return f'{bits:x} {limit or host.newest():x}'


def check():
    parser = Parser(description=__doc__)
    parser.add_argument('program', metavar='PROGRAM')
    program = parser.parse_args().program
    asked, wanted, seeds = [], [], []
    with tempfile.TemporaryDirectory(prefix='hosts-') as home:
        for seed in range(HOSTS):
            rng = random.Random(seed)
            text, _ = generate(seed)
            settings = next(iter(parse('random', stanza(text, ['cont'])).values())).source
            if settings['kvm'] == 'pr':
                continue
            root = pathlib.Path(home, str(seed))
            write_device_tree(root, settings)
            spoil(rng, root / 'proc/device-tree/cpus')
            limit = rng.choice((0, 0, *(power.MODES[name] for name in MODES)))
            asked.append(line_of(settings, limit, root))
            wanted.append(expected(settings, limit))
            seeds.append(seed)
        done = subprocess.run([program], input=''.join(asked), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              text=True, check=False)
    answers = done.stdout.splitlines()
    for seed, line, want, answer in zip(seeds, asked, wanted, [*answers, *[None] * len(asked)]):
        if answer != want:
            print(f'seed {seed}: {line.strip()}: {answer}, not {want}\n{done.stderr}')
            return 1
    print(f'{len(asked)} hosts' + (f'\n{done.stderr}' if done.returncode else ''))
    return done.returncode


if __name__ == '__main__':
    main(check)
