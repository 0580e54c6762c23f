"""The last block and the hand-over in one step: :class:`tus.stores.interface.Completes`."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tus.errors import InconsistentLength, OffsetMismatch, TooLarge, UploadLocked, UploadNotFound, UploadReplaced
from tus.models import Response, State, Upload
from tus.stores.interface import Completes, Expires, Lists, Store
from tus.testing.base import Base, Clock


class Completing(Base):
    """The tests of completing in one step; they skip a store without this capability."""

    @pytest.fixture
    def completes(self, store: Store) -> Completes:
        """Return the store, if it has this capability."""
        if not isinstance(store, Completes):
            pytest.skip("this store completes uploads step by step")
        return store

    def test_the_last_block_begins_the_hand_over(self, store: Store, completes: Completes, clock: Clock) -> None:
        upload = store.append(store.create(Upload(length=6)), 0, b"abc")
        assert completes.can_complete(upload)
        clock.now += 5
        claim = completes.complete(upload, 3, b"def")
        begun = claim.upload
        assert (begun.state, begun.offset, begun.length) == (State.HANDING_OVER, 6, 6)
        assert (begun.attempts, begun.since, begun.key) == (1, clock.now, upload.key)
        assert store.load(upload.id) == begun
        with claim.open() as file:
            assert file.read() == b"abcdef"
        with pytest.raises(UploadLocked):
            store.claim(begun)
        with pytest.raises(OffsetMismatch):
            store.append(upload, 6, b"x")
        claim.accept(Response(201, "Created", [("X-App", "1")], ()))
        claim.release()
        accepted = store.load(upload.id)
        assert (accepted.state, accepted.attempts, claim.upload.state) == (State.ACCEPTED, 1, State.ACCEPTED)
        assert accepted.answer is not None
        assert accepted.answer.headers == [("X-App", "1")]

    def test_a_claim_from_one_step_can_be_given_back(self, store: Store, completes: Completes) -> None:
        upload = store.create(Upload(length=3))
        claim = completes.complete(upload, 0, b"abc", is_last=True)
        claim.release("the application said no")
        released = store.load(upload.id)
        assert (released.state, released.attempts, released.is_aside) == (State.COMPLETE, 1, True)
        assert released.error == "the application said no"
        again = store.claim(released)
        assert again.begin().attempts == 2
        again.reject(Response(415, "No", [], (b"no",)))
        assert store.load(upload.id).state == State.REJECTED

    def test_one_step_settles_a_length(self, store: Store, completes: Completes) -> None:
        upload = store.append(store.create(Upload()), 0, b"abc")
        claim = completes.complete(upload, 3, b"de", length=5)
        assert (claim.upload.length, claim.upload.offset) == (5, 5)
        claim.accept()

    def test_one_step_for_no_bytes_at_all(self, store: Store, completes: Completes) -> None:
        upload = store.append(store.create(Upload(length=3)), 0, b"abc", completes=False)
        claim = completes.complete(upload, 3, b"")
        assert claim.upload.state == State.HANDING_OVER
        claim.release()
        assert self.read(store, upload) == b"abc"

    @pytest.mark.parametrize(
        ("offset", "block", "length", "error"),
        [
            (0, b"abcdef", None, OffsetMismatch),
            (4, b"ef", None, OffsetMismatch),
            (3, b"de", None, InconsistentLength),
            (3, b"defg", None, TooLarge),
            (3, b"defg", 7, InconsistentLength),
        ],
    )
    def test_a_block_that_does_not_fit_changes_nothing(
        self,
        store: Store,
        completes: Completes,
        offset: int,
        block: bytes,
        length: int | None,
        error: type[Exception],
    ) -> None:
        upload = store.create(Upload(length=6))
        with store.open(upload, 0) as session:
            self.write(session, b"abc")
            before = store.load(upload.id)
            with pytest.raises(error):
                completes.complete(upload, offset, block, length)
            assert store.load(upload.id) == before
            assert session.is_current()
            self.write(session, b"def")
        assert self.read(store, upload) == b"abcdef"
        with pytest.raises(OffsetMismatch):
            completes.complete(upload, 6, b"")

    def test_one_step_ends_the_open_session(self, store: Store, completes: Completes) -> None:
        upload = store.create(Upload(length=6))
        with store.open(upload, 0) as session, store.open(upload, 0, staged=True) as staged:
            with pytest.raises(UploadReplaced):
                self.write(session, b"XXX")
            self.write(staged, b"XXXXXX")
            claim = completes.complete(upload, 0, b"abcdef")
            assert not staged.is_current()
            with pytest.raises(UploadReplaced):
                staged.commit()
        with claim.open() as file:
            assert file.read() == b"abcdef"
        claim.release()

    def test_digests_and_parts_need_several_steps(self, store: Store, completes: Completes) -> None:
        hashed = store.create(Upload(length=3, hashes=("sha256",)))
        assert not completes.can_complete(hashed)
        assert not completes.can_complete(Upload(length=3, concat="partial"))

    def test_an_upload_that_is_created_whole(self, store: Store, completes: Completes, clock: Clock) -> None:
        draft = Upload(length=3, raw_metadata="filename YQ==", principal="ann", is_known=False)
        assert completes.can_complete(draft)
        claim = completes.create_whole(draft, b"abc")
        made = claim.upload
        assert (made.state, made.offset, made.length, made.attempts) == (State.HANDING_OVER, 3, 3, 1)
        assert (made.raw_metadata, made.principal, made.created_at) == ("filename YQ==", "ann", clock.now)
        assert store.load(made.id) == made
        with claim.open() as file:
            assert file.read() == b"abc"
        claim.accept()
        assert store.load(made.id).state == State.ACCEPTED

    def test_an_upload_that_is_created_whole_and_unknown_expires(
        self, store: Store, completes: Completes, clock: Clock
    ) -> None:
        assert isinstance(store, Expires)
        claim = completes.create_whole(Upload(length=3, is_known=False), b"abc")
        clock.now += 1e9
        assert store.sweep() == 0, "the application is processing it"
        claim.release("no")
        assert not store.load(claim.upload.id).is_known
        assert store.sweep() == 1
        known = completes.create_whole(Upload(length=3), b"abc")
        known.release("no")
        clock.now += 1e9
        assert store.sweep() == 0

    def test_an_upload_that_is_created_whole_with_an_id(self, store: Store, completes: Completes) -> None:
        claim = completes.create_whole(Upload(id="a" * 32, length=3), b"abc")
        assert claim.upload.id == "a" * 32
        claim.release()
        with pytest.raises(OffsetMismatch):
            completes.create_whole(Upload(id="a" * 32, length=3), b"abc")
        store.create(Upload(id="b" * 32, length=3))
        completes.create_whole(Upload(id="b" * 32, length=3), b"abc").accept()

    def test_nothing_is_created_of_another_length(self, store: Store, completes: Completes) -> None:
        for length in (2, 4, None):
            with pytest.raises(InconsistentLength):
                completes.create_whole(Upload(length=length), b"abc")
        assert isinstance(store, Lists)
        assert list(store.list()) == []

    def test_an_empty_upload_is_created_whole(self, store: Store, completes: Completes) -> None:
        claim = completes.create_whole(Upload(length=0), b"")
        assert (claim.upload.state, claim.upload.attempts) == (State.HANDING_OVER, 1)
        claim.accept()

    def test_an_unknown_or_removed_upload_is_not_completed(self, store: Store, completes: Completes) -> None:
        with pytest.raises(UploadNotFound):
            completes.complete(Upload(id="0" * 32, length=3), 0, b"abc")
        upload = store.create(Upload(length=3))
        store.remove(upload.id)
        with pytest.raises(UploadNotFound):
            completes.complete(upload, 0, b"abc")

    def test_a_client_that_is_known_stays_known(self, store: Store, completes: Completes) -> None:
        upload = store.create(Upload(length=3, is_known=False))
        claim = completes.complete(replace(upload, is_known=True), 0, b"abc")
        assert claim.upload.is_known
        claim.release()
