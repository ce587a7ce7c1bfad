# Copyright (c) 2026 QEMU contributors
# SPDX-License-Identifier: GPL-2.0-or-later
"""Small faults for the C code that the series adds, with the usual operators.

A fault in a function becomes a copy of that function, which runs instead of
the original if the environment has MUTANT=NUMBER, so one build contains all
of them.  A fault outside of functions cannot be copied and needs its own build.
"""

import concurrent.futures
import dataclasses
import functools
import json
import re
import subprocess

from lib import bases
from lib.relink import GCC_ONLY, JOBS, SOURCE, added_lines, commands, grafted
from lib.system import Error

CLANG = {'kvm': ['--target=powerpc64le-linux-gnu'], 'tcg': []}
SELECT = '''
static int mutant;
static void __attribute__((constructor)) select_mutant(void)
{
    const char *number = getenv("MUTANT");

    mutant = number ? atoi(number) : 0;
}
'''
SWAPPED = {'<': '<=', '<=': '<', '>': '>=', '>=': '>', '==': '!=', '!=': '==', '+': '-', '-': '+', '*': '/', '/': '*',
           '&': '|', '|': '&', '<<': '>>', '>>': '<<', '|=': '&=', '&=': '|=', '+=': '-=', '-=': '+='}
NEVER_DROPPED = ('CompoundStmt', 'IfStmt', 'ForStmt', 'WhileStmt', 'SwitchStmt', 'DeclStmt', 'ReturnStmt', 'CaseStmt',
                 'DefaultStmt', 'NullStmt', 'LabelStmt')
CASTS = ('ImplicitCastExpr', 'ParenExpr', 'ConstantExpr')
INTEGER = re.compile(r'(const )?(_Bool|bool|(unsigned |signed )?(char|short|int|long|long long)|u?int\d+_t|'
                     r'target_u?long|s?size_t|hwaddr|RunState|enum \w+)$')


@dataclasses.dataclass(frozen=True)
class Edit:
    """A fault: TEXT replaces what FILE has from START to END."""
    file: str
    line: int
    start: int
    end: int
    old: str
    text: str
    # None outside of functions
    function: str | None
    # the first line of the statement: gcov may count that one instead
    top: int = 0

    @property
    def change(self):
        """The fault on one line, for people."""
        old, new = (' '.join(text.split()) for text in (self.old, self.text))
        return f'drop {old}' if new in ('', ';') else f'{old} -> {new}'


@dataclasses.dataclass
class Function:
    """A function of a file: its name, and the offsets of its start, name, opening brace and end."""
    name: str
    start: int
    at: int
    body: int
    end: int


def functions(text):
    """The functions defined in TEXT, in QEMU's style: the braces of a function are in column one."""
    found, after = [], 0
    for brace in re.finditer(r'^\{$', text, re.M):
        end = re.compile(r'^\}$', re.M).search(text, brace.start())
        head = text[after:brace.start()]
        # skip what is between the previous definition and this function
        start = max((m.end() for m in re.finditer(r'(^[^\n]*[;}/]|^#[^\n]*|^)\n', head, re.M)), default=0)
        name = re.search(r'(\w+)\(', head[start:])
        if name and end:
            found.append(Function(name[1], after + start, after + start + name.start(1), brace.start(), end.end()))
        after = end.end() if end else brace.end()
    return found


def integer(node):
    kind = node.get('type', {})
    return INTEGER.fullmatch(kind.get('desugaredQualType', kind.get('qualType', '')))


def line_at(text, offset):
    return text.count('\n', 0, offset) + 1


def matching(text, start):
    """The end of the parenthesis that opens at START."""
    depth = 0
    for found in re.compile(r'"(?:\\.|[^"\\])*"|[()]').finditer(text, start):
        depth += {'(': 1, ')': -1}.get(found[0], 0)
        if not depth:
            return found.end()
    return start


