# SPDX-License-Identifier: GPL-2.0-or-later
#
# The devices of the ppc64le build: what a pseries guest boots with, so that a
# bare machine is done in three minutes.

CONFIG_PSERIES=y
