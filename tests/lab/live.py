# SPDX-License-Identifier: GPL-2.0-or-later
"""Progress on one line of a terminal."""

import shutil
import sys
import threading
import time


class Live:
    """Shows the current activity, and the seconds until it began, on one line of a terminal."""

    def __init__(self):
        self.started, self.shown, self.writing = time.monotonic(), '', threading.Lock()
        self('preparing')

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._write('')

    def __call__(self, text):
        line = f'{text} {time.monotonic() - self.started:.0f} s'
        with self.writing:
            self.shown = line[:shutil.get_terminal_size().columns - 1]
            self._write(self.shown)

    def print(self, text):
        """Print a line on standard output, which is not overwritten."""
        with self.writing:
            self._write('')
            print(text, flush=True)
            self._write(self.shown)

    @staticmethod
    def _write(text):
        if sys.stderr.isatty():
            print(f'\r\033[K{text}', end='', file=sys.stderr, flush=True)
