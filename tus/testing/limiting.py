"""Limits: :class:`tus.stores.interface.Limited`."""

from __future__ import annotations

import pytest

from tus.errors import QuotaExceeded, StorageFull, TooLarge, TooManyUploads
from tus.models import State, Upload
from tus.stores.interface import Concatenates, Expires, Limits, Store
from tus.testing.base import Base, Clock


class Limiting(Base):
    """The tests of limits on the number and size of uploads."""

    @pytest.fixture
    def limited(self, clock: Clock) -> Store:
        """Return a store that takes three uploads and 100 bytes, of one principal two uploads and 60 bytes."""
        if not self.has_limits:
            pytest.skip("this store has no limits")
        limits = Limits(uploads=3, size=100, uploads_each=2, size_each=60)
        return self.make_store(limits=limits, lifetime=100, completed_keep=50, rejected_keep=30, clock=clock)

    def room(self, store: Store) -> int:
        """Return how many bytes an upload without a principal may still have."""
        upload = store.create(Upload())
        try:
            with store.open(upload, 0) as session:
                try:
                    session.write(bytes(200))
                    session.keep()
                except StorageFull:
                    pass
                return session.keep().offset
        finally:
            store.remove(upload.id)

    def test_uploads_of_one_principal_and_of_all(self, limited: Store) -> None:
        ann = limited.create(Upload(length=1, principal="ann"))
        limited.create(Upload(length=1, principal="ann"))
        with pytest.raises(TooManyUploads):
            limited.create(Upload(length=1, principal="ann"))
        limited.create(Upload(length=1))
        with pytest.raises(TooManyUploads):
            limited.create(Upload(length=1, principal="bob"))
        limited.claim(limited.append(ann, 0, b"a")).accept()
        limited.create(Upload(length=1, principal="ann"))

    def test_a_length_counts_when_it_is_announced(self, limited: Store) -> None:
        with pytest.raises(TooLarge):
            limited.create(Upload(length=101))
        with pytest.raises(TooLarge):
            limited.create(Upload(length=61, principal="ann"))
        limited.create(Upload(length=60, principal="ann"))
        with pytest.raises(QuotaExceeded):
            limited.create(Upload(length=1, principal="ann"))
        with pytest.raises(QuotaExceeded):
            limited.create(Upload(length=41))
        limited.create(Upload(length=40))
        assert self.room(limited) == 0

    def test_bytes_of_no_announced_length_count_while_they_come(self, limited: Store) -> None:
        upload = limited.create(Upload(principal="ann"))
        with limited.open(upload, 0) as session:
            self.write(session, bytes(40))
            with pytest.raises(QuotaExceeded):
                session.write(bytes(15), bytes(15))
            assert session.keep().offset == 60, "what fits is kept"
        with pytest.raises(QuotaExceeded):
            limited.append(upload, 60, b"a")
        assert limited.load(upload.id).offset == 60
        assert self.room(limited) == 40
        limited.remove(upload.id)
        assert self.room(limited) == 100

    def test_one_step_counts_too(self, limited: Store) -> None:
        upload = limited.create(Upload())
        limited.append(upload, 0, bytes(90))
        with pytest.raises(QuotaExceeded):
            limited.append(upload, 90, bytes(20))
        assert limited.load(upload.id).offset == 100, "what fits is kept"
        with pytest.raises(TooLarge):
            limited.append(upload, 100, b"a", 101)
        assert limited.append(upload, 100, b"", 100).is_complete

    def test_it_goes_on_once_there_is_room(self, limited: Store) -> None:
        other = limited.create(Upload(length=50))
        upload = limited.create(Upload())
        with limited.open(upload, 0) as session, pytest.raises(QuotaExceeded):
            session.write(bytes(70))
        assert limited.load(upload.id).offset == 50
        limited.remove(other.id)
        with limited.open(upload, 50) as session:
            session.write(bytes(20))
            done = session.commit(ends=True)
        assert (done.offset, done.length) == (70, 70)

    def test_unverified_bytes_count_until_they_are_dropped(self, limited: Store) -> None:
        upload = limited.create(Upload())
        with limited.open(upload, 0, staged=True) as session:
            session.write(bytes(70))
            assert self.room(limited) <= 30
        assert self.room(limited) == 100
        with limited.open(upload, 0, length=80, staged=True) as session:
            session.write(bytes(10))
            assert self.room(limited) <= 20
        assert self.room(limited) == 100, "the length was not set"
        with limited.open(upload, 0, length=80, staged=True) as session:
            session.write(bytes(10))
            session.commit()
        assert self.room(limited) == 20

    def test_a_session_that_was_replaced_gives_back_its_part_only(self, limited: Store) -> None:
        upload = limited.create(Upload())
        with limited.open(upload, 0) as old:
            self.write(old, bytes(10))
            with limited.open(upload, 10) as newer:
                self.write(newer, bytes(20))
        assert self.room(limited) == 70

    def test_a_length_that_is_refused_changes_nothing(self, limited: Store) -> None:
        upload = limited.create(Upload())
        other = limited.create(Upload(length=50))
        limited.append(upload, 0, bytes(10))
        with pytest.raises(QuotaExceeded):
            limited.append(upload, 10, b"", 60)
        with pytest.raises(QuotaExceeded):
            limited.open(upload, 10, 60)
        assert limited.load(upload.id).length is None
        limited.remove(other.id)
        assert self.room(limited) == 90

    def test_a_concatenation_counts_beside_its_parts(self, limited: Store) -> None:
        if not isinstance(limited, Concatenates):
            pytest.skip("this store cannot concatenate")
        part = limited.append(limited.create(Upload(concat="partial", length=30)), 0, bytes(30))
        final = limited.create(Upload(concat="final", parts=(part.id,) * 3, length=None))
        with pytest.raises(QuotaExceeded):
            limited.concatenate(final.id, [part] * 3)
        assert limited.load(final.id).state == State.RECEIVING
        limited.remove(final.id)
        assert self.room(limited) == 70
        final = limited.create(Upload(concat="final", parts=(part.id,) * 2, length=60))
        assert self.room(limited) == 10
        assert limited.concatenate(final.id, [part] * 2).is_complete
        assert self.room(limited) == 10
        limited.remove(part.id)
        assert self.room(limited) == 40

    def test_what_is_kept_counts_by_its_bytes(self, limited: Store, clock: Clock) -> None:
        assert isinstance(limited, Expires)
        for decision in ("accept", "reject", "keep"):
            claim = limited.claim(limited.append(limited.create(Upload(length=30)), 0, bytes(30)))
            claim.begin()
            if decision == "reject":
                claim.reject()
            elif decision == "accept":
                claim.accept()
            else:
                claim.keep()
                claim.accept()
        assert self.room(limited) == 40, "a rejected file and a kept one"
        for _ in range(2):  # and no upload is unfinished
            limited.create(Upload(length=0))
        clock.now += 31
        assert limited.sweep() == 1
        assert self.room(limited) == 70
        clock.now += 20
        assert limited.sweep() == 2
        assert self.room(limited) == 100