class Walk:
    """The faults of one function, from its syntax tree in clang."""

    def __init__(self, file, text, function, added):
        self.file, self.text, self.function, self.added = file, text, function, added
        self.found, self.top = {}, 0

    def offset(self, place):
        """(offset, length, whether it is the name of a macro) of one of clang's locations."""
        if 'expansionLoc' in place:
            if place['expansionLoc'].get('isMacroArgExpansion'):
                place = place['spellingLoc']
                return (place['offset'], place['tokLen'], False) if self.here(place) else None
            place = place['expansionLoc']
            return (place['offset'], place['tokLen'], True) if self.here(place) else None
        return (place['offset'], place['tokLen'], False) if 'offset' in place and self.here(place) else None

    def here(self, place):
        # code from another file is the body of a macro
        return 'includedFrom' not in place and self.function.start <= place['offset'] < self.function.end

    def span(self, node):
        """(start, end) of NODE in the text, or None; a macro includes its arguments."""
        places = node.get('range', {})
        begin, end = (self.offset(places.get(which, {})) for which in ('begin', 'end'))
        if not begin or not end:
            return None
        stop = end[0] + end[1]
        if end[2] and self.text[stop:stop + 1] == '(':
            stop = matching(self.text, stop)
        return (begin[0], stop) if begin[0] < stop else None

    def put(self, start, end, text):
        """Record the fault if it starts on a line that the series adds."""
        line, old = line_at(self.text, start), self.text[start:end]
        if line in self.added and old.split() != text.split():
            edit = Edit(self.file, line, start, end, old, text, self.function.name, self.top or line)
            self.found.setdefault((start, end, ' '.join(text.split())), edit)

    def replace(self, node, *texts):
        span = self.span(node)
        for text in texts if span else ():
            self.put(*span, text)

    def source(self, node):
        span = self.span(node)
        return self.text[slice(*span)] if span else ''

    def opaque(self, node):
        """Whether NODE comes from the body of a macro."""
        begin = node.get('range', {}).get('begin', {}).get('expansionLoc')
        return bool(begin) and not begin.get('isMacroArgExpansion')

    # The operators.

    def visit(self, node, statement=False, condition=False, constant=False):
        """Record the faults of NODE and of all nodes below it."""
        kind = node.get('kind')
        if statement:
            span = self.span(node)
            self.top = line_at(self.text, span[0]) if span else self.top
            self.drop(node)
        handler = getattr(self, f'on_{kind}', None)
        if kind in CASTS:
            for child in node.get('inner', ()):
                self.visit(child, condition=condition, constant=constant)
            return
        if self.opaque(node):
            # mutate the arguments of a macro, not its body
            if not statement and not condition and not constant and not self.arguments(node):
                self.constant(node)
            for child in node.get('inner', ()):
                self.visit(child)
            return
        if handler:
            handler(node, condition or statement)
        else:
            self.children(node)

    def arguments(self, node):
        return self.source(node).endswith(')')

    def children(self, node):
        for child in node.get('inner', ()):
            self.visit(child)

    def drop(self, node):
        """Drop a statement."""
        if node.get('kind') in NEVER_DROPPED or not self.span(node):
            return
        start, end = self.span(node)
        rest = re.compile(r'\s*;').match(self.text, end)
        self.put(start, rest.end() if rest else end, ';')

    def constant(self, node):
        """Change a number."""
        text = self.source(node)
        if not integer(node):
            return
        number = re.fullmatch(r'(0x[0-9a-fA-F]+|\d+)[uUlL]*', text)
        if text in ('true', 'false'):
            self.replace(node, {'true': 'false', 'false': 'true'}[text])
        elif number:
            self.replace(node, *(('0', f'({text} + 1)') if int(number[1], 0) else ('1',)))
        elif re.fullmatch('[A-Z][A-Z0-9_]+', text) and text != 'NULL':
            self.replace(node, f'({text} + 1)')

    def cond(self, node, fixed=('true', 'false')):
        """Make a condition always true and always false; negate it if only one of them is possible."""
        text = self.source(node)
        if text:
            self.replace(node, *fixed, *([f'!({text})'] if len(fixed) < 2 else []))
        self.visit(node, condition=True)

    def on_CompoundStmt(self, node, _):
        inner = node.get('inner', ())
        for child in inner:
            if child.get('kind') == 'ReturnStmt' and len(inner) > 1 and child is not inner[-1]:
                self.replace(child, '')
            self.visit(child, statement=True)

    def on_CaseStmt(self, node, _):
        *labels, last = node.get('inner', ())
        for child in labels:
            self.visit(child, constant=True)
        self.visit(last, statement=True)

    def on_DefaultStmt(self, node, _):
        for child in node.get('inner', ()):
            self.visit(child, statement=True)

    def on_IfStmt(self, node, _):
        condition, *branches = node['inner']
        self.cond(condition)
        for branch in branches:
            self.visit(branch, statement=True)

    def on_ConditionalOperator(self, node, _):
        condition, *values = node['inner']
        self.cond(condition)
        for value in values:
            self.visit(value)

    def on_WhileStmt(self, node, _):
        condition, body = node['inner'][-2:]
        # if the condition is always true, the loop may not end
        self.cond(condition, ('false',))
        self.visit(body, statement=True)

    def on_ForStmt(self, node, _):
        # init, declaration, condition, step, body; a missing one is {}
        first, _, condition, _, body = node['inner']
        self.visit(first)
        if condition:
            self.cond(condition, ('false',))
        self.visit(body, statement=True)

    def on_ReturnStmt(self, node, _):
        for value in node.get('inner', ()):
            if self.source(value) in ('true', 'false'):
                self.constant(value)
            elif value.get('type', {}).get('qualType') == '_Bool' or self.returns_bool():
                self.cond(value)
            else:
                if integer(value) and not re.fullmatch(r'-?\w+', self.source(value)):
                    self.replace(value, '0')
                self.visit(value)

    def returns_bool(self):
        return re.search(r'\bbool\b', self.text[self.function.start:self.function.at])

    def on_BinaryOperator(self, node, condition):
        (left, right), code = node['inner'], node['opcode']
        if code in ('&&', '||') and self.span(left) and self.span(right):
            self.replace(node, self.source(left), self.source(right))
        elif not (condition and code in ('==', '!=')):
            self.swap(node)
        for child in (left, right) if code != '=' else (right,):
            self.visit(child)

    def swap(self, node):
        """Change an operator that has two operands."""
        code, (left, right) = node['opcode'], map(self.span, node['inner'])
        between = self.text[left[1]:right[0]] if left and right else ''
        if code in SWAPPED and between.strip() == code:
            at = left[1] + between.index(code)
            self.put(at, at + len(code), SWAPPED[code])

    def on_CompoundAssignOperator(self, node, _):
        self.swap(node)
        self.visit(node['inner'][1])

    def on_UnaryOperator(self, node, condition):
        inner = node['inner'][0]
        if node['opcode'] in ('!', '~') and not condition and self.source(inner):
            self.replace(node, self.source(inner))
        self.visit(inner)

    def on_IntegerLiteral(self, node, _):
        self.constant(node)

    def on_DeclRefExpr(self, node, _):
        if node.get('referencedDecl', {}).get('kind') == 'EnumConstantDecl':
            self.constant(node)

    def on_CallExpr(self, node, condition):
        _, *given = node['inner']
        if not condition and integer(node):
            self.replace(node, '0')
        for one, other in zip(given, given[1:]):
            spans, kinds = (self.span(one), self.span(other)), [arg.get('type') for arg in (one, other)]
            if all(spans) and kinds[0] == kinds[1] and spans[0][1] < spans[1][0]:
                texts = [self.text[slice(*span)] for span in spans]
                self.put(spans[0][0], spans[1][1], texts[1] + self.text[spans[0][1]:spans[1][0]] + texts[0])
        for arg in given:
            self.visit(arg)


