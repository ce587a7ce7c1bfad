# SPDX-License-Identifier: GPL-2.0-or-later
"""Make small faults (mutants) in the series' C code, and check that a test fails for each.

The tests that reach the changed line run until one of them fails.  Prints
the mutants for which no test fails.  tests/reasons.txt lists the mutants that
no test can detect.

A mutant in a function is a copy of that function, which runs instead of the
original if the environment has MUTANT=NUMBER, so one build contains all of
them.  A mutant outside of functions needs its own build.
"""

import collections
import concurrent.futures
import functools
import pathlib
import re
import tempfile

from scripts.lib.command import Parser, main
from scripts.lib.system import TOP, Error, Unknown, locked, say, workers
from scripts.queue.git import BASE_REF
from scripts.queue.topics import entries, queue
from tests import reach
from tests.hcall import cases
from tests.kvmsim import machine
from tests.relink import JOBS, added_lines, commands, grafted, relink

# the killer of what does not compile, or is in no build, or is reached by no test for a reason
NOTHING = 'not in the program'
# Seconds.  Most tests take one: a test hangs if it takes this long and five times its usual time
PATIENCE = 30
# errors are where a macro is used, not where it is defined
FLAGS = ['-O1', '-w', '-U_FORTIFY_SOURCE', '-ftrack-macro-expansion=0']
SELECT = '''
static int mutant;
static void __attribute__((constructor)) select_mutant(void)
{
    const char *number = getenv("MUTANT");

    mutant = number ? atoi(number) : 0;
}
'''

SWAPPED = {'<': '<=', '<=': '<', '>': '>=', '>=': '>', '==': '!=', '!=': '==', '+': '-', '-': '+', '*': '/', '/': '*',
           '&': '|', '|': '&', '<<': '>>', '>>': '<<', '|=': '&=', '&=': '|=', '+=': '-=', '-=': '+=',
           'true': 'false', 'false': 'true'}
# {type of a function: other values to return}
VALUES = {'void': [''], 'bool': ['true', 'false']}
# Balanced, four deep
PARENS = functools.reduce(lambda inner, _: rf'\((?:[^()]|{inner})*\)', range(3), r'\([^()]*\)')
OPERAND = rf'(?:(?![=!<>]=)[^()&|?:;,{{}}=]|[=!<>]=|{PARENS})+'
NUMBER = r'(?<![\w.])((?:0x[0-9a-fA-F]+|\d+)[UL]*)\b'
# (what to find in code without strings and comments, what to write instead of the group); these need not know C, for
# what does not compile is dropped
OPERATORS = (
    (r' ([-+|&]=|[<>=!]=|<<|>>|[-+*/<>&|])(?=\s)|\b(true|false)\b', lambda old, _: [SWAPPED[old]]),
    (NUMBER, lambda old, _: ['1'] if old == '0' else ['0', f'({old} + 1)']),
    # another bit of -d changes nothing, and callers do not tell one errno from another
    (r'\b((?!LOG_|E[A-Z]+\b)[A-Z][A-Z0-9_]+)\b(?!\()(?<!NULL)', lambda old, _: [f'({old} + 1)']),
    (r'([!~])(?=[\w(])', lambda *_: ['']),
    (rf'\bif ({PARENS})', lambda *_: ['(true)', '(false)']),
    (rf'\bwhile ({PARENS})', lambda *_: ['(false)']),
    (r'( \?)\s', lambda *_: [' && false ?', ' || true ?']),
    # an operand of && or ||, which can be inside of another
    (rf'(?:(?<=\()|(?<=[&|] )|(?<=  )|(?<= = )|(?<=return ))(?=((?!return\b|\s){OPERAND}(?:&&|\|\|)\s+))',
     lambda *_: ['']),
    (rf'(?<=\s)(?=((?:&&|\|\|)\s{OPERAND}))', lambda *_: ['']),
    # a value that is not a plain one
    (r'\breturn (?!-?\w+;)([^;]+);', lambda _, kind: VALUES.get(kind, ['0'])),
    (r' = ([^;={}]*\([^;={}]*);', lambda *_: ['0']),
    # a statement
    (rf'^ *((?!\s|(?:if|for|while|switch|return|case|default)\b)(?:[^(){{}};#]|{PARENS})+;)', lambda *_: [';']),
    # a return that is all of an if is also in its conditions above
    (r'(?<!\) \{\n)^ {8,}(return\b[^;]*;)', lambda *_: [';']),
    # all of a function
    (r'^({)$', lambda _, kind: [f'{{ return {value};' for value in VALUES.get(kind, ['0'])]),
)
# In tables, macros and enumerations, and in headers
OUTSIDE = (
    (NUMBER, lambda old, _: [f'({old} + 1)']),
    (r'(?:= |, |\{ )([A-Z][A-Z0-9_]+)\b(?!\()', lambda old, _: [f'({old} + 1)']),
    (r'^ *(\{.*\},|\.\w+ = .*,)$', lambda *_: ['']),
)
# In QEMU's style, the braces of a function are in column one
FUNCTION = re.compile(r'^(?P<type>\w[^;{}()=]*?)(?P<name>\w+)\((?P<passed>[^;{}]*)\)\n(?P<body>\{$.*?^\})$',
                      re.M | re.S)


