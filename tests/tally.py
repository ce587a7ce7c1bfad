# SPDX-License-Identifier: GPL-2.0-or-later
"""The results of meson's tests: what failed, what was skipped, and the counts.

Each point of a TAP test counts.  meson's JUnit file cannot be used: it does not
show that a TAP test crashed if all its points were right up to then.
"""

import json
import pathlib
import re
import sys

from scripts.lib.command import main
from tests.tap import KINDS, tally

POINT = re.compile(r'^(not )?ok\b[ \d]*-?\s*(.*?)(?:\s*#\s*(SKIP)\b(.*))?$', re.M | re.I)


def points(test):
    """(result, name, reason) of each point of one of meson's tests."""
    found = [('skipped' if skip else 'failed' if bad else 'passed', name, reason.strip())
             for bad, name, skip, reason in POINT.findall(test['stdout'])]
    whole = {'OK': 'passed', 'SKIP': 'skipped'}.get(test['result'], 'failed')
    # a test that crashed has failed, even if all its points were right
    if not found or (whole == 'failed' and all(point[0] != 'failed' for point in found)):
        *_, last = ['', *test.get('stderr', '').splitlines()]
        found.append((whole, 'as a whole', f'{test["result"].lower()}: {last}' if last else test['result'].lower()))
    return found


def show(build):
    """Print the results in BUILD; 0 if some passed and none failed."""
    counts = dict.fromkeys(KINDS, 0)
    log = pathlib.Path(build, 'meson-logs/testlog.json')
    if not log.exists():
        print(f'failed: meson ran no test in {build}: see its output above')
    for line in log.read_text().splitlines() if log.exists() else ():
        test = json.loads(line)
        for result, name, reason in points(test):
            counts[result] += 1
            if result != 'passed':
                print(f'{result}: {test["name"]}: {name}' + (f' ({reason})' if reason else ''))
    print(tally(counts))
    return counts['failed'] > 0 or not counts['passed']


if __name__ == '__main__':
    main(lambda: show(sys.argv[1]))
