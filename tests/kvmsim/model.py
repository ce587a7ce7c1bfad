# SPDX-License-Identifier: GPL-2.0-or-later
"""The modes of a host, and the mode that a guest must get: a second implementation, independent of QEMU's."""

import dataclasses
import itertools
import struct

from tests.kvmsim import power
from tests.kvmsim.chance import MODES, RECORDS


@dataclasses.dataclass
class Host:
    """The modes of a host (None: unknown), and whether they limit its guests."""
    cpu: int
    pvr: int
    modes: set | None

    @property
    def limited(self):
        return bool(self.modes) and self.cpu not in self.modes

    def allows(self, mode):
        if mode == 0:
            return not self.limited
        # no CPU has power7+, and KVM decides about modes before POWER9
        return (mode in power.MODES.values() and mode <= self.cpu and
                (mode < power.MODES['power9'] or not self.modes or mode in self.modes))

    def newest(self):
        return max(self.modes) if self.limited else 0

    def shared(self, listed, limit):
        """The newest mode that a guest with these records can get (0: none), and whether it can run raw."""
        newest, raw = 0, False
        for mask, pvr in listed:
            if pvr & mask == self.pvr & mask:
                raw = True
            elif self.allows(pvr) and pvr > newest and (not limit or pvr <= limit):
                newest = pvr
        return newest, raw and not limit


def records(data):
    """The (mask, PVR) that CAS must read: up to one that cannot match, at most RECORDS."""
    listed = struct.iter_unpack('>II', data[:8 * RECORDS].ljust(8 * RECORDS, b'\0'))
    return [*itertools.takewhile(lambda record: not ~record[0] & record[1], listed)]


def host_of(settings):
    """The host as QEMU must see it."""
    own = power.MODES[settings['host']]
    # no record has this low half of the PVR
    host = Host(own, power.HOSTS[settings['host']] | 0xffff, None)
    if settings['kvm'] == 'pr':
        return host
    modes, logical = set(), {power.MODES[name] for name in MODES}
    if power.KERNELS[settings['kernel']][0] and not settings['caps-error']:
        modes = {power.MODES[name] for name in MODES if settings['caps'] & power.CAPS[name]}
    modes = {mode for mode in modes if mode <= own}
    if not modes:
        kinds = {'raw': power.HOSTS[settings['host']], 'absent': 0, 'truncated': 0, 'long': 0}
        version = kinds.get(settings['device-tree'][0], settings['device-tree'][0])
        if version in logical:
            modes = {mode for mode in logical if mode <= version}
    host.modes = modes or None
    return host


class Expected:
    """What must be so after the steps up to now: the limit, and the mode of all vCPUs and of the snapshot."""

    def __init__(self, settings):
        self.host, self.hv = host_of(settings), settings['kvm'] == 'hv'
        given = dict(option.split('=') for option in settings['machine'].split(',') if option)
        self.limit = power.MODES.get(given.get('max-cpu-compat'), self.host.newest())
        # None: unknown
        self.mode, self.saved = self.limit, None
        self.refusals = settings['refuse'] or []

    def refuses(self, mode):
        """Whether KVM may refuse MODE."""
        return not self.hv or any(value in (power.ANY, mode) for _, value, _, _ in self.refusals)

    def cas(self, listed):
        """The guest passes the records LISTED; return whether it shares a mode with the host."""
        newest, raw = self.host.shared(listed, self.limit)
        if self.hv and (newest or raw):
            self.mode = newest
        return bool(raw or newest and self.hv)