class Mutant:
    """TEXT instead of what FILE has from START to END, in FUNCTION (a match), or None outside of functions."""

    def __init__(self, number, file, start, end, text, function):
        self.number, self.file, self.start, self.end, self.text, self.function = \
            number, file, start, end, text, function
        self.line = line_at(source(file), start)
        self.words = ' '.join(source(file).splitlines()[self.line - 1].split())
        old, new = (' '.join(words.split()) for words in (source(file)[start:end], text))
        self.change = f'drop {old}' if new in ('', ';') else f'{old} -> {new}'
        # the test that fails
        self.killer = None

    def __str__(self):
        return f'{self.file}:{self.line}: {self.change}'


@functools.cache
def source(name):
    return (grafted().path / name).read_text()


def line_at(text, offset):
    return text.count('\n', 0, offset) + 1


def bare(text):
    """TEXT with spaces instead of strings, comments and preprocessor lines."""
    return re.sub(r'"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])+\'|/\*.*?\*/|^#(?!define)[^\n]*',
                  lambda found: re.sub(r'[^\n]', ' ', found[0]), text, flags=re.S | re.M)


def mutants_of(name):
    """(start, end, text, function or None) of each mutant of file NAME that starts on a line that the series adds."""
    code, added, seen = bare(source(name)), added_lines()[name], set()
    functions = list(FUNCTION.finditer(code))
    edges = [0, *(edge for function in functions for edge in function.span()), len(code)]
    table = [(None, start, end, OUTSIDE) for start, end in zip(edges[::2], edges[1::2])]
    table += [(function, *function.span('body'), OPERATORS) for function in functions if name.endswith('.c')
              and added & set(range(line_at(code, function.start()), line_at(code, function.end())))]
    for function, first, last, operators in table:
        value = function and function['type'].split()[-1]
        for pattern, replacements in operators:
            for found in re.compile(pattern, re.M).finditer(code, first, last):
                start, end = found.span(found.lastindex)
                # the brace of a function counts with its name
                line = line_at(code, function.start('name') if function and start == first else start)
                for text in replacements(found[found.lastindex], value) if line in added else ():
                    whole = ''.join(f'{code[first:start]}{text}{code[end:last]}'.split())
                    if whole not in seen:
                        seen.add(whole)
                        yield start, end, text, function


@functools.cache
def every():
    found = [(name, *one) for name in added_lines() for one in sorted(mutants_of(name), key=lambda one: one[:3])]
    return [Mutant(number, *one) for number, one in enumerate(found, 1)]


