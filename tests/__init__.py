# Copyright (c) 2026 QEMU contributors
# SPDX-License-Identifier: GPL-2.0-or-later
"""The tests, run from the top folder as python3 -m tests.hcall.check."""

import pathlib
import sys

# a check finds this package in the top folder, and what it shares with the commands from here
sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / 'scripts'))
