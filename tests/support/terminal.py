"""A command in a pseudo-terminal, whose screen is rendered as text."""

import contextlib
import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import termios
import threading
import time

import pyte

from tests.support.waiting import GUARD

COLUMNS, LINES = 120, 24


class Terminal:
    """A command whose stdout and stderr are a terminal.

    Attributes:
        frames: each state of the screen, as a list of lines without blanks at their ends.
        process: the command.
    """

    def __init__(self, arguments, environment, columns=COLUMNS, **how):
        self.frames = []
        self._screen = pyte.Screen(columns, LINES)
        self._stream = pyte.ByteStream(self._screen)
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, columns, 0, 0))
        environment = {"TERM": "xterm-256color"} | environment
        self.process = subprocess.Popen(
            arguments,
            **{"stdin": theirs, "stdout": theirs} | how,
            stderr=theirs,
            env=environment,
            start_new_session=True,
        )
        os.close(theirs)
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self):
        while True:
            try:
                data = os.read(self._ours, 65536)
            except OSError:  # the other end is closed
                return
            if not data:
                return
            self._stream.feed(data)
            self.frames.append([line.rstrip() for line in self._screen.display if line.strip()])

    @property
    def screen(self):
        return self.frames[-1] if self.frames else []

    @property
    def has_cursor(self):
        return not self._screen.cursor.hidden

    def seen(self, *patterns):
        """Whether some line, at some time, had all of these regular expressions."""
        return any(all(re.search(p, line) for p in patterns) for frame in list(self.frames) for line in frame)

    def wait_for(self, *patterns):
        deadline = time.monotonic() + GUARD
        while not self.seen(*patterns):
            assert time.monotonic() < deadline and self.process.poll() is None, self.screen
            time.sleep(0.02)

    def press_ctrl_c(self):
        os.killpg(self.process.pid, signal.SIGINT)

    def wait(self):
        status = self.process.wait(GUARD)
        self._thread.join(GUARD)
        return status

    def close(self):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self._thread.join(GUARD)
        os.close(self._ours)


@contextlib.contextmanager
def terminal(arguments, environment, **how):
    running = Terminal(arguments, environment, **how)
    try:
        yield running
    finally:
        running.close()
