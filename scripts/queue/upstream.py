# Copyright (c) 2026 QEMU contributors
# SPDX-License-Identifier: GPL-2.0-or-later
"""How a base with upstream's own version of the series is recognized."""

import functools

from scripts.queue import bases
from scripts.queue.commits import has_word
from scripts.queue.git import BASE_REF, Tree

# As (file, word): upstream's version, and the kernel's header that it needs
FUNCTION = ('target/ppc/kvm.c', 'kvm_ppc_host_compat_pvr')
HEADER = ('linux-headers/linux/kvm.h', 'KVM_PPC_GET_COMPAT_CAPS')


@functools.cache
def below():
    """Whether the base has upstream's version."""
    return has_word(Tree(bases.home() / 'src'), BASE_REF, *FUNCTION)
