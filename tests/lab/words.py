# Copyright (c) 2026 QEMU contributors
# SPDX-License-Identifier: GPL-2.0-or-later
"""The result of a run as text, for a terminal."""

from tests.lab import libvirt


def describe(result):
    l1, seconds = result['l1'], result['seconds']
    yield f'L0: {result["l0"]["qemu"]}, {result["l0"]["machine"]}'
    yield f'L1: {l1["cpu"]} ({l1["cpu_version"]}), Linux {l1["kernel"]}, ' \
          f'KVM says {l1["compat_caps"] or "nothing"}, {seconds["l1"]} s'
    for words in l1['complaints']:
        yield f'L1 says: {words}'
    yield from libvirt.describe(result) if 'libvirt' in result else describe_l2(result)


def describe_l2(result):
    l2, seconds = result['l2'], result['seconds']
    yield f'L2: {l2["outcome"]}' + (f', {l2["cpu"]} ({l2["cpu_version"]})' if l2['cpu'] else '') + \
          f', {seconds["l2"]} s'
    if l2['message']:
        yield f'    {l2["message"]}'
    for step in result.get('do', []):
        after = f', {step["cpu"]} ({step["cpu_version"]}), {step["cpus"]} vCPUs, {step["rounds"]} rounds of work, ' \
                f'{step["wrong"]} corrupt blocks' if step['cpu'] else ''
        yield f'    {step["do"]}: {step["outcome"]}{after}' + (f': {step["message"]}' if step['message'] else '')
