# SPDX-License-Identifier: GPL-2.0-or-later
"""Measure which lines and branches of the series' C code the tests reach.

Runs all scenarios, and the cases of tests/hcall.  Prints a table, and then
each line that the tests miss, with its reason from tests/reasons.txt.  Fails
if a line has no reason.  Writes a page with all lines to
build/coverage/index.html.
"""

from scripts.lib.command import main, no_options
from scripts.lib.system import BUILD, TOP, run as tool
from tests import reach
from tests.relink import grafted

PAGE = BUILD / 'coverage'
ROW = '{:36} {:>12} {:>12}'


def merged():
    """{file: {line: (times, branches)}} of all tests."""
    found = {}
    for test in reach.reached(again=True).values():
        for name, lines in test['files'].items():
            reach.add(found.setdefault(name, {}), lines)
    return {name: dict(sorted(lines.items(), key=lambda row: int(row[0]))) for name, lines in sorted(found.items())
            if lines}


def missed(found):
    """(file, line, its text, what is missed) of each line that is not fully covered."""
    for name, lines in found.items():
        text = (grafted().path / name).read_text().splitlines()
        for line, (times, branches) in lines.items():
            if not times:
                yield name, line, text[int(line) - 1].strip(), 'never run'
            elif not all(branches):
                never = [str(number) for number, taken in enumerate(branches, 1) if not taken]
                yield name, line, text[int(line) - 1].strip(), f'branch {", ".join(never)} of {len(branches)} not taken'


def write_page(found):
    """Write a trace file for lcov, and let it make the page."""
    PAGE.mkdir(parents=True, exist_ok=True)
    out = []
    for name, lines in found.items():
        out.append(f'SF:{grafted().path / name}')
        for line, (times, branches) in lines.items():
            out += [f'BRDA:{line},0,{number},{taken}' for number, taken in enumerate(branches)]
            out.append(f'DA:{line},{times}')
        out.append('end_of_record')
    trace = PAGE / 'coverage.info'
    trace.write_text('\n'.join(out) + '\n')
    tool(['genhtml', '--branch-coverage', '--quiet', '--prefix', str(grafted().path), '--title', 'the C of the series',
         '-o', str(PAGE), str(trace)])


def ratio(reached, of):
    return f'{reached} of {of}' if of else ''


def run():
    no_options(__doc__)
    found, known = merged(), {place: why[''] for place, why in reach.reasons().items() if '' in why}
    write_page(found)
    print(ROW.format('', 'lines', 'branches').rstrip())
    for name, lines in found.items():
        branches = [taken for _, taken in lines.values() for taken in taken]
        print(ROW.format(name, ratio(sum(times > 0 for times, _ in lines.values()), len(lines)),
                         ratio(sum(taken > 0 for taken in branches), len(branches))).rstrip())
    left = list(missed(found))
    for name, line, text, what in left:
        print(f'{name}:{line}: {text}\n    {what}: {known.get((name, text), "no reason is known")}')
    unknown = sum((name, text) not in known for name, _, text, _ in left)
    stale = set(known) - {(name, text) for name, _, text, _ in left}
    for name, text in sorted(stale):
        print(f'{reach.REASONS.relative_to(TOP)}: nothing is missed in {name}: {text}')
    print(f'{len(left)} lines are not fully covered, {unknown} of them without a reason; '
          f'see {PAGE.relative_to(TOP)}/index.html')
    return unknown > 0 or bool(stale)


if __name__ == '__main__':
    main(run, 'make coverage')