def tree(build, name, function):
    """clang's syntax tree of FUNCTION in file NAME for BUILD, or None if BUILD does not compile the function."""
    words, _ = commands(build)[name]
    options = [word for word in words[1 + (words[0] == 'ccache'):] if not word.startswith(GCC_ONLY)]
    done = subprocess.run(['clang', *CLANG[build], *options, '-w', '-fsyntax-only', '-Xclang', '-ast-dump=json',
                           '-Xclang', f'-ast-dump-filter={function}', SOURCE + name], cwd=bases.home() / build,
                          check=False, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if done.returncode:
        raise Error(f'clang does not compile {name}: {done.stderr.strip().splitlines()[0]}')
    decoder, at = json.JSONDecoder(), 0
    while (at := done.stdout.find('{', at)) >= 0:
        node, at = decoder.raw_decode(done.stdout, at)
        if node.get('name') == function and any(child.get('kind') == 'CompoundStmt' for child in node.get('inner', ())):
            return node
    return None


def early_return(walk, node):
    """Return at the start of a function that the series adds."""
    head = walk.text[walk.function.start:walk.function.at].replace('static', '').replace('inline', '').split()
    if line_at(walk.text, walk.function.at) not in walk.added:
        return
    returned = node['type']['qualType'].split('(')[0].strip()
    values = ('false', 'true') if head == ['bool'] else ('',) if returned == 'void' else \
        ('NULL',) if returned.endswith('*') else ('0',)
    brace = walk.function.body
    for value in values:
        text = f'{{ return {value};'.replace(' ;', ';')
        walk.found[brace, brace + 1, text] = Edit(walk.file, line_at(walk.text, walk.function.at), brace, brace + 1,
                                                  '{', text, walk.function.name)


def in_functions(build, name):
    """The faults in the functions of NAME in BUILD, and the parameters of each function."""
    text, added = (grafted().path / name).read_text(), added_lines()[name]
    found, parameters = [], {}
    for function in functions(text):
        if not added & set(range(line_at(text, function.start), line_at(text, function.end) + 1)):
            continue
        node = tree(build, name, function.name)
        if not node:
            continue
        walk = Walk(name, text, function, added)
        early_return(walk, node)
        for child in node['inner']:
            if child.get('kind') == 'CompoundStmt':
                walk.visit(child)
        found += walk.found.values()
        parameters[function.name] = [child['name'] for child in node['inner'] if child.get('kind') == 'ParmVarDecl']
    return found, parameters


def outside(name):
    """The faults in tables, macros and enumerations of NAME."""
    text, added = (grafted().path / name).read_text(), added_lines()[name]
    bodies = [range(function.start, function.end) for function in functions(text)]
    at = 0
    for number, line in enumerate(text.splitlines(keepends=True), 1):
        start, at = at, at + len(line)
        if number not in added or any(start in body for body in bodies):
            continue
        bare = line.strip()
        if re.fullmatch(r'\{.*\},|\.\w+ = .*,', bare):
            yield Edit(name, number, start, start + len(line) - 1, bare, '', None)
        if re.match(r'#define \w+\s+\S|\{.*\},$|\w+\s*=\s*\w+,', bare) or ' = {' in bare:
            code = re.sub(r'/\*.*|"[^"]*"', lambda text: ' ' * len(text[0]), line)
            for found in re.finditer(r'(?<![\w.])(?:0x[0-9a-fA-F]+|\d+)(?=(?:U|L|UL|ULL)?\b)', code):
                value = int(found[0], 0)
                where = (start + found.start(), start + found.end())
                other = hex(value + 1) if found[0][:2] == '0x' else str(value + 1)
                yield Edit(name, number, *where, found[0], other, None)


@functools.cache
def faults():
    """({build: {file: ([Edit in a function], {function: parameters})}}, [Edit outside of functions])"""
    with concurrent.futures.ThreadPoolExecutor(JOBS) as pool:
        inside = {build: dict(zip(commands(build), pool.map(functools.partial(in_functions, build), commands(build))))
                  for build in CLANG}
    return inside, [edit for name in added_lines() for edit in outside(name)]


def with_copies(text, edits, parameters):
    """TEXT with a copy of the function for each of EDITS, {number: Edit}; $MUTANT selects the copy that runs."""
    # osdep.h is always the first include
    pieces = {re.search(r'^#include "qemu/osdep.h"\n', text, re.M).end(): SELECT}
    for function in functions(text):
        own = {number: edit for number, edit in edits.items() if edit.function == function.name}
        if not own:
            continue
        head = text[function.start:function.body]
        void = re.search(r'\bvoid\s*$', text[function.start:function.at])
        passed = ', '.join(parameters[function.name])
        declared, calls, copies = [], [], []
        for number, edit in own.items():
            name = f'{function.name}__{number}'
            begin = head[:function.at - function.start] + name + head[function.at - function.start
                                                                      + len(function.name):]
            if not re.search(r'\bstatic\b', begin):
                begin = 'static ' + begin
            body = text[function.body:edit.start] + edit.text + text[edit.end:function.end]
            declared.append(begin.strip() + ';\n')
            copies.append(f'\n/* MUTANT {number} */\n{begin}{body}\n/* END */\n')
            call = f'{name}({passed})'
            calls.append(f'case {number}: {call}; return;' if void else f'case {number}: return {call};')
        pieces[function.start] = ''.join(declared)
        pieces[function.body + 1] = '\nswitch (mutant) {\n' + '\n'.join(calls) + '\ndefault: break;\n}\n'
        pieces[function.end] = ''.join(copies)
    out, at = [], 0
    for place in sorted(pieces):
        out += [text[at:place], pieces[place]]
        at = place
    return ''.join([*out, text[at:]])
