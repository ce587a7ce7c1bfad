# Copyright (c) 2026 QEMU contributors
# SPDX-License-Identifier: GPL-2.0-or-later
"""Answers for the Makefile and shell scripts: python3 -m lib WORD."""

import sys

from lib import bases, binaries, relink, roots, tally, upstream
from lib.command import main
from lib.system import TOP

WORDS = {'home': lambda: print(bases.home().relative_to(TOP)), 'meson': lambda: print(roots.meson_path()),
         'ninja': binaries.ninja, 'kvm-ubsan': lambda: relink.sanitized('kvm-ubsan'), 'tally': tally.show,
         'upstream': upstream.prepare}

main(lambda: WORDS[sys.argv[1]](*sys.argv[2:]))
