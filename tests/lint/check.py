# SPDX-License-Identifier: GPL-2.0-or-later
"""Run linters and strict compilers on all files of this repository.  Prints TAP.

setup.cfg and clang-tidy in this directory list what they ignore, and why.
"""

import concurrent.futures
import functools
import json
import os
import re
import shlex

from scripts.lib.command import Parser, main
from scripts.lib.system import TOP, Error, run, tried
from scripts.queue import bases
from scripts.queue.git import BASE_REF, Tree
from tests.relink import GCC_ONLY, JOBS, SOURCE
from tests.tap import Skip, point, report

CROSS_GCC = 'powerpc64le-linux-gnu-gcc'
SETUP = 'tests/lint/setup.cfg'

PYTHON = re.compile(rb'#!.*\bpython3?\b')
SHELL = re.compile(rb'#!.*/(ba|da)?sh\b')

LICENSE = 'SPDX-License-Identifier: GPL-2.0-or-later'
# It must be in the first lines of a file
HEAD = 16

# {rule: (pattern of what breaks it, where to look, what to do instead)}
RULES = {
    'scripts/ imports nothing of tests/': (r'^ *(from|import) +tests\b', 'scripts',
                                           'start it as a program instead: python3 -m tests.NAME'),
    'Python finds its modules': (r'sys\.path(\[.*\]|\.[a-z]+\(| *\+?= *)', '.',
                                 'import from the top: scripts.ROOM.NAME or tests.ROOM.NAME'),
}

STRICT = ('-Wall', '-Wextra', '-Werror')
# callbacks have unused parameters
CALLBACKS = ['-Wno-unused-parameter']
# QEMU's configure chose warnings for gcc
NOT_GCC = ['-Wno-unknown-warning-option']

CPPCHECK = ['cppcheck', '--quiet', '--error-exitcode=1', '--enable=warning,portability,performance', '--std=c11',
            '--platform=unix64', '--library=posix,gtk', '--inline-suppr', '--force',
            # cppcheck rejects register variables; readdir_r() is deprecated
            '-D__asm__(text)=', '--suppress=readdirCalled', '--suppress=normalCheckLevelMaxBranches']

# {tool: its options} for POWER in both byte orders
LITTLE = {CROSS_GCC: [], 'clang': ['--target=powerpc64le-linux-gnu'], 'clang-tidy': ['--target=powerpc64le-linux-gnu']}
BIG = {CROSS_GCC: ['-mbig'], 'clang': ['--target=powerpc64-linux-gnu'], 'clang-tidy': ['--target=powerpc64-linux-gnu']}
# Our own C: sources, tools, options for all
ALONE = (
    (('tests/kvmsim/*.c', 'tests/lab/*.c'), LITTLE, ['-std=gnu11', '-O2', '-fPIC', *CALLBACKS]),
    (('tests/hcall/*.c',), BIG,
     ['-std=gnu11', '-O1', '-mcpu=power8', '-mno-altivec', '-mno-vsx', '-ffreestanding', '-fno-pic']),
)
# {QEMU's build: the tools for its files}; clang-tidy's findings in QEMU's own code are out of scope
IN_QEMU = {'kvm': {CROSS_GCC: [], 'clang': ['--target=powerpc64le-linux-gnu']}, 'tcg': {'gcc': [], 'clang': []}}


def ours(*patterns):
    """Our tracked files that match git's PATTERNS."""
    return [name for name in Tree(TOP).git('ls-files', '--', *patterns).splitlines() if (TOP / name).is_file()]


def scripts(shebang, *suffixes):
    """Our tracked files that begin with SHEBANG or end in one of SUFFIXES."""
    return [name for name in ours() if name.endswith(suffixes) or shebang.match((TOP / name).read_bytes()[:80])]


def check_licenses():
    """Check that every file names its license, as QEMU requires."""
    lost = [name for name in ours() if name != 'LICENSE'
            and LICENSE not in '\n'.join((TOP / name).read_text().splitlines()[:HEAD])]
    if lost:
        raise Error(f'{", ".join(lost)}: no line "{LICENSE}"')


def check_maintainers():
    """Check that MAINTAINERS covers every file in a folder, and names no missing file."""
    patterns = re.findall(r'^F: (.*)', (TOP / 'MAINTAINERS').read_text(), re.M)
    lost = [f'MAINTAINERS names {pattern}, which does not exist' for pattern in patterns if not ours(pattern)]
    lost += [f'MAINTAINERS does not name {name}' for name in sorted({*ours('*/*')} - {*ours(*patterns)})]
    if lost:
        raise Error('\n'.join(lost))


def check_rule(pattern, where, instead):
    done = Tree(TOP).git('grep', '-nE', pattern, '--', where, check=False)
    # 0 means that something was found, and more than 1 that git failed
    if done.returncode != 1:
        raise Error(f'{done.stdout}{instead}' if done.stdout else done.stderr)


