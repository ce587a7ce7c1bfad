# Copyright (c) 2026 QEMU contributors
# SPDX-License-Identifier: GPL-2.0-or-later
"""The base: the QEMU source that the series is grafted onto, and where its tree and builds are."""

import os
import pathlib
import re

from lib.system import BUILD, write_whole

# Whose source packages can be a base; the first where none was chosen
SUITES = ('trixie', 'sid')
# QEMU's configure takes a choice of devices from here only.
DEVICES = pathlib.Path('configs/devices/ppc64-softmmu/host-compat.mak')


def chosen():
    """The base to work on, a suite's name or a path: BASE, else what was last chosen."""
    kept = BUILD / 'base'
    return os.environ.get('BASE') or (kept.read_text().strip() if kept.exists() else SUITES[0])


def choose(name):
    """Make NAME the base, unless BASE says otherwise for the time being."""
    if not os.environ.get('BASE'):
        BUILD.mkdir(exist_ok=True)
        write_whole(BUILD / 'base', f'{name if name in SUITES else pathlib.Path(name).resolve()}\n')


def base_suite():
    """The Debian suite whose own QEMU is the base's unpatched counterpart."""
    return chosen() if chosen() in SUITES else SUITES[0]


def home():
    """The folder of the base's grafted tree (src) and builds (kvm, tcg)."""
    name = chosen()
    return BUILD / (name if name in SUITES else re.sub(r'[^\w.+]+', '-', str(pathlib.Path(name).resolve())).strip('-'))