def topic_of():
    """{(file, line): topic}, for lines that are committed in the grafted tree."""
    tree, found = grafted(), {}
    commits = tree.git('rev-list', '--reverse', f'{BASE_REF}..HEAD').split()
    topics = dict(zip(commits, (entry.topic for entry in entries(queue().values()))))
    for name in added_lines():
        for line in tree.git('blame', '-s', '-l', 'HEAD', '--', name).splitlines():
            commit, number = re.match(r'\^?(\w+)(?: \S+)? +(\d+)\)', line).groups()
            found[name, int(number)] = topics.get(commit)
    return found


def chosen(only):
    """The mutants in ONLY: a topic, a file, or FILE:LINE."""
    name, _, line = (only or '').partition(':')
    if only in queue():
        topics = topic_of()
        return [mutant for mutant in every() if topics.get((mutant.file, mutant.line)) == only]
    if only and not (name in added_lines() and (line.isdigit() or not line)):
        raise Unknown(f'{only} is not a topic, FILE or FILE:LINE: choose one of '
                      f'{", ".join([*queue(), *sorted(added_lines())])}')
    return [mutant for mutant in every() if name in ('', mutant.file) and line in ('', str(mutant.line))]


def equivalents():
    """The mutants that tests/reasons.txt lists; each must exist."""
    known = {(*place, change) for place, changes in reach.reasons().items() for change in changes if change}
    found = {}
    for mutant in every():
        function = f'{mutant.function["name"]}(): ' if mutant.function else ''
        for words in (mutant.words, f'{function}{mutant.words}'):
            found.setdefault((mutant.file, words, mutant.change), set()).add(mutant)
    for file, line, change in known:
        places = {mutant.line for mutant in found.get((file, line, change), ())}
        if len(places) != 1:
            raise Error(f'{reach.REASONS.relative_to(TOP)}: {file}: {line}: "{change}" is a mutant of {len(places)} '
                        'lines instead of one: remove it, or correct it')
    return set().union(*(found[key] for key in known))


def mutated(name, mutants):
    """The text of file NAME with MUTANTS; $MUTANT selects the one that runs."""
    text, pieces = source(name), collections.defaultdict(str)
    for mutant in mutants:
        if not mutant.function:
            return text[:mutant.start] + mutant.text + text[mutant.end:]
        function, own = mutant.function, f'{mutant.function["name"]}__{mutant.number}'
        start, body, end = function.start(), function.start('body'), function.end()
        head = text[start:function.start('name')] + own + text[function.end('name'):body]
        head = head if 'static' in function['type'] else f'static {head}'
        passed = ', '.join(re.findall(r'(?!void$)\b(\w+)(?:\[\w*\])?(?:,|$)', function['passed']))
        pieces[start] += f'{head.strip()};\n'
        # gcc accepts it in a function without a value, too
        pieces[body + 1] += f'\nif (mutant == {mutant.number}) {{ return {own}({passed}); }}'
        pieces[end] += f'\n#line 1 "mutant-{mutant.number}"\n' \
                       f'{head}{text[body:mutant.start]}{mutant.text}{text[mutant.end:end]}\n#line 1 "{name}"'
    # osdep.h is always the first include
    pieces[text.index('#include "qemu/osdep.h"\n') + len('#include "qemu/osdep.h"\n')] += SELECT
    edges = sorted({0, *pieces, len(text)})
    return ''.join(pieces[start] + text[start:end] for start, end in zip(edges, [*edges[1:], None]))


def built(mutants, home):
    """{build: QEMU with MUTANTS}, in HOME; what does not compile is dropped."""
    found = {}
    for build in ('kvm', 'tcg'):
        place = home / build
        while own := [mutant for mutant in mutants if not mutant.killer
                      and (mutant.file in commands(build) or mutant.file.endswith('.h'))]:
            names = {mutant.file for mutant in own}
            for name in names:
                path = place / 'src' / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(mutated(name, [mutant for mutant in own if mutant.file == name]))
            try:
                # any file can include a header
                found[build] = relink(build, place, place / 'src', FLAGS,
                                      None if any(name.endswith('.h') for name in names) else names)
                break
            except Error as e:
                wrong = {int(number) for number in re.findall(r'\bmutant-(\d+):', str(e))}
                lost = [mutant for mutant in own if mutant.number in wrong
                        or (not mutant.function and ' error: ' in str(e))]
                if not lost:
                    raise
                for mutant in lost:
                    mutant.killer = NOTHING
    return found


