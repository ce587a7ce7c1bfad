# Copyright (c) 2026 QEMU contributors
# SPDX-License-Identifier: GPL-2.0-or-later
"""Hold one of our tools at the point of a row in tests/faults/check.py.

Python runs this before any script if PYTHONPATH names its folder.  The first
process that is about to do what FAULT_AT matches creates FAULT_HELD, and
continues when the pipe FAULT_GO has a writer.
"""

import os
import re
import sys

AT = re.compile(os.environ.get('FAULT_AT') or r'\b\B')


def words_of(event, args):
    if event == 'subprocess.Popen':
        return ' '.join(map(str, args[1]))
    return ' '.join(map(str, (event, *args[:2])))


def hold(event, args):
    if event in ('subprocess.Popen', 'os.rename') and AT.search(words_of(event, args)):
        try:
            os.close(os.open(os.environ['FAULT_HELD'], os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return
        with open(os.environ['FAULT_GO'], 'rb'):
            pass


sys.addaudithook(hold)
