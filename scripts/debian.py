#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Packages of any Debian suite and architecture, unpacked beside the machine.

apt does the work, with lists, cache and status of its own under build/apt, so
that the machine's own package state is neither read nor changed.  The mirror
is the one that the machine's apt configuration names; apt checks every
signature on the way.
"""

import argparse
import configparser
import contextlib
import errno
import fcntl
import functools
import os
import pathlib
import shutil
import subprocess
import sys
import time

TOP = pathlib.Path(__file__).resolve().parent.parent
BUILD = TOP / 'build'
KEYRING = '/usr/share/keyrings/debian-archive-keyring.gpg'
DAY = 24 * 60 * 60
# A mirror that is being brought up to date can have a suite whole under one of its names only
OTHER_NAMES = {'bookworm': 'oldstable', 'trixie': 'stable', 'sid': 'unstable'}
# Mounts and processes end with the script, even where it gets no chance to end them
ALONE = ['setpriv', '--pdeathsig', 'KILL', '--',
         'unshare', '--mount', '--pid', '--fork', '--kill-child', '--mount-proc']


class Error(Exception):
    """What failed and what to do about it, in one sentence."""


@contextlib.contextmanager
def locked(name, busy=None):
    """Hold build/NAME.lock: one process at a time makes what NAME stands for.

    BUSY is said where another process has it.
    """
    BUILD.mkdir(exist_ok=True)
    with open(BUILD / f'{name}.lock', 'w') as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if busy:
                say(busy)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock


@contextlib.contextmanager
def scratch(place):
    """PLACE, an empty folder for as long as it is needed; what a killed run left there goes first."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def write_whole(path, text):
    """PATH has TEXT, or what it had before."""
    half = path.with_name(f'{path.name}.part')
    half.write_text(text)
    half.rename(path)


class Parser(argparse.ArgumentParser):
    """One line for a mistake, exit code 2."""

    def error(self, message):
        self.exit(2, f'{self.prog}: {message}\n')


def takes_nothing(doc):
    """End a script that has no arguments where it is given one: with its DOC."""
    if sys.argv[1:]:
        print(doc)
        sys.exit(0 if sys.argv[1:] in (['-h'], ['--help']) else 2)


def say(text):
    clear = '\r\033[K' if sys.stderr.isatty() else ''
    print(clear + text, file=sys.stderr, flush=True)


def run(command, **kwargs):
    """Run COMMAND quietly; its own last words become the error."""
    try:
        # "lab here" runs on Python 3.6, too: text=True has its old name there
        return subprocess.run(command, check=True, universal_newlines=True, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, **kwargs).stdout
    except FileNotFoundError:
        raise Error(f'{command[0]} is not installed: run ./configure, which names '
                    'or installs what is missing') from None
    except subprocess.CalledProcessError as e:
        words = [line for line in (e.stderr or e.stdout).splitlines() if line.strip()]
        errors = [line for line in words if line.startswith(('E:', 'error:', 'fatal:'))]
        raise Error('; '.join(errors or words[-3:]) or f'{command[0]} failed') from None


def culprit(lines, usual):
    """The one of LINES that says that the disk is full, which others follow; else USUAL."""
    return next((line for line in lines if line.endswith('No space left on device')), usual)


def read_stanzas(path, keys):
    """{name: {key: value}} of the stanzas in PATH, which have KEYS and no others."""
    config = configparser.ConfigParser(interpolation=None, delimiters=['='], comment_prefixes=['#'])
    try:
        config.read_string(path.read_text(), str(path.relative_to(TOP)))
    except configparser.Error as e:
        raise Error(' '.join(str(e).split())) from None
    for name in config.sections():
        if sorted(config[name]) != sorted(keys):
            raise Error(f'{path.relative_to(TOP)}: [{name}] has {", ".join(config[name])}: it has to have '
                        f'{", ".join(keys)}')
    return {name: dict(config[name]) for name in config.sections()}


def reason(error):
    """What ERROR says and what to do; an OSError says only half of it."""
    if not isinstance(error, OSError):
        return str(error)
    about = f'{error.filename}: {error.strerror}' if error.filename else error.strerror
    advice = 'free some space on the disk of build/, then' if error.errno == errno.ENOSPC else 'fix that, then'
    return f'{about}: {advice} run this again'


