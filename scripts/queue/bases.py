# SPDX-License-Identifier: GPL-2.0-or-later
"""The base: the QEMU source that the series is grafted onto, and where its tree and builds are."""

import os
import pathlib
import re

from scripts.lib.system import BUILD, TOP, write_whole

# Their source packages can be a base; the first is the default.
SUITES = ('trixie', 'sid')
# QEMU's configure accepts a list of devices from this directory only.
DEVICES = pathlib.Path('configs/devices/ppc64-softmmu/host-compat.mak')


def chosen():
    """The base to work on, a suite's name or a path: $BASE, or else the last choice."""
    kept = BUILD / 'base'
    return os.environ.get('BASE') or (kept.read_text().strip() if kept.exists() else SUITES[0])


def choose(name):
    """Make NAME the base, unless $BASE overrides the choice."""
    if not os.environ.get('BASE'):
        BUILD.mkdir(exist_ok=True)
        write_whole(BUILD / 'base', f'{name if name in SUITES else pathlib.Path(name).resolve()}\n')


def base_suite():
    """The Debian suite whose QEMU the base is compared with."""
    return chosen() if chosen() in SUITES else SUITES[0]


def home(name=None):
    """The directory of the grafted tree (src) and builds (kvm, tcg) of the base NAME, or of the one to work on."""
    name = name or chosen()
    return BUILD / (name if name in SUITES else re.sub(r'[^\w.+]+', '-', str(pathlib.Path(name).resolve())).strip('-'))


if __name__ == '__main__':
    print(home().relative_to(TOP))
