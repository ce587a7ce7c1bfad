# SPDX-License-Identifier: GPL-2.0-or-later
"""Check scripts/debian with a mirror of a few made-up packages, served on loopback.  Prints TAP."""

import contextlib
import fcntl
import functools
import gzip
import hashlib
import http.server
import lzma
import os
import pathlib
import shutil
import tempfile
import threading
from unittest import mock

from scripts.debian import kernels, suite
from scripts.lib import system
from scripts.lib.command import main, no_options
from scripts.lib.system import Error, run
from tests.lab import images
from tests.tap import point, report

ARCH = 'ppc64el'
IMAGE = 'linux-image-powerpc64le'


class Server(http.server.SimpleHTTPRequestHandler):
    """Serves files, and remembers what was asked for."""
    asked = []

    def send_head(self):
        self.asked.append(pathlib.Path(self.path).name)
        # lists change several times a second here
        del self.headers['If-Modified-Since']
        return super().send_head()

    def log_message(self, *_):
        pass


class Mirror:
    """A mirror below FOLDER, whose suites are what publish() makes them."""

    def __init__(self, folder):
        self.folder = folder
        self.server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(Server, directory=folder))
        self.url = f'http://127.0.0.1:{self.server.server_address[1]}'
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def package(self, name, version, files=(), depends=''):
        """Build a package; return its stanza in the lists."""
        deb = self.folder / f'{name}_{version}_{ARCH}.deb'
        control = f'Package: {name}\nVersion: {version}\nArchitecture: {ARCH}\nMaintainer: nobody <n@example.org>\n' \
                  f'Description: made up\n' + (f'Depends: {depends}\n' if depends else '')
        with tempfile.TemporaryDirectory() as place:
            for path, data in {'DEBIAN/control': control.encode(), f'usr/share/{name}': version.encode(),
                               **dict(files)}.items():
                full = pathlib.Path(place, path)
                full.parent.mkdir(parents=True, exist_ok=True)
                full.write_bytes(data)
            os.chmod(f'{place}', 0o755)
            run(['dpkg-deb', '--root-owner-group', '-Znone', '--build', place, str(deb)])
        data = deb.read_bytes()
        return f'{control}Filename: {deb.name}\nSize: {len(data)}\nSHA256: {hashlib.sha256(data).hexdigest()}\n'

    def publish(self, name, *stanzas):
        """Make STANZAS the packages of the suite NAME."""
        lists = {f'main/binary-{ARCH}/Packages': '\n'.join(stanzas), 'main/source/Sources': ''}
        sums = ''
        for path, text in lists.items():
            full = self.folder / 'dists' / name / path
            full.parent.mkdir(parents=True, exist_ok=True)
            full.write_text(text)
            sums += f' {hashlib.sha256(text.encode()).hexdigest()} {len(text.encode())} {path}\n'
        (self.folder / 'dists' / name / 'Release').write_text(
            f'Codename: {name}\nDate: Mon, 30 Nov 2026 00:00:00 UTC\nArchitectures: {ARCH}\nComponents: main\n'
            f'SHA256:\n{sums}')

    def kernel(self, name, version, ending='.ko', pack=bytes):
        """Publish a kernel in the suite NAME, whose modules have this ENDING."""
        own, program = f'linux-image-{version.replace("~", "")}-powerpc64le', self.folder / 'empty'
        run([f'{kernels.CROSS}gcc', '-xc', '-c', '-o', str(program), '/dev/null'])
        modules = {f'usr/lib/modules/x/kernel/{module}{ending}': pack(module.encode()) for module in kernels.MODULES}
        self.publish(name, self.package(IMAGE, version, depends=own),
                     self.package(own, version, {'boot/vmlinux': program.read_bytes(), **modules}))
        return self.folder / f'{own}_{version}_{ARCH}.deb'


def as_new_process(days=1):
    """Forget what a process remembers, and let the lists be DAYS older."""
    while system.held:
        system.held.pop().close()
    suite.roots.clear()
    kernels.newest_kernel.cache_clear()
    for stamp in suite.BUILD.glob('apt/*/*'):
        if stamp.name in ('updated', 'failed'):
            when = stamp.stat().st_mtime - days * suite.DAY - 1
            os.utime(stamp, (when, when))


def expect(found, wanted):
    if found != wanted:
        raise Error(f'found {found}, expected {wanted}')


def order(mirror, said):
    """Releases with the interface come first; a suite without the package, or without lists, is passed over."""
    for name, version in (('trixie', '6.12.1-1'), ('trixie-backports', '7.3.4-1~bpo13+1'),
                          ('experimental', '7.4~rc1-1')):
        mirror.kernel(name, version)
    mirror.publish('sid')
    expect([name for name, _ in kernels.by_interface(IMAGE)], ['trixie-backports', 'experimental', 'trixie'])
    expect([line for line in said if line.startswith('passing over')],
           [f'passing over sid: sid has no {IMAGE} for {ARCH} on this mirror: choose another suite'])
    as_new_process()
    mirror.publish('trixie-backports', mirror.package('tool', '1.0'))
    for place in (mirror.folder / 'dists/sid', suite.BUILD / f'apt/sid-{ARCH}'):
        shutil.rmtree(place)
    said.clear()
    expect([name for name, _ in kernels.by_interface(IMAGE)], ['experimental', 'trixie'])
    expect([line.partition(' (')[0] for line in said if 'sid: ' in line and line.startswith('passing')],
           ['passing over sid: cannot read the package lists of sid'])


