"""The kinds of stores over which one suite runs, and how one of them dies in the middle of a write."""

import contextlib
import time
from functools import partial
from unittest import mock

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
    die = mock.Mock(side_effect=crash)
    if where == "slot":
        patches = [
            mock.patch.object(files.SideCar, "write_slot", die),
            mock.patch("tus.stores.memory.ledger.count", die),
            mock.patch("tus.stores.memory.ledger.append", die),
        ]
    else:
        patches = [
            mock.patch.multiple(files.os, pwrite=die, pwritev=die),
            mock.patch.object(_Session, "write", die),
            mock.patch.object(MemoryStore, "append", die),
        ]
    with contextlib.ExitStack() as stack:
        for patch in patches:
            stack.enter_context(patch)
        yield
