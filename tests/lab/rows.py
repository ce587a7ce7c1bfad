# SPDX-License-Identifier: GPL-2.0-or-later
"""The rows that "boot" and "smoke" run: a host each, and the CPU L2 must have."""

from typing import NamedTuple


class Row(NamedTuple):
    """A host; the logical PVR that L2 must report; is the host limited?"""
    host: str
    compat: str
    api: str
    kernel: str         # a suite, or 'newest'
    version: str
    limited: bool

    def name(self):
        mode = 'unlimited' if self.compat == 'none' else f'in {self.compat} mode'
        return f'{self.host} {mode}, API {self.api}, {self.kernel} kernel'


BOOT = (
    Row('power11', 'power10', 'v2', 'newest', '0x0f000006', True),
    Row('power11', 'power10', 'v1', 'newest', '0x0f000006', True),
)
SMOKE = (
    Row('power11', 'power10', 'v2', 'newest', '0x0f000006', True),
    # no ioctl there: by the device tree
    Row('power11', 'power10', 'v1', 'trixie', '0x0f000006', True),
    Row('power10', 'power9', 'v2', 'newest', '0x0f000005', True),
    Row('power11', 'none', 'v2', 'newest', '0x0f000007', False),
)
