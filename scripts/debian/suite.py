# SPDX-License-Identifier: GPL-2.0-or-later
"""Packages of any Debian suite and architecture, unpacked below build/.

apt does the work, with separate lists, cache and status in build/apt, so that the machine's package state is neither
read nor changed.  The mirror is the one in the machine's apt configuration, and apt checks every signature.
"""

import contextlib
import functools
import os
import pathlib
import shutil
import subprocess
import time

from scripts.lib.system import BUILD, Error, culprit, hold, locked, run, say, unused, write_whole

SIGNATURES = 'signed-by=/usr/share/keyrings/debian-archive-keyring.gpg'
HOUR = 60 * 60
DAY = 24 * HOUR
# While a mirror is being updated, a suite can be complete under only one of its names: trixie may be the new point
# release, of which files are missing, and stable the previous one
OTHER_NAMES = {'bookworm': 'oldstable', 'trixie': 'stable', 'sid': 'unstable'}
# The roots that this process uses
roots = set()


def compare_versions(a, b):
    """-1, 0 or 1, in Debian's order of versions."""
    return next(number for number, relation in ((0, 'eq'), (1, 'gt'), (-1, 'lt'))
                if subprocess.run(['dpkg', '--compare-versions', a, relation, b], check=False).returncode == 0)


def newest_first(versions):
    return sorted(versions, key=functools.cmp_to_key(compare_versions), reverse=True)


def host_suite():
    """This machine's Debian release; a sysroot must come from it, because the cross compiler's libc does."""
    for line in pathlib.Path('/etc/os-release').read_text().splitlines():
        if line.startswith('VERSION_CODENAME='):
            return line.split('=')[1].strip('"')
    raise Error('/etc/os-release has no VERSION_CODENAME: run this on Debian 12 or 13')


def mirror():
    """The address of Debian's main archive on this machine."""
    targets = run(['apt-get', 'indextargets', '--format', '$(REPO_URI)', 'Created-By: Packages',
                   'Component: main', 'Origin: Debian', 'Label: Debian'])
    for uri in targets.splitlines():
        return uri
    raise Error("this machine's apt configuration names no Debian mirror, or apt has no lists "
                'yet: add one to /etc/apt/sources.list.d and run apt-get update')


