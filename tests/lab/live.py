# Copyright (c) 2026 QEMU contributors
# SPDX-License-Identifier: GPL-2.0-or-later
"""Progress on one line of a terminal."""

import shutil
import sys
import threading
import time


class Live:
    """Shows the current activity and the seconds since the start, on one line of a terminal."""

    def __init__(self):
        self.text, self.started = 'preparing', time.monotonic()
        self.ended, self.writing = threading.Event(), threading.Lock()
        self.on = sys.stderr.isatty()
        self.ticker = threading.Thread(target=self._tick, daemon=True)

    def __enter__(self):
        if self.on:
            self.ticker.start()
        return self

    def __exit__(self, *_):
        if self.on:
            self.ended.set()
            self.ticker.join()

    def __call__(self, text):
        self.text = text
        self._draw()

    def print(self, text):
        """Print a line on standard output, which is not overwritten."""
        with self.writing:
            self._write('')
            print(text, flush=True)
        self._draw()

    def _tick(self):
        self._draw()
        while not self.ended.wait(1):
            self._draw()
        with self.writing:
            self._write('')

    def _draw(self):
        line = f'{self.text} {time.monotonic() - self.started:.0f} s'
        with self.writing:
            if not self.ended.is_set():
                self._write(line[:shutil.get_terminal_size().columns - 1])

    def _write(self, text):
        if self.on:
            print(f'\r\033[K{text}', end='', file=sys.stderr, flush=True)
