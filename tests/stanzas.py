# Copyright (c) 2026 QEMU contributors
# SPDX-License-Identifier: GPL-2.0-or-later
"""Files of stanzas: [name], then key = value."""

import configparser

from scripts.lib.system import TOP, Error


def read_stanzas(path, keys):
    """{name: {key: value}} of the stanzas in PATH, which must have exactly KEYS."""
    config = configparser.ConfigParser(interpolation=None, delimiters=['='], comment_prefixes=['#'])
    try:
        config.read_string(path.read_text(), str(path.relative_to(TOP)))
    except configparser.Error as e:
        raise Error(' '.join(str(e).split())) from None
    for name in config.sections():
        if sorted(config[name]) != sorted(keys):
            raise Error(f'{path.relative_to(TOP)}: [{name}] has {", ".join(config[name])}: it must have '
                        f'{", ".join(keys)}')
    return {name: dict(config[name]) for name in config.sections()}
