# SPDX-License-Identifier: GPL-2.0-or-later
"""Variants of a build of QEMU: only the C files of the series are compiled again, with other options."""

import concurrent.futures
import functools
import json
import os
import pathlib
import re
import shlex
import sys

from scripts.debian import binaries, roots
from scripts.debian.builds import in_build
from scripts.debian.suite import Suite, host_suite
from scripts.lib.command import main
from scripts.lib.system import TOP, Error, tried
from scripts.queue import bases
from scripts.queue.git import BASE_REF, Tree

SOURCE = '../src/'
TARGET = 'qemu-system-ppc64'
# Options that QEMU's configure passes to gcc, and that some versions of clang lack
GCC_ONLY = ('-fzero-call-used-regs', '-ftrivial-auto-var-init')
JOBS = 2


def grafted():
    return Tree(bases.home() / 'src')


@functools.cache
def added_lines():
    """{C file or header: the numbers of the lines that the series adds to it}, without tests."""
    found, name = {}, None
    diff = grafted().git('diff', '-U0', '--no-renames', BASE_REF, '--', '*.c', '*.h', ':!tests')
    for line in diff.splitlines():
        if line.startswith('+++ '):
            name = line[6:]
        elif line.startswith('@@ '):
            start, count = re.search(r' \+(\d+)(?:,(\d+))? @@', line).groups()
            found.setdefault(name, set()).update(range(int(start), int(start) + int(count or 1)))
    return found


@functools.cache
def link_words(build):
    place = bases.home() / build
    done = tried(['ninja', '-C', place, '-t', 'compdb', '-x', 'c_LINKER_RSP', 'c_LINKER'],
                 env=dict(os.environ, PYTHONPATH=roots.meson_path()))
    for entry in json.loads(done.stdout) if not done.returncode else ():
        if entry['output'] == TARGET:
            return shlex.split(entry['command'])
    raise Error(f'{place.relative_to(TOP)} has no command that links {TARGET}: remove it, then run this again')


@functools.cache
def commands(build):
    """{C file of the series: (the command that compiles it in BUILD, its object)}, without files that BUILD lacks."""
    place, linked = bases.home() / build, link_words(build)
    found = {}
    for entry in json.loads((place / 'compile_commands.json').read_text()):
        name = entry['file'].removeprefix(SOURCE)
        if name in added_lines() and entry['output'] in linked:
            words = shlex.split(entry['command'])
            found[name] = (words[:words.index('-MD')], entry['output'])
    return found


def compile_one(build, overlay, name, flags, out):
    """Compile NAME as BUILD does, plus FLAGS; files in OVERLAY replace QEMU's.  Return (BUILD's object, ours)."""
    words, output = commands(build)[name]
    place, folder = bases.home() / build, str(pathlib.Path(name).parent)
    source = overlay / name
    source.parent.mkdir(parents=True, exist_ok=True)
    if not source.exists():
        source.symlink_to(place / SOURCE / name)
    # gcc looks for "..." includes beside the file, which is in the overlay: name QEMU's directories, too
    beside = [word for root in (overlay, place / SOURCE) for sub in (folder, '.', 'include')
              for word in ('-iquote', str(root / sub))]
    headers = ['-isystem', str(overlay / 'linux-headers')]
    built = out / pathlib.Path(output).name
    first = 1 + (words[0] == 'ccache')
    in_build([*words[:first], *beside, *headers, *words[first:], *flags, '-c', str(source), '-o', str(built)], place)
    return output, built


def relink(build, out, overlay, flags=(), names=None, link_flags=()):
    """Build BUILD's QEMU in OUT, with only NAMES (None: all) of the series compiled again; return its path."""
    place = bases.home() / build
    out.mkdir(parents=True, exist_ok=True)
    if (overlay / 'linux-headers/asm-powerpc').exists() and not (overlay / 'linux-headers/asm').exists():
        # as QEMU's configure does for a ppc host
        (overlay / 'linux-headers/asm').symlink_to('asm-powerpc')
    names = [name for name in commands(build) if names is None or name in names]
    with concurrent.futures.ThreadPoolExecutor(JOBS) as pool:
        objects = dict(pool.map(lambda name: compile_one(build, overlay, name, flags, out), names))
    words = [str(objects.get(word, word)) for word in link_words(build)]
    words[words.index('-o') + 1] = str(out / TARGET)
    in_build([*words, *link_flags], place)
    return out / TARGET


def sanitized(name):
    """Build NAME, a variant of kvm in which undefined behavior of the series' C code ends QEMU."""
    made = bases.home() / name / TARGET
    with binaries.building(made.parent):
        if made.exists() and made.stat().st_mtime > (bases.home() / 'kvm' / TARGET).stat().st_mtime:
            return
        # only gcc's libubsan needs the C++ runtime
        runtime = Suite(host_suite(), 'ppc64el').root('libstdc++', ['libstdc++6'], closure=False)
        library = runtime / 'usr/lib/powerpc64le-linux-gnu'
        relink('kvm', made.parent, made.parent / 'src', ['-fsanitize=undefined'],
               link_flags=['-fsanitize=undefined', f'-Wl,-rpath-link={library}'])


if __name__ == '__main__':
    main(lambda: sanitized(sys.argv[1]))
