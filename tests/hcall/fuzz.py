# SPDX-License-Identifier: GPL-2.0-or-later
"""Let an L1 pass random lists to CAS and make random calls of the nested APIs, on QEMU with TCG and sanitizers.

QEMU must not abort, hang or leak memory.  The seed determines the calls of each CPU, not how the two CPUs meet.
"""

import contextlib
import os
import pathlib
import signal
import tempfile
import time

from scripts.debian import binaries
from scripts.lib.command import Parser, main
from scripts.lib.system import Error
from tests.hcall import cases
from tests.relink import relink

SANITIZER = '-fsanitize=address,undefined'
# Seconds until calls count as hung: a list has up to 512 records
CALLS, PATIENCE, PATIENCE_CAS = 4096, 30, 120
APIS = (('1', 'cap-nested-hv'), ('2', 'cap-nested-papr'))


def lists(command, options, seed):
    """How many lists CAS accepts and refuses; either must happen."""
    said = dict(cases.lines(command, [*options, '-machine', 'cap-dawr1=off'], f'0{seed}', PATIENCE_CAS))
    if 'REFUSED' not in said:
        raise Error(f'the guest hangs: no answer in {PATIENCE_CAS} seconds')
    words = f'CAS accepts {said["TAKEN"]} lists and refuses {said["REFUSED"]}'
    # an empty list is among them
    if '0' in said.values():
        raise Error(f'{words}: either has to happen')
    return words


def fuzz(command, options, said, seconds):
    """The number of calls in SECONDS."""
    start, calls = time.monotonic(), 0
    with contextlib.closing(cases.lines(command, options, said, PATIENCE)) as got:
        for words in got:
            calls += CALLS * (words == ['CALLS'])
            if time.monotonic() - start > seconds:
                return calls
    raise Error(f'no call ends within {PATIENCE} seconds, after {calls} calls: run it again with this seed')


def check():
    parser = Parser(description=__doc__)
    parser.add_argument('--seconds', type=int, default=30)
    parser.add_argument('--seed', type=int, default=1)
    args = parser.parse_args()
    # SIGTERM lets the sanitizer look for leaks, which the caches of old versions of glib hide
    cases.END = signal.SIGTERM
    os.environ['G_SLICE'] = 'always-malloc'
    binaries.built('tcg')
    with tempfile.TemporaryDirectory(prefix='asan-') as home:
        home = pathlib.Path(home)
        qemu = relink('tcg', home / 'tcg', home / 'src', [SANITIZER, '-fno-sanitize-recover=all'], None, [SANITIZER])
        image = cases.program(home, 'fuzz', ('partition', 'fuzz'))
        print(lists([str(qemu)], cases.machine(image, 'cap-nested-papr', 'power11'), args.seed))
        for api, capability in APIS:
            calls = fuzz([str(qemu)], cases.machine(image, capability, 'power11'), f'{api}{args.seed}',
                         args.seconds / len(APIS))
            print(f'v{api}: {calls} calls, {calls * len(APIS) // args.seconds} a second')


if __name__ == '__main__':
    main(check)
