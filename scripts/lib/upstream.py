# Copyright (c) 2026 QEMU contributors
# SPDX-License-Identifier: GPL-2.0-or-later
"""Bases with upstream's own version of the series, and the one made with a stand-in for it."""

import functools

from lib import bases
from lib.builds import prepared
from lib.commits import commit_entries, has_word
from lib.git import BASE_REF, Tree
from lib.queue import Entry, entries, queue
from lib.system import TOP, locked

# As (file, word): upstream's version, and the kernel's header that it needs
FUNCTION = ('target/ppc/kvm.c', 'kvm_ppc_host_compat_pvr')
HEADER = ('linux-headers/linux/kvm.h', 'KVM_PPC_GET_COMPAT_CAPS')
STAND_IN = TOP / 'tests/queue/upstream.patch'


@functools.cache
def below():
    """Whether the base has upstream's version."""
    return has_word(Tree(bases.home() / 'src'), BASE_REF, *FUNCTION)


def base_with(tree):
    """The commit of TREE's base with upstream's version, or with the stand-in if the base does not have it."""
    headers = [entry for entry in entries(queue().values()) if tuple(entry.unless) == HEADER]
    return commit_entries(tree, tree.tip(BASE_REF), [*headers, Entry(STAND_IN)])


def prepare(*builds):
    """Bring build/BASE/upstream/src up to date, a checkout that can be a base, and configure BUILDS beside it."""
    with locked('upstream'):
        tree = Tree(bases.home() / 'src')
        prepared(tree, bases.home() / 'upstream', base_with(tree), names=builds)
