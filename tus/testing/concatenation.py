"""Concatenation: :class:`tus.stores.interface.Concatenates`."""

from __future__ import annotations

import hashlib

import pytest

from tus.errors import UploadGone
from tus.models import State, Upload
from tus.stores.interface import Concatenates, Store
from tus.testing.base import Base, Clock


class Concatenation(Base):
    """The tests of concatenation."""

    def parts(self, store: Store, *contents: bytes) -> list[Upload]:
        """Create complete parts with these contents."""
        made = []
        for content in contents:
            part = store.create(Upload(length=len(content), concat="partial"))
            made.append(store.append(part, 0, content) if content else part)
        return made

    def final(self, store: Store, parts: list[Upload]) -> Upload:
        """Create a final upload that is not filled yet."""
        ids = tuple(part.id for part in parts)
        return store.create(Upload(concat="final;...", parts=ids))

    def test_parts_are_concatenated_in_order(self, store: Store) -> None:
        assert isinstance(store, Concatenates)
        one, two, three = self.parts(store, b"one", b"", b"three" * 100_000)
        parts = [three, one, two, one]
        final = self.final(store, parts)
        assert final.state == State.RECEIVING
        filled = store.concatenate(final.id, parts)
        assert (filled.state, filled.length, filled.offset) == (State.COMPLETE, 500_006, 500_006)
        assert filled.parts == tuple(part.id for part in parts)
        assert self.read(store, filled) == b"three" * 100_000 + b"one" + b"one"
        assert self.read(store, one) == b"one"

    def test_a_final_upload_has_its_own_digest(self, store: Store) -> None:
        assert isinstance(store, Concatenates)
        parts = self.parts(store, b"one", b"two")
        final = store.create(Upload(concat="final;...", parts=tuple(part.id for part in parts), hashes=("sha256",)))
        claim = store.claim(store.concatenate(final.id, parts))
        assert claim.digest().digest("sha256") == hashlib.sha256(b"onetwo").digest()
        claim.release()

    def test_concatenating_again_changes_nothing(self, store: Store) -> None:
        assert isinstance(store, Concatenates)
        parts = self.parts(store, b"one", b"two")
        final = self.final(store, parts)
        filled = store.concatenate(final.id, parts)
        store.remove(parts[0].id)
        assert store.concatenate(final.id, parts) == filled
        store.claim(final).accept()
        assert store.concatenate(final.id, parts).state == State.ACCEPTED

    def test_a_removed_part_cannot_be_concatenated(self, store: Store) -> None:
        assert isinstance(store, Concatenates)
        parts = self.parts(store, b"one", b"two")
        final = self.final(store, parts)
        store.remove(parts[1].id)
        with pytest.raises(UploadGone):
            store.concatenate(final.id, parts)
        assert store.load(final.id).state == State.RECEIVING

    def test_a_touch_extends_the_life_of_final_uploads_and_their_parts(self, store: Store, clock: Clock) -> None:
        assert isinstance(store, Concatenates)
        shared, *others = (store.create(Upload(concat="partial")) for _ in range(3))
        finals = [self.final(store, [shared, other, shared]) for other in others]
        uploads = [shared, *others, *finals]
        clock.now += 70
        store.touch(*(final.id for final in finals), "0" * 32)
        clock.now += 70
        for upload in uploads:
            assert not store.load(upload.id).has_expired(clock.now)
            assert store.load(upload.id).expires_at == clock.now + 30

    def test_a_final_upload_is_touched_once_a_minute(self, clock: Clock) -> None:
        store = self.make_store(lifetime=10_000, clock=clock)
        assert isinstance(store, Concatenates)
        part = store.create(Upload(concat="partial"))
        final = self.final(store, [part])
        for seconds, expected in ((59, 0), (1, 60), (59, 60), (1, 120)):
            began = store.load(part.id).created_at
            clock.now += seconds
            store.touch(final.id)
            assert store.load(final.id).expires_at == store.load(part.id).expires_at == began + 10_000 + expected

    def test_a_part_that_is_waited_for_lives_as_long_as_a_new_one(self, store: Store, clock: Clock) -> None:
        assert isinstance(store, Concatenates)
        part = store.create(Upload(concat="partial"))
        clock.now += 50
        assert store.watch(part.id, "a" * 32).expires_at == clock.now + 100

    def test_a_part_records_the_final_uploads_that_wait_for_it(self, store: Store) -> None:
        assert isinstance(store, Concatenates)
        part = store.create(Upload(length=3, concat="partial", raw_metadata="name YQ=="))
        assert list(store.finals_of(part.id)) == []
        assert store.watch(part.id, "a" * 32) == store.load(part.id)
        store.watch(part.id, "b" * 32)
        store.watch(part.id, "a" * 32)
        store.append(part, 0, b"abc")
        assert list(store.finals_of(part.id)) == ["a" * 32, "b" * 32]
        assert store.load(part.id).raw_metadata == "name YQ=="
