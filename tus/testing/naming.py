"""Uploads that are found by a text: :class:`tus.stores.interface.Names`."""

from __future__ import annotations

import threading

import pytest

from tus.models import State, Upload, is_upload_id
from tus.stores.interface import Expires, Names, Store
from tus.testing.base import Base, Clock


class Naming(Base):
    """The tests of ids that are made from texts. They are skipped if the store has none."""

    @pytest.fixture
    def names(self, store: Store) -> Names:
        """Return the store."""
        if not isinstance(store, Names):
            pytest.skip("the store makes no ids from texts")
        return store

    def test_a_text_has_one_id(self, names: Names) -> None:
        texts = ["", "a", "A", "a ", "\u00e4", "\udce4", "a" * 10_000]
        ids = [names.id_for(text) for text in texts]
        assert ids == [names.id_for(text) for text in texts]
        assert len(set(ids)) == len(ids)
        assert all(map(is_upload_id, ids))

    def test_one_call_creates_the_upload(self, store: Store, names: Names) -> None:
        draft = Upload(id=names.id_for("a"), length=9, raw_metadata="flag", fingerprint="f" * 32)
        created = names.create_once(draft)
        assert created is not None
        assert (created.id, created.fingerprint, created.offset) == (draft.id, "f" * 32, 0)
        store.append(created, 0, b"abc")
        assert names.create_once(Upload(id=draft.id, length=5)) is None
        loaded = store.load(draft.id)
        assert (loaded.offset, loaded.length, loaded.raw_metadata, loaded.fingerprint) == (3, 9, "flag", "f" * 32)

    def test_an_upload_without_a_fingerprint_has_none(self, store: Store) -> None:
        assert store.load(store.create(Upload(length=1)).id).fingerprint == ""

    def test_the_fingerprint_outlives_the_acceptance(self, store: Store, names: Names) -> None:
        created = names.create_once(Upload(id=names.id_for("a"), length=3, fingerprint="f" * 32))
        assert created is not None
        claim = store.claim(store.append(created, 0, b"abc"))
        claim.begin()
        claim.accept()
        assert names.create_once(Upload(id=created.id, length=3)) is None
        loaded = store.load(created.id)
        assert (loaded.state, loaded.fingerprint) == (State.ACCEPTED, "f" * 32)

    def test_a_removed_upload_makes_room(self, store: Store, names: Names) -> None:
        draft = Upload(id=names.id_for("a"), length=9)
        first = names.create_once(draft)
        assert first is not None
        store.append(first, 0, b"abc")
        store.remove(draft.id)
        again = names.create_once(draft)
        assert again is not None
        assert again.offset == 0

    def test_an_expired_upload_makes_room(self, store: Store, names: Names, clock: Clock) -> None:
        if not isinstance(store, Expires):
            pytest.skip("the store has no expiry")
        draft = Upload(id=names.id_for("a"), length=9)
        first = names.create_once(draft)
        assert first is not None
        store.append(first, 0, b"abc")
        clock.now += 99
        assert names.create_once(draft) is None
        clock.now += 1
        again = names.create_once(draft)
        assert again is not None
        assert (again.offset, store.load(draft.id).offset) == (0, 0)

    def test_of_many_calls_one_creates(self, store: Store, names: Names) -> None:
        for number in range(20):
            draft = Upload(id=names.id_for(str(number)), length=9)
            made: list[Upload | None] = []
            start = threading.Barrier(4)

            def create(
                draft: Upload = draft, made: list[Upload | None] = made, start: threading.Barrier = start
            ) -> None:
                start.wait()
                upload = names.create_once(draft)
                assert store.load(draft.id).offset == 0
                made.append(upload)

            threads = [threading.Thread(target=create) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert sorted(upload is not None for upload in made) == [False, False, False, True]
