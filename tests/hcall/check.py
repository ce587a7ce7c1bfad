# SPDX-License-Identifier: GPL-2.0-or-later
"""Test QEMU as L0 of the nested APIs, with guests of a few instructions.

Each case in tests/hcall/cases.py runs on our native build.  If Debian's QEMU
gets the case wrong, it runs there too.  Prints TAP.
"""

import concurrent.futures
import tempfile

from scripts.debian import binaries
from scripts.lib.command import Parser, main
from scripts.queue.topics import asked, queue
from tests import tap
from tests.hcall import cases


def check():
    parser = Parser(description=__doc__)
    parser.add_argument('--topic', metavar='NAME', help='its cases only, on our QEMU only')
    topic = parser.parse_args().topic
    asked(queue(), topic)
    commands = {cases.OURS: [str(binaries.built('tcg'))]}
    if not topic:
        commands[cases.THEIRS] = cases.debian()
    with tempfile.TemporaryDirectory() as scratch, concurrent.futures.ThreadPoolExecutor(4) as pool:
        points = pool.map(lambda row: tap.Point(f'{row[0]}, {row[1]}', cases.outcome(row[2], commands[row[0]]) or ''),
                          (row for row in cases.checks(scratch, topic) if row[0] in commands))
        return tap.report(points)['failed'] > 0


if __name__ == '__main__':
    main(check)
