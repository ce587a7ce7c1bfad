# Copyright (c) 2026 QEMU contributors
# SPDX-License-Identifier: GPL-2.0-or-later
"""What the commands and the checks share."""

import pathlib
import sys

# a command finds this package beside itself, and the tests from here
sys.path.append(str(pathlib.Path(__file__).resolve().parents[2]))
