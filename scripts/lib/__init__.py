# Copyright (c) 2026 QEMU contributors
# SPDX-License-Identifier: GPL-2.0-or-later
"""Code that the commands and the checks share."""

import pathlib
import sys

# lets modules of this package import tests; a command finds the package itself
sys.path.append(str(pathlib.Path(__file__).resolve().parents[2]))
