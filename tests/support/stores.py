"""The kinds of stores over which one suite runs, and how one of them dies in the middle of a write."""

import contextlib
import os
import threading
import time
from functools import partial
from unittest import mock

from tus.stores import ledger
from tus.stores.directory import record as files
from tus.stores.memory import MemoryStore, _Session


def _directory(directory, **lifetimes):
    return {"tmp_file_dir": directory}


def _memory(directory, how, **lifetimes):
    return {"store": MemoryStore(clock=lambda: time.time(), **how, **lifetimes)}


#: What says to a Filter where its uploads are: the options for a store of each kind, given a directory and lifetimes.
KINDS = {
    "directory": staticmethod(_directory),
    "memory": staticmethod(partial(_memory, how={})),
    "late": staticmethod(partial(_memory, how={"counts": "late", "lease": 15})),
    "leased": staticmethod(partial(_memory, how={"lease": 15})),
}


@contextlib.contextmanager
def dying(where, crash):
    """Die before the data is written, or before it is counted, whatever the kind of store."""

    def instead_of(function):
        def die(*arguments, **others):
            if threading.current_thread().name in ("tus-sweeper", "tus-backlog"):  # which other tests have left
                return function(*arguments, **others)
            raise crash()

        return die

    if where == "slot":
        dies = [(files.SideCar, "change"), (ledger, "count"), (ledger, "append")]
    else:
        dies = [(os, "pwrite"), (os, "pwritev"), (_Session, "write"), (MemoryStore, "append")]
    with contextlib.ExitStack() as stack:
        for owner, name in dies:
            stack.enter_context(mock.patch.object(owner, name, instead_of(getattr(owner, name))))
        yield