def missing_file(mirror, said):
    """A kernel that is listed but missing is passed over in one line, after one try with each of the lists."""
    mirror.kernel('trixie', '6.12.1-1')
    deb = mirror.kernel('experimental', '7.4-1')
    deb.unlink()
    Server.asked.clear()
    expect(kernels.newest_kernel('newest', '4k').home.name, 'trixie-4k-6.12.1-1')
    expect(Server.asked.count(deb.name), 2)
    expect(len([line for line in said if line.startswith('passing over experimental')]), 1)


def endings(mirror, _):
    """Modules are read whatever they are compressed with, or named."""
    for version, ending, pack in (('1-1', '.ko', bytes), ('2-1', '.ko.xz', lzma.compress),
                                  ('3-1', '.ko.gz', gzip.compress)):
        as_new_process()
        mirror.kernel('trixie', version, ending, pack)
        expect((kernels.newest_kernel('trixie', '4k').home / 'kvm-hv.ko').read_bytes(), b'kvm-hv')
    as_new_process()
    mirror.kernel('sid', '4-1', '.ko.zst')
    try:
        kernels.newest_kernel('sid', '4k')
    except Error as e:
        expect('.ko.zst, which this cannot read' in str(e), True)
    else:
        raise Error('a module that ends in .zst was accepted')


def renewed(mirror, said):
    """A root is made again when its suite has something newer, but not while another process uses it."""
    where = suite.BUILD / 'roots/root'

    def root(name='trixie'):
        as_new_process()
        path = suite.Suite(name, ARCH).root('root', ['tool'])
        return (path / 'usr/share/tool').read_text(), (path / '.packages').read_text()
    for version in ('1.0', '2.0'):
        mirror.publish('trixie', mirror.package('tool', version))
        expect(root(), (version, f'trixie {ARCH}\ntool {version}\n'))
    mirror.publish('trixie', mirror.package('tool', '3.0'))
    with open(where / '.packages', 'rb') as other:
        fcntl.flock(other, fcntl.LOCK_SH)
        expect(root()[0], '2.0')
        expect(any('another run uses root' in line for line in said), True)
    mirror.publish('trixie', mirror.package('tool', '4.0'))
    expect(root()[0], '4.0')
    # the mirror is between two states
    mirror.publish('trixie', mirror.package('tool', '5.0'))
    (mirror.folder / f'tool_5.0_{ARCH}.deb').unlink()
    expect(root()[0], '4.0')
    # the machine was upgraded
    mirror.publish('sid', mirror.package('tool', '1.0'))
    expect(root('sid'), ('1.0', f'sid {ARCH}\ntool 1.0\n'))


def images_in_use(mirror, _):
    """An image that a process uses is not removed by another that makes a newer one."""
    source = mirror.folder / 'init'

    def image(text):
        as_new_process()
        source.write_text(text)
        return images.image('l1-x', {'init': source})
    first = image('a')
    with open(first, 'rb') as other:
        fcntl.flock(other, fcntl.LOCK_SH)
        second = image('ab')
        expect((first.exists(), second.exists()), (True, True))
    third = image('abc')
    expect((first.exists(), second.exists(), third.exists()), (False, False, True))


def check_one(check):
    """Run CHECK with a build directory and a mirror of its own."""
    said = []
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as patches:
        mirror, build = Mirror(pathlib.Path(folder, 'mirror')), pathlib.Path(folder, 'build')
        mirror.folder.mkdir()
        for module, names in ((suite, {'BUILD': build, 'SIGNATURES': 'trusted=yes', 'mirror': lambda: mirror.url}),
                              (system, {'BUILD': build}), (kernels, {'KERNELS': build / 'kernels',
                                                                     'IMAGES': build / 'images'}),
                              (images, {'IMAGES': build / 'images'})):
            patches.enter_context(mock.patch.multiple(module, **names))
        for module in (suite, kernels, images):
            patches.enter_context(mock.patch.object(module, 'say', said.append))
        patches.enter_context(mock.patch.dict(os.environ, {'no_proxy': '127.0.0.1'}))
        (build / 'images').mkdir(parents=True)
        try:
            as_new_process()
            check(mirror, said)
        finally:
            as_new_process()
            mirror.server.shutdown()


def checks():
    no_options(__doc__)
    tests = (order, missing_file, endings, renewed, images_in_use)
    return report(point(check.__doc__, check_one, check) for check in tests)['failed'] > 0


if __name__ == '__main__':
    main(checks)
