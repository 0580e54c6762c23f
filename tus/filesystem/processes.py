"""The process that runs. A forked child shares the locks of its parent, and must not end what the parent holds."""

from __future__ import annotations

import os


class Process:
    """A process. To compare two of them costs no system call, unlike ``os.getpid()``."""


#: The process that runs this code; a child gets another one. A fork by code in C must tell Python, as uWSGI does.
current = Process()


def _begin() -> None:
    global current
    current = Process()


os.register_at_fork(after_in_child=_begin)