def compare_versions(a, b):
    """-1, 0 or 1, as Debian orders versions."""
    return next(number for number, relation in ((0, 'eq'), (1, 'gt'), (-1, 'lt'))
                if subprocess.run(['dpkg', '--compare-versions', a, relation, b], check=False).returncode == 0)


def mirror():
    """The address of Debian's main archive on this machine."""
    targets = run(['apt-get', 'indextargets', '--format', '$(REPO_URI)', 'Created-By: Packages',
                   'Component: main', 'Origin: Debian', 'Label: Debian'])
    for uri in targets.splitlines():
        return uri
    raise Error("this machine's apt configuration names no Debian mirror, or apt has no lists "
                'yet: add one to /etc/apt/sources.list.d and run apt-get update')


class Suite:
    """One suite for one architecture, as apt sees it."""

    def __init__(self, name, arch):
        self.name, self.arch = name, arch
        self.home = BUILD / 'apt' / f'{name}-{arch}'
        self.updated = self.home / 'updated'

    def apt(self, tool, *args, cwd=None):
        home = self.home
        options = {
            'Dir::Etc::sourcelist': home / 'sources.list', 'Dir::Etc::sourceparts': '/dev/null',
            'Dir::State::lists': home / 'lists', 'Dir::State::status': home / 'status',
            'Dir::Cache': home / 'cache', 'Dir::Etc::preferencesparts': '/dev/null',
            'APT::Architecture': self.arch, 'APT::Architectures': self.arch,
            'APT::Install-Recommends': '0', 'APT::Sandbox::User': 'root',
            'Acquire::Languages': 'none', 'Acquire::Retries': '3',
            'APT::Get::Assume-Yes': '1', 'APT::Get::List-Cleanup': '0', 'Debug::NoLocking': '1',
        }
        return run([tool, *(f'-o{key}={value}' for key, value in options.items()), *args], cwd=cwd)

    def update(self):
        """Fetch the suite's lists anew."""
        with locked(f'lists-{self.home.name}'):
            self._update()

    def ready(self):
        """Fetch the lists where they never were."""
        with locked(f'lists-{self.home.name}'):
            if not self.updated.exists():
                self._update()

    def refresh(self):
        """Fetch the lists once a day; where the mirror cannot be read, those that are there do for one more."""
        with locked(f'lists-{self.home.name}'):
            if not self.updated.exists():
                self._update()
            elif self.updated.stat().st_mtime < time.time() - DAY:
                try:
                    self._update()
                except Error as e:
                    say(f'going on with the lists that are there: {e}')
                    self.updated.touch()

    def _update(self):
        say(f'{self.name} {self.arch}: package lists')
        for part in ('lists/partial', 'cache/archives/partial'):
            (self.home / part).mkdir(parents=True, exist_ok=True)
        (self.home / 'status').touch()
        sources = self.home / 'sources.list'
        before = sources.read_text() if sources.exists() else ''
        try:
            self._fetch_lists(self.name)
        except Error as e:
            try:
                self._fetch_lists(OTHER_NAMES[self.name])
                self._check_codename()
            except (Error, KeyError):
                # the lists that were read before are still there, and good
                write_whole(sources, before)
                raise Error(f'cannot read the package lists of {self.name} ({e}): check the network and '
                            "this machine's apt configuration, then run this again") from None
        self.updated.touch()

    def _fetch_lists(self, name):
        """The lists of this suite from where the mirror has it as NAME."""
        write_whole(self.home / 'sources.list', ''.join(
            f'{kind} [signed-by={KEYRING}] {mirror()} {name} main\n' for kind in ('deb', 'deb-src')))
        self.apt('apt-get', 'update', '--error-on=any')

    def _check_codename(self):
        """The other name of a suite goes to the next one with a release of Debian."""
        codenames = set(self.apt('apt-get', 'indextargets', '--format', '$(CODENAME)').split())
        if codenames != {self.name}:
            raise Error(f'the lists are those of {", ".join(codenames)}')

    def fresh(self, fetch):
        """FETCH(); where the mirror has moved on since the lists were read, once more."""
        self.ready()
        try:
            return fetch()
        except Error:
            self.update()
            return fetch()

    def version(self, package):
        """The candidate version of PACKAGE, or None."""
        self.ready()
        for line in self.apt('apt-cache', 'policy', package).splitlines():
            if line.startswith('  Candidate: '):
                return None if line.endswith('(none)') else line.split()[1]
        return None

    def depends(self, package):
        """What PACKAGE itself depends on, alternatives left out."""
        self.ready()
        lines = self.apt('apt-cache', 'depends', '--important', package).splitlines()
        return [line.split()[-1] for line in lines if line.strip().startswith('Depends:')]

    def source_versions(self, package):
        """The versions of source PACKAGE that the suite lists, newest first."""
        text = self.apt('apt-cache', 'showsrc', '--only-source', package)
        found = {line.split()[1] for line in text.splitlines() if line.startswith('Version: ')}
        if not found:
            raise Error(f'{self.name} lists no source package {package}')
        return sorted(found, key=functools.cmp_to_key(compare_versions), reverse=True)

    def source(self, package, where):
        """Download the newest source of PACKAGE that the mirror serves to WHERE; returns the .dsc.

        A mirror can list a version before it has it, and lists older ones, too.
        """
        def fetch():
            why = None
            for version in self.source_versions(package):
                try:
                    self.apt('apt-get', 'source', '--download-only', f'{package}={version}', cwd=where)
                    return next(pathlib.Path(where).glob('*.dsc'))
                except Error as e:
                    why = e
                    say(f'{self.name}: cannot get {package} {version}, which the mirror lists')
                    for part in pathlib.Path(where).glob(f'{package}_*'):
                        part.unlink()
            raise Error(f'cannot get the source of {package} for {self.name} ({why}): see to the network and the disk, '
                        'or try again later')
        return self.fresh(fetch)

    def debs(self, packages, closure=True):
        """Download PACKAGES, with all that they depend on unless told otherwise.

        Returns the files, which the caller removes.
        """
        self.ready()
        archives = self.home / ('cache/archives' if closure else 'single')
        shutil.rmtree(archives, ignore_errors=True)
        archives.mkdir(parents=True)

        def fetch():
            if closure:
                self.apt('apt-get', 'install', '--download-only', *packages)
            else:
                self.apt('apt-get', 'download', *packages, cwd=archives)
        self.fresh(fetch)
        return sorted(archives.glob('*.deb'))

    def root(self, where, packages, closure=True, skip=()):
        """Unpack PACKAGES to WHERE, which stands complete or not at all.

        SKIP: package names that nothing here runs (interpreters, init).
        """
        where = pathlib.Path(where)
        wanted = ' '.join(sorted(packages)) + '\n'
        stamp = where / '.packages'
        if stamp.exists() and stamp.read_text() == wanted:
            return where
        with locked(where.name), locked(f'packages-{self.home.name}'):
            if stamp.exists() and stamp.read_text() == wanted:
                return where
            half = where.with_name(where.name + '.part')
            shutil.rmtree(half, ignore_errors=True)
            for part in ('bin', 'sbin', 'lib', 'lib64'):
                (half / 'usr' / part).mkdir(parents=True)
                (half / part).symlink_to(f'usr/{part}')
            debs = self.debs(packages, closure)
            say(f'{self.name} {self.arch}: unpacking {len(debs)} packages for {where.name}')
            for deb in debs:
                if deb.name.split('_')[0] not in skip:
                    unpack(deb, half)
                deb.unlink()
            make_relative(half)
            (half / '.packages').write_text(wanted)
            shutil.rmtree(where, ignore_errors=True)
            half.rename(where)
        return where


def unpack(deb, where):
    """Unpack one package's files over WHERE, keeping merged-/usr links."""
    with subprocess.Popen(['dpkg-deb', '--fsys-tarfile', deb], stdout=subprocess.PIPE) as files:
        tar = subprocess.run(['tar', '-x', '--keep-directory-symlink', '--no-same-owner', '-C', where],
                             stdin=files.stdout, stderr=subprocess.PIPE, text=True, check=False)
    if tar.returncode or files.returncode:
        # the last line only says that there was an error
        words = tar.stderr.strip().splitlines() or ['dpkg-deb failed']
        raise Error(f'cannot unpack {deb.name} into {where.name} ({culprit(words, words[0])}): '
                    'see to the disk, then run this again')


def make_relative(root):
    """Turn absolute links below ROOT into relative ones: nothing is chrooted here."""
    for folder, dirs, files in os.walk(root):
        for name in dirs + files:
            link = pathlib.Path(folder, name)
            if link.is_symlink() and os.path.isabs(os.readlink(link)):
                target = str(root) + os.readlink(link)
                link.unlink()
                link.symlink_to(os.path.relpath(target, folder))
