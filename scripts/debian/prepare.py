# Copyright (c) 2026 QEMU contributors
# SPDX-License-Identifier: GPL-2.0-or-later
"""The second half of configure, after it has installed the packages.

Grafts the series and configures two builds of QEMU: for ppc64le with KVM, and
for this machine with TCG.  Does not compile anything.
"""

import concurrent.futures

from scripts.debian import binaries, roots
from scripts.debian.builds import configurations, configure
from scripts.lib.command import Parser, main
from scripts.lib.system import locked
from scripts.queue import bases
from scripts.queue.graft import graft


def configured(name, options, env):
    with binaries.building(bases.home() / name):
        configure(name, options, env)


def run():
    parser = Parser(description=__doc__)
    parser.add_argument('base', nargs='?', metavar='BASE', help='trixie, sid, or the path of a QEMU checkout')
    wanted = parser.parse_args().base or bases.chosen()
    with locked('prepare', 'waiting for another ./configure to end'), concurrent.futures.ThreadPoolExecutor() as pool:
        needed = [pool.submit(graft, wanted), pool.submit(roots.meson_path), pool.submit(roots.sysroot)]
        root = [one.result() for one in needed][-1]
        for done in [pool.submit(configured, name, *how) for name, how in configurations(root).items()]:
            done.result()


if __name__ == '__main__':
    main(run, 'configure')
