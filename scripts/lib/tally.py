# Copyright (c) 2026 QEMU contributors
# SPDX-License-Identifier: GPL-2.0-or-later
"""What meson's tests came to: what failed, what was skipped, the counts.

A test that speaks TAP counts once for each of its points.  meson's JUnit file
would do, but has nothing of a TAP test that dies after points that are right.
"""

import json
import pathlib
import re

from lib.tap import KINDS, tally

POINT = re.compile(r'^(not )?ok\b[ \d]*-?\s*(.*?)(?:\s*#\s*(SKIP|TODO)\b(.*))?$', re.M | re.I)


def points(test):
    """(result, name, reason) of each point of one of meson's tests."""
    found = [('skipped' if skip else 'failed' if bad else 'passed', name, reason.strip())
             for bad, name, skip, reason in POINT.findall(test['stdout'])
             if skip.upper() != 'TODO']
    whole = {'OK': 'passed', 'SKIP': 'skipped'}.get(test['result'], 'failed')
    # a test that died is a failure, whatever its points were up to then
    if not found or (whole == 'failed' and all(point[0] != 'failed' for point in found)):
        found.append((whole, 'as a whole', test['result'].lower()))
    return found


def show(build):
    """Print the results in BUILD; 0 if some passed and none failed."""
    counts = dict.fromkeys(KINDS, 0)
    log = pathlib.Path(build, 'meson-logs/testlog.json')
    if not log.exists():
        print(f'failed: meson ran no test in {build}: what it said above is why')
    for line in log.read_text().splitlines() if log.exists() else ():
        test = json.loads(line)
        for result, name, reason in points(test):
            counts[result] += 1
            if result != 'passed':
                print(f'{result}: {test["name"]}: {name}' + (f' ({reason})' if reason else ''))
    print(tally(counts))
    return counts['failed'] > 0 or not counts['passed']
