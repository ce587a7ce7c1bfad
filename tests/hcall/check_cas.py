# Copyright (c) 2026 QEMU contributors
# SPDX-License-Identifier: GPL-2.0-or-later
"""Pass random lists of modes to CAS, on QEMU with TCG and AddressSanitizer."""

import pathlib
import tempfile

from scripts.debian import binaries
from scripts.lib.command import main, no_options
from scripts.lib.system import Error
from tests.hcall import cases
from tests.relink import relink

SANITIZER = '-fsanitize=address,undefined'
FILES = ('hw/ppc/spapr_hcall.c', 'target/ppc/compat.c')
PATIENCE = 120


def check():
    no_options(__doc__)
    binaries.native_qemu()
    with tempfile.TemporaryDirectory(prefix='asan-') as home:
        home = pathlib.Path(home)
        qemu = relink('tcg', home / 'tcg', home / 'src', [SANITIZER, '-fno-sanitize-recover=all'], FILES, [SANITIZER])
        image = cases.program(home, 'cas', ('partition', 'cas'))
        options = [*cases.machine(image, 'cap-nested-papr', 'power11'), '-machine', 'cap-dawr1=off']
        said = dict(cases.lines([str(qemu)], options, '1', PATIENCE))
    if 'REFUSED' not in said:
        raise Error(f'the guest hangs: no answer in {PATIENCE} seconds')
    words = f'CAS accepts {said["TAKEN"]} lists and refuses {said["REFUSED"]}'
    # an empty list is among them
    if '0' in said.values():
        raise Error(f'{words}: either has to happen')
    print(words)


if __name__ == '__main__':
    main(check)
