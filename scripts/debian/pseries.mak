# SPDX-License-Identifier: GPL-2.0-or-later
#
# The devices of our builds: only those that a pseries guest needs to boot, so
# that a build from scratch is short.

CONFIG_PSERIES=y
CONFIG_VIRTIO_PCI=y
CONFIG_VIRTIO_BLK=y
CONFIG_VIRTIO_NET=y