def check_language():
    """Check that the programs of a command speak English to a German user."""
    command = "from scripts.lib import command, system; command.main(lambda: print(system.run(['sh', '-c', {!r}])))"
    said = run(['/usr/bin/python3', '-c', command.format('echo "${LANGUAGE:-$LC_ALL}"')], cwd=TOP,
               env={**os.environ, 'LC_ALL': 'de_DE.UTF-8', 'LANGUAGE': 'de'}).strip()
    if said != 'C.UTF-8':
        raise Error(f'they speak {said}')


def passes(command, cwd=TOP):
    """Check that COMMAND finds nothing; its findings become the error."""
    done = tried(command, cwd=cwd)
    if done.returncode:
        raise Error((done.stdout + done.stderr).strip() or f'{command[0]} exits with {done.returncode}')


def compiling(tool, options, source, strict=STRICT):
    if tool == 'clang-tidy':
        return [tool, '--quiet', f'--config-file={TOP}/tests/lint/clang-tidy', source, '--', *options]
    return [tool, '-c', '-o', '/dev/null', *strict, *options, source]


@functools.cache
def qemu_options(build):
    """{source: gcc's options} of the configured QEMU, for the 64-bit target."""
    found = {}
    for entry in json.loads((build / 'compile_commands.json').read_text()):
        if 'libqemu-ppc-softmmu' not in entry['output']:
            options = shlex.split(entry['command'].removeprefix('ccache '))[1:]
            found[entry['file']] = options[:options.index('-MD')]
    return found


def check_in_qemu(build, tool, own, name):
    """Check NAME with TOOL as BUILD compiles it; for QEMU's own files, only with QEMU's warnings."""
    options = [option for option in qemu_options(build)[SOURCE + name]
               if tool.endswith('gcc') or not option.startswith(GCC_ONLY)]
    passes(compiling(tool, [*options, *NOT_GCC, *own], SOURCE + name, STRICT[-1:]), build)


def check_built(names):
    """Check that one of QEMU's builds compiles each of NAMES."""
    lost = [name for name in names if not any(SOURCE + name in qemu_options(bases.home() / build) for build in IN_QEMU)]
    if lost:
        raise Error(f'QEMU does not build {", ".join(lost)}: add it to the meson.build in its directory, in series/')


def not_configured():
    raise Skip('no QEMU is configured: run make kvm tcg')


def checks_in_qemu():
    """The checks for the files that the series adds to QEMU or changes."""
    if not all((bases.home() / build / 'compile_commands.json').exists() for build in IN_QEMU):
        yield 'in QEMU', not_configured
        return
    names = Tree(bases.home() / 'src').git('diff', '--name-only', BASE_REF, 'HEAD', '--', '*.c').split()
    yield f'in QEMU: {len(names)} files are built', check_built, names
    for build, tools in IN_QEMU.items():
        place = bases.home() / build
        for name in (name for name in names if SOURCE + name in qemu_options(place)):
            for tool, own in tools.items():
                yield f'{tool}, in QEMU ({build}): {name}', check_in_qemu, place, tool, own, name


def checks(only):
    """(what is checked, function, its arguments...) for all files, or for those in ONLY"""
    def wanted(names):
        return [name for name in names if not only or name in only]
    shell, python = scripts(SHELL, '.sh'), scripts(PYTHON, '.py')
    yield 'licenses', check_licenses
    yield 'MAINTAINERS', check_maintainers
    for rule, row in RULES.items():
        yield rule, check_rule, *row
    yield 'the language of programs', check_language
    # for pylint, which imports what the files import
    os.environ['PYTHONPATH'] = str(TOP)
    for words, names in ((['shellcheck'], shell), (['flake8', f'--config={SETUP}'], python),
                         (['pylint', f'--rcfile={SETUP}'], python), (['codespell', f'--config={SETUP}'], ours()),
                         (CPPCHECK, ours('*.c'))):
        sources = wanted(names)
        if sources:
            yield f'{words[0]}: {len(sources)} files', passes, [*words, *sources]
    for patterns, tools, options in ALONE:
        for source in wanted(ours(*patterns)):
            for tool, own in tools.items():
                yield f'{tool}: {source}', passes, compiling(tool, [*own, *options], source)
    if not only:
        yield from checks_in_qemu()


def check():
    parser = Parser(description=__doc__)
    parser.add_argument('files', nargs='*', metavar='FILE', help='check only these files, and not QEMU')
    only = parser.parse_args().files
    for lost in {*only} - {*ours()}:
        parser.error(f'{lost} is not a file that git tracks')
    with concurrent.futures.ThreadPoolExecutor(JOBS) as pool:
        return report(pool.map(lambda row: point(*row), checks(only)))['failed'] > 0


if __name__ == '__main__':
    main(check)
