# SPDX-License-Identifier: GPL-2.0-or-later
"""Test the tarball of "make host-kit" on an emulated POWER host that has only Python and QEMU.

The QEMU in the kit is the one to test, and Debian's is the one to compare it
with.  Prints TAP.
"""

import gzip
import itertools
import json
import subprocess
import sys

from scripts.debian.kernels import FLAVORS
from scripts.debian.suite import Suite
from scripts.lib.command import Parser, main
from scripts.lib.system import TOP, Error, run, tried, write_whole
from tests.lab import here, images, stack
from tests.lab.commands import APIS
from tests.lab.options import Run
from tests.tap import Point, report

# Debian 12's, the oldest that runs the kit
PYTHON = 'python3.11'
PYTHON_PACKAGES = [f'{PYTHON}-minimal', f'lib{PYTHON}-minimal', f'lib{PYTHON}-stdlib', 'libc6', 'libexpat1',
                   'liblzma5', 'zlib1g']
# Only the extensions that the kit imports
EXTENSIONS = ('_json', '_lzma')
# Less than that of the test in tests/meson.build
TIMEOUT = 1500
# It prints at the end, when no guest can mix kernel messages into the output.  SLOF takes half a minute.
COMMAND = 'busybox ln -s vmlinuz /boot/vmlinuz-$(busybox uname -r); busybox tar xzf /kit.tar.gz -C /tmp; cd /tmp; ' \
          './host-kit/scripts/lab here --qemu host-kit/qemu/qemu-system-ppc64 --other /usr/bin/qemu-system-ppc64 ' \
          '{} --json >out 2>err; status=$?; echo; sed "s/^/here: /" out err; echo "lab: here $status"'
HOST = {'machine': 'CHRP IBM pSeries (emulated by qemu)', 'pvr': '0x00821200', 'cpu_version': '0x0f000006',
        'mode': 'power10', 'kvm_type': 'HV', 'compat_caps': '0x6000000000000000'}
TOOK = {'host-compat-modes': ['power9', 'power10'], 'host-compat-source': 'kvm', 'max-cpu-compat': 'power10'}
# (options, exit status) of calls that cannot test anything
REFUSED = (('', 2), ('--qemu /nowhere', 2), ('--qemu /bin/sh --kernel /', 2), ('--qemu /bin/sh --do reboot', 2),
           ('--qemu /bin/sh', 1))
# (options of the guest or its next step, expected outcome with our QEMU, with Debian's)
ROWS = (
    ('-cpu host', 'booted:power10', 'kvm-run-failed'),
    *((f'then {step}', f'{step}:power10', None) for step in ('reboot', 'savevm', 'migrate', 'hotplug')),
    *((f'max-cpu-compat={mode}', f'booted:{mode}', f'booted:{mode}') for mode in ('power10', 'power9')),
    ('max-cpu-compat=power11', 'refused', 'refused'),
    ('-cpu power10', 'booted:power10', 'refused'),
)


def python():
    """Python for L1: {path in the archive: path here}"""
    root = Suite('bookworm', 'ppc64el').root('python-ppc64el', PYTHON_PACKAGES, closure=False)
    library, binary = root / f'usr/lib/{PYTHON}', root / f'usr/bin/{PYTHON}'
    extensions = [path for name in EXTENSIONS for path in library.glob(f'lib-dynload/{name}.*')]
    found = {f'usr/lib/{name}': path for name, path in images.libraries(root, binary, *extensions).items()}
    found.update({str(path.relative_to(root)): path for path in (*library.rglob('*.py'), *extensions)})
    return {**found, 'usr/bin/python3': binary, 'lib64/ld64.so.2': found['usr/lib/ld64.so.2']}


def l1_initrd(_, kernel, qemu):
    """An L1 that has QEMU, Python and the kit."""
    packed = kernel.home / 'vmlinuz'
    if not packed.exists():
        write_whole(packed, gzip.compress(kernel.vmlinux.read_bytes(), 1))
    kit = TOP / run([sys.executable, '-m', 'tests.lab.kit', '--qemu'], cwd=TOP).strip()
    return images.image(f'here-{kernel.home.name}', {
        **python(), **images.host_files(kernel, qemu), 'boot/vmlinuz': packed, 'kit.tar.gz': kit})


def refused(words):
    """The exit status of "lab here" on this machine, which has no POWER KVM; None unless it prints just one line."""
    done = tried([TOP / 'scripts/lab', 'here', *words.split()], stderr=subprocess.STDOUT)
    return done.returncode if done.stdout.startswith('scripts/lab: ') and done.stdout.count('\n') == 1 else None


def measure(api, pages, slof):
    """(exit status, what it printed in L1)"""
    config, said = Run(compat='power10', qemu='distro', api=api, pages=pages, timeout=TIMEOUT), []
    with stack.Stack(config, lambda stage: None, [], l1_initrd, '2G') as lab:
        try:
            stack.boot_l1(lab)
            lab.send('l1', COMMAND.format('' if slof else '--l2-machine x-vof=on'))
            while True:
                name, text = lab.next_line()
                if name == 'l1' and text.startswith('here: '):
                    said.append(text.partition(' ')[2])
                elif name == 'l1' and text.startswith('lab: here '):
                    return int(text.split()[-1]), said
        except stack.Timeout:
            raise Error(f'L1 did not finish in {TIMEOUT} seconds: check the load of this machine') from None


def differ(found, wanted):
    return ', '.join(f'{key} is {found.get(key)}, expected {value}' for key, value in wanted.items()
                     if found.get(key) != value)


def points(api, pages, slof):
    """(what is checked, what is wrong)"""
    for words, status in REFUSED:
        found = refused(words)
        yield f'lab here {words}', '' if found == status else f'exit status {found}, expected {status}'
    status, said = measure(api, pages, slof)
    try:
        result = json.loads(said[0])
    except (IndexError, ValueError):
        yield 'the kit runs in L1', ' / '.join(said) or 'it prints nothing'
        return
    lines = list(here.mail(result))
    print(''.join(f'# {line}\n' for line in lines), end='', flush=True)
    yield 'all results are as expected, and the exit status is 0', '' if result['right'] and status == 0 else \
        f'the exit status is {status}'
    yield 'the host', differ(result['host'], {**HOST, 'api': api, 'pages': {'4k': 4096, '64k': 65536}[pages]})
    yield 'what our QEMU derives from the host', differ(result['qemus']['qemu']['took'], TOOK)
    yield "Debian's QEMU derives nothing", differ(result['qemus']['other']['took'], {'host-compat-source': None})
    rows = [(row['options'], row['qemu']['outcome'], row['other']['outcome']) for row in result['rows']]
    for found, wanted in itertools.zip_longest(rows, ROWS):
        yield (wanted or found)[0], '' if found == wanted else f'found {found}, expected {wanted}'
    # a name, or a long word such as an option of QEMU, cannot be wrapped
    wide = [line for line in lines if len(line) > here.WIDTH and ' ' in line.strip()
            and not line.startswith('Tested-by')]
    yield 'the lines fit into a mail', ' / '.join(wide)


def check():
    parser = Parser(description=__doc__)
    parser.add_argument('--api', choices=[*APIS], default='v2', help='version of the nested API, v2 by default')
    parser.add_argument('--pages', choices=[*FLAVORS], default='4k', help="page size of L1's kernel")
    parser.add_argument('--slof', action='store_true', help='boot the guests with SLOF instead of VOF')
    args = parser.parse_args()
    return report(Point(*one) for one in points(args.api, args.pages, args.slof))['failed'] > 0


if __name__ == '__main__':
    main(check)
