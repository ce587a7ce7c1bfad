# Copyright (c) 2026 QEMU contributors
# SPDX-License-Identifier: GPL-2.0-or-later
"""The tests; run them from the top directory, such as python3 -m tests.hcall.check."""

import pathlib
import sys

# a check finds this package in the top directory, and scripts/lib through this path
sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / 'scripts'))
