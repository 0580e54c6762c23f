"""Bytes that come in a pipe instead of memory: :class:`tus.stores.interface.Pours`."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import cast

import pytest

from tus.errors import UploadReplaced
from tus.filesystem.pipes import Pipe
from tus.models import State, Upload
from tus.stores.interface import PouringSession, Pours, Store
from tus.testing.base import Base


class Pouring(Base):
    """The tests of pouring; they skip a store without this capability, and systems that cannot splice."""

    @pytest.fixture
    def pours(self, store: Store) -> Pours:
        """Return the store, if it has this capability."""
        pipe = Pipe.open()
        if pipe is None or not isinstance(store, Pours):
            pytest.skip("this store takes bytes from memory, or the system cannot splice")
        pipe.close()
        return store

    def test_poured_bytes_are_stored_and_counted(self, store: Store, pours: Pours) -> None:
        upload = store.create(Upload(length=9))
        assert pours.can_pour(upload)
        with store.open(upload, 0) as opened, _pipe_with(b"cd", head=b"ab") as pipe:
            session = cast(PouringSession, opened)
            session.pour(pipe, is_last=False)
            assert not len(pipe)
            session.write(b"ef")
            assert session.commit().offset == 6
        with store.open(upload := store.load(upload.id), 6) as opened, _pipe_with(b"ghi") as pipe:
            session = cast(PouringSession, opened)
            session.pour(pipe, is_last=True)
            assert session.commit().state == State.COMPLETE
        assert self.read(store, upload) == b"abcdefghi"

    @pytest.mark.parametrize("is_last", [False, True])
    def test_a_replaced_session_pours_nothing(self, store: Store, pours: Pours, is_last: bool) -> None:
        upload = store.create(Upload(length=6))
        with store.open(upload, 0) as old, _pipe_with(b"old") as pipe, store.open(upload, 0) as new:
            new.write(b"new")
            with pytest.raises(UploadReplaced):
                cast(PouringSession, old).pour(pipe, is_last)
            assert new.commit().offset == 3
            new.write(b"new")
        assert self.read(store, store.load(upload.id)) == b"newnew"

    def test_digests_need_to_see_the_bytes(self, store: Store, pours: Pours) -> None:
        assert not pours.can_pour(store.create(Upload(length=3, hashes=("sha256",))))


@contextmanager
def _pipe_with(data: bytes, head: bytes = b"") -> Iterator[Pipe]:
    """Yield a pipe with these bytes, and others before them that are in memory."""
    pipe = Pipe.open()
    assert pipe is not None, "there was one before"
    sender, receiver = socket.socketpair()
    with closing(pipe), sender, receiver:
        sender.sendall(data)
        pipe.fill(receiver.fileno(), len(data))
        pipe.prepend(head)
        yield pipe
