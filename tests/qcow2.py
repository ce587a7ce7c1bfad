# SPDX-License-Identifier: GPL-2.0-or-later
"""An empty disk for snapshots, made without qemu-img, which the host of "lab here" may not have."""

import struct

from scripts.lib.system import BUILD, locked, write_whole


def qcow2():
    """An empty image: header, refcounts, and a level-1 table."""
    cluster = 1 << 16
    header = struct.pack('>4sIQIIQIIQQIIQ', b'QFI\xfb', 2, 0, 0, 16, 1 << 20, 0, 1, 3 * cluster, cluster, 1, 0, 0)
    image = bytearray(4 * cluster)
    image[:len(header)] = header
    image[cluster:cluster + 8] = struct.pack('>Q', 2 * cluster)
    image[2 * cluster:2 * cluster + 8] = struct.pack('>4H', 1, 1, 1, 1)
    return bytes(image)


def empty_disk():
    path = BUILD / 'empty.qcow2'
    with locked('empty.qcow2'):
        if not path.exists():
            write_whole(path, qcow2())
    return path
