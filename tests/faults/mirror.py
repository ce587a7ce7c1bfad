# Copyright (c) 2026 QEMU contributors
# SPDX-License-Identifier: GPL-2.0-or-later
"""A proxy between apt and the mirror that fails on request."""

import contextlib
import http.server
import os
import re
import tempfile
import threading
import urllib.error
import urllib.request

from lib.system import run

PIECE = 1 << 16


def upstream():
    """An opener that reaches the mirror through apt's proxy, else the environment's."""
    found = re.search(r'^Acquire::http::Proxy "(.+)";', run(['apt-config', 'dump']), re.M)
    return urllib.request.build_opener(urllib.request.ProxyHandler({'http': found[1]} if found else None))


class Copying:
    """A file that is copied as it is read."""

    def __init__(self, file, copy):
        self.file, self.copy = file, copy

    def read(self, size):
        data = self.file.read(size)
        self.copy.write(data)
        return data


class Answer(http.server.BaseHTTPRequestHandler):
    """Answers a request for one file of the mirror."""
    protocol_version = 'HTTP/1.1'
    close_connection = False

    def log_message(self, *_):    # pylint: disable=arguments-differ
        pass

    def do_GET(self):    # pylint: disable=invalid-name
        mirror = self.server
        mirror.listed.update(re.findall(r'/dists/(trixie|stable)/', self.path))
        if mirror.ahead.is_set() and mirror.pattern.search(self.path) and len(mirror.listed) < 2:
            mirror.held.set()
            self.send_error(404)
            return
        try:
            with mirror.opened(self.path) as (file, size):
                self.answer(file, size, bool(mirror.pattern.search(self.path)))
        except urllib.error.HTTPError as e:
            self.send_error(e.code)
        except OSError:
            # apt or the mirror closed its connection
            self.close_connection = True

    def answer(self, file, size, chosen):
        mirror, sent = self.server, 0
        if chosen and mirror.halves.is_set():
            # apt may disconnect when it reads the length
            mirror.held.set()
            size //= 2
        self.send_response(200)
        self.send_header('Content-Length', size)
        self.end_headers()
        while sent < size and not mirror.stopped.is_set():
            sent += self.wfile.write(file.read(min(PIECE, size - sent)))
            if chosen and sent >= size // 2 and not mirror.held.is_set():
                self.wfile.flush()
                mirror.held.set()
                mirror.go.wait()
        if mirror.stopped.is_set():
            # send nothing more, but keep the connection open
            mirror.restored.wait()
            self.close_connection = True


class Mirror(http.server.ThreadingHTTPServer):
    """Keep files in CACHE; after half of a file that matches PATTERN, set held and wait for go."""
    daemon_threads = True

    def __init__(self, cache, pattern):
        super().__init__(('127.0.0.1', 0), Answer)
        self.cache, self.pattern, self.opener = cache, re.compile(pattern), upstream()
        self.held, self.go, self.stopped, self.halves, self.ahead, self.restored = (threading.Event() for _ in range(6))
        # if AHEAD is set, a file that matches is missing until the lists were read under both names of the suite
        self.listed = set()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, *_):    # pylint: disable=arguments-differ
        """Ignore errors: a test may have killed apt."""

    @contextlib.contextmanager
    def opened(self, address):
        """(the file at ADDRESS, its size)"""
        place = self.cache / re.sub(r'[^\w.+~-]+', '_', address)
        if place.exists():
            with open(place, 'rb') as file:
                yield file, place.stat().st_size
            return
        with self.opener.open(address) as theirs, tempfile.NamedTemporaryFile(dir=self.cache) as copy:
            size = int(theirs.headers['Content-Length'])
            yield Copying(theirs, copy), size
            copy.flush()
            if copy.tell() == size and not place.exists():
                os.link(copy.name, place)

    def restore(self):
        """Work normally from now on."""
        self.halves.clear()
        self.stopped.clear()
        self.ahead.clear()
        for event in (self.held, self.go, self.restored):
            event.set()


def apt_options(port, mirror, timeout):
    """The text of APT_CONFIG that makes apt fetch from MIRROR through the proxy at PORT."""
    host = re.match('http://([^/:]+)', mirror)[1]
    return f'Acquire::http::Proxy::{host} "http://127.0.0.1:{port}/";\nAcquire::http::Timeout "{timeout}";\n' \
           'Acquire::Retries::Delay "false";\n'