class Suite:
    """One suite for one architecture, with its own state of apt."""

    def __init__(self, name, arch):
        self.name, self.arch = name, arch
        self.home = BUILD / 'apt' / f'{name}-{arch}'
        self.updated = self.home / 'updated'
        # why the lists could not be read
        self.failed = self.home / 'failed'

    def apt(self, tool, *args, cwd=None):
        home = self.home
        options = {
            'Dir::Etc::sourcelist': home / 'sources.list', 'Dir::Etc::sourceparts': '/dev/null',
            'Dir::State::lists': home / 'lists', 'Dir::State::status': home / 'status', 'Dir::Cache': home / 'cache',
            'Dir::Etc::preferencesparts': '/dev/null', 'APT::Architecture': self.arch, 'APT::Architectures': self.arch,
            'APT::Install-Recommends': '0', 'APT::Get::List-Cleanup': '0', 'APT::Sandbox::User': 'root',
            'APT::Get::Assume-Yes': '1', 'Acquire::Languages': 'none', 'Acquire::Retries': '3', 'Debug::NoLocking': '1',
        }
        return run([tool, *(f'-o{key}={value}' for key, value in options.items()), *args], cwd=cwd)

    def update(self):
        with locked(f'lists-{self.home.name}'):
            self._update()

    def rename(self):
        """Fetch the lists that the mirror has under the suite's other name; keep those in use if it has none."""
        with locked(f'lists-{self.home.name}'), contextlib.suppress(Error):
            self._update(self._names()[1:])

    def ready(self):
        """Fetch the lists if there are none yet."""
        with locked(f'lists-{self.home.name}'):
            if not self.updated.exists():
                self._update()

    def refresh(self):
        """Fetch the lists once a day; if the mirror cannot be read, use the old lists for another day."""
        with locked(f'lists-{self.home.name}'):
            if not self.updated.exists():
                # without old lists, the next hour's calls fail at once
                if self.failed.exists() and self.failed.stat().st_mtime > time.time() - HOUR:
                    raise Error(self.failed.read_text())
                self._update()
            elif self.updated.stat().st_mtime < time.time() - DAY:
                try:
                    self._update()
                except Error as e:
                    say(f'continuing with the package lists of an earlier run: {e}')
                    self.updated.touch()

    def _names(self):
        """The names of the suite, the one in use first."""
        names = [name for name in (self.name, OTHER_NAMES.get(self.name)) if name]
        return sorted(names, key=lambda name: f' {name} ' not in self._sources())

    def _sources(self):
        sources = self.home / 'sources.list'
        return sources.read_text() if sources.exists() else ''

    def _update(self, names=()):
        """Fetch the lists under one of NAMES, or else of all names of the suite; the first that works is kept."""
        say(f'{self.name} {self.arch}: package lists')
        for part in ('lists/partial', 'cache/archives/partial'):
            (self.home / part).mkdir(parents=True, exist_ok=True)
        (self.home / 'status').touch()
        before, why = self._sources(), None
        for name in names or self._names():
            try:
                self._fetch_lists(name)
                self.updated.touch()
                return
            except Error as e:
                why = why or e
        # the previous lists are still there and valid
        write_whole(self.home / 'sources.list', before)
        error = f"cannot read the package lists of {self.name} ({why}): check the network and this machine's apt " \
                'configuration, then run this again'
        self.failed.write_text(error)
        raise Error(error)

    def _fetch_lists(self, name):
        """Fetch the lists of this suite, which the mirror has under NAME."""
        write_whole(self.home / 'sources.list', ''.join(
            f'{kind} [{SIGNATURES}] {mirror()} {name} main\n' for kind in ('deb', 'deb-src')))
        self.apt('apt-get', 'update', '--error-on=any')
        if name != self.name:
            # a release of Debian moves the other name to the next suite
            codenames = set(self.apt('apt-get', 'indextargets', '--format', '$(CODENAME)').split())
            if codenames != {self.name}:
                raise Error(f'the lists are those of {", ".join(codenames)}')

    def fresh(self, fetch):
        """FETCH(); if it fails, try again with new lists, and then with those under the suite's other name."""
        for prepare in (self.ready, self.update, self.rename)[:1 + len(self._names())]:
            prepare()
            try:
                return fetch()
            except Error as e:
                why = e
        raise why

    def versions(self, *packages):
        """{package: its candidate version}, without those that the suite lacks."""
        found = {}
        for line in self.apt('apt-cache', 'policy', *packages).splitlines():
            word, _, value = line.strip().partition(' ')
            if not line.startswith(' '):
                package = word.rstrip(':')
            elif word == 'Candidate:' and value != '(none)':
                found[package] = value
        return found

    def depends(self, package):
        """The direct dependencies of PACKAGE, without alternatives."""
        lines = self.apt('apt-cache', 'depends', '--important', package).splitlines()
        return [line.split()[-1] for line in lines if line.strip().startswith('Depends:')]

    def source_versions(self, package):
        """The versions of source PACKAGE that the suite lists, newest first."""
        text = self.apt('apt-cache', 'showsrc', '--only-source', package)
        found = {line.split()[1] for line in text.splitlines() if line.startswith('Version: ')}
        if not found:
            raise Error(f'{self.name} lists no source package {package}')
        return newest_first(found)

    def source(self, package, where):
        """Download to WHERE the newest source of PACKAGE that the mirror serves, and return the .dsc."""
        def fetch():
            why = None
            # a mirror can list a version before it has the files, and it also lists older versions
            for version in self.source_versions(package):
                try:
                    self.apt('apt-get', 'source', '--download-only', f'{package}={version}', cwd=where)
                    return next(pathlib.Path(where).glob('*.dsc'))
                except Error as e:
                    why = e
                    say(f'{self.name}: cannot get {package} {version}, which the mirror lists')
                    for part in pathlib.Path(where).glob(f'{package}_*'):
                        part.unlink()
            raise Error(f'cannot get the source of {package} for {self.name} ({why}): check the network and the disk, '
                        'or try again later')
        return self.fresh(fetch)

    def debs(self, packages, closure=True):
        """Download what PACKAGES() names, with dependencies if CLOSURE; return the files, which the caller removes."""
        archives = self.home / ('cache/archives' if closure else 'single')

        def fetch():
            # another version of a package may be there from a fetch that failed
            shutil.rmtree(archives, ignore_errors=True)
            archives.mkdir(parents=True)
            # with new lists, names with a version in them change
            if closure:
                self.apt('apt-get', 'install', '--download-only', *packages())
            else:
                self.apt('apt-get', 'download', *packages(), cwd=archives)
        self.fresh(fetch)
        return sorted(archives.glob('*.deb'))

    def unpack(self, where, packages, closure=True, skip=()):
        """Unpack the packages that PACKAGES() names to the new directory WHERE, without those in SKIP."""
        for part in ('bin', 'sbin', 'lib', 'lib64'):
            (where / 'usr' / part).mkdir(parents=True)
            (where / part).symlink_to(f'usr/{part}')
        with locked(f'packages-{self.home.name}'):
            debs = self.debs(packages, closure)
            say(f'{self.name} {self.arch}: unpacking {len(debs)} packages for {where.stem}')
            for deb in debs:
                if deb.name.split('_')[0] not in skip:
                    unpack(deb, where)
                deb.unlink()
        make_relative(where)

    def contents(self, packages):
        """What a root with PACKAGES says of itself: the suite, and each package with its version."""
        found = self.versions(*packages)
        lost = ', '.join({*packages} - {*found})
        if lost:
            raise Error(f'{self.name} has no {lost} for {self.arch}: choose another suite')
        return ''.join([f'{self.name} {self.arch}\n', *(f'{name} {found[name]}\n' for name in sorted(found))])

    def root(self, name, packages, closure=True, skip=()):
        """Unpack PACKAGES to the root NAME, which is either complete or does not exist, and return its path.

        It lacks SKIP, which nothing here runs.  It is made again for newer PACKAGES, unless a process uses it.
        """
        where = BUILD / 'roots' / name
        with locked(name):
            if where not in roots:
                self._renew(where, packages, closure, skip)
                hold(where / '.packages')
                roots.add(where)
        return where

    def _renew(self, where, packages, closure, skip):
        stamp = where / '.packages'
        there = stamp.read_text() if stamp.exists() else ''
        head, *lines = there.splitlines() or ['']
        usable = head == f'{self.name} {self.arch}' and [line.split()[0] for line in lines] == sorted(packages)
        try:
            self.refresh()
            if usable and stamp.stat().st_mtime >= self.updated.stat().st_mtime:
                return
            if not usable or self.contents(packages) != there:
                with unused(stamp) if there else contextlib.nullcontext(True) as free:
                    if not free:
                        raise Error(f'another run uses {where.name}: run this again when that has ended')
                    self._make(where, packages, closure, skip)
        except Error as e:
            if not usable:
                raise
            say(f'continuing with {where.name} as it is: {e}')
        # asking apt takes a second: once for each new list
        stamp.touch()

    def _make(self, where, packages, closure, skip):
        half = where.with_name(where.name + '.part')
        shutil.rmtree(half, ignore_errors=True)
        self.unpack(half, lambda: packages, closure, skip)
        (half / '.packages').write_text(self.contents(packages))
        shutil.rmtree(where, ignore_errors=True)
        half.rename(where)


def unpack(deb, where):
    """Unpack the files of one package into WHERE, and keep its merged-/usr links."""
    with subprocess.Popen(['dpkg-deb', '--fsys-tarfile', deb], stdout=subprocess.PIPE) as files:
        tar = subprocess.run(['tar', '-x', '--keep-directory-symlink', '--no-same-owner', '-C', where],
                             stdin=files.stdout, stderr=subprocess.PIPE, text=True, check=False)
    if tar.returncode or files.returncode:
        # the last line only says that there was an error
        words = tar.stderr.strip().splitlines() or ['dpkg-deb failed']
        raise Error(f'cannot unpack {deb.name} into {where.name} ({culprit(words, words[0])}): '
                    'check the disk, then run this again')


def make_relative(root):
    """Make absolute links below ROOT relative, because programs run from ROOT without chroot."""
    for folder, dirs, files in os.walk(root):
        for name in dirs + files:
            link = pathlib.Path(folder, name)
            if link.is_symlink() and os.path.isabs(os.readlink(link)):
                target = str(root) + os.readlink(link)
                link.unlink()
                link.symlink_to(os.path.relpath(target, folder))