def reaching(mutant, reached):
    """The tests that reach the statement of MUTANT; None if it needs no test."""
    lines = {test: reached[test.name]['files'].get(mutant.file, {}) for test in reach.every()}
    near = known = sorted({int(line) for own in lines.values() for line in own})
    if mutant.function:
        code = mutant.function.string
        first, last = (line_at(code, edge) for edge in mutant.function.span())
        known = [line for line in known if first <= line <= last]
        if not known:
            return None
        # gcov counts each operand of ?: on its line, and not all lines
        begin = line_at(code, mutant.start - len(re.split('[;{}]', code[:mutant.start])[-1].lstrip()))
        stop = line_at(code, mutant.end - 1 + len(re.split('[;{}]', code[mutant.end - 1:])[0]))
        near = [line for line in known if begin <= line <= stop] or known[:1]
    found = [test for test, own in lines.items()
             if mutant.file.endswith('.h') or any(own.get(str(line), (0,))[0] for line in near)]
    return None if not found and '' in reach.reasons().get((mutant.file, mutant.words), ()) else found


def try_one(mutant, reached, home, programs, kills):
    """
    Run the tests that reach MUTANT until one fails, which kills it

    First come those that failed for other mutants of its function (KILLS), then those that reach more of its file.
    """
    def worth(test):
        return kills[mutant.function, test], sum(
            times > 0 for times, _ in reached[test.name]['files'].get(mutant.file, {}).values())
    programs = programs if mutant.function else built([mutant], home / str(mutant.number))
    tests = reaching(mutant, reached)
    if tests is None:
        mutant.killer = NOTHING
    for test in sorted(tests or (), key=worth, reverse=True):
        patience = max(PATIENCE, 5 * reached[test.name]['seconds'])
        if test.build in programs and test.wrong(programs[test.build], {'MUTANT': str(mutant.number)}, patience):
            mutant.killer = test.name
            kills[mutant.function, test] += 1
            break
    return mutant


def try_all(mutants, jobs):
    reached, kills = reach.reached(), collections.Counter()
    # seconds; a case takes one or two, and many mutants hang
    cases.PATIENCE = 5
    with tempfile.TemporaryDirectory(prefix='mutants-') as home, workers(jobs, machine.interrupted.set) as pool:
        home = pathlib.Path(home)
        say('compiling the mutants')
        programs = built([mutant for mutant in mutants if mutant.function], home)
        going = [pool.submit(try_one, mutant, reached, home, programs, kills) for mutant in mutants
                 if not mutant.killer]
        for number, done in enumerate(concurrent.futures.as_completed(going), 1):
            mutant = done.result()
            say(f'{number} of {len(going)}: {mutant}: {mutant.killer or "SURVIVED"}')


def run():
    parser = Parser(description=__doc__)
    parser.add_argument('--only', metavar='WHAT', help='TOPIC, FILE or FILE:LINE')
    parser.add_argument('--jobs', metavar='N', type=int, default=JOBS)
    args = parser.parse_args()
    with locked('mutants', 'waiting for another make mutants to end'):
        known = equivalents()
        found = chosen(args.only)
        tried = [mutant for mutant in found if mutant not in known]
        try_all(tried, args.jobs)
    tried = [mutant for mutant in tried if mutant.killer != NOTHING]
    survived = [mutant for mutant in tried if not mutant.killer]
    for mutant in survived:
        print(f'survived: {mutant}')
    print(f'{len(tried) - len(survived)} mutants killed, {len({*found} & known)} equivalent, {len(survived)} survived')
    return len(survived) > 0


if __name__ == '__main__':
    main(run, 'make mutants')
