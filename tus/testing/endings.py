"""Hand-over, reading and expiry: :class:`tus.stores.interface.Claim`, ``Reads`` and ``Expires``."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from tus.errors import OffsetMismatch, UploadGone, UploadLocked, UploadNotFound, UploadReplaced
from tus.models import Response, State, Upload
from tus.stores.interface import Expires, Pending, Reads, Store
from tus.testing.base import Base, Clock


class Endings(Base):
    """The tests of hand-over, reading and expiry."""

    # -- Hand-over --

    def test_one_claim_at_a_time(self, store: Store) -> None:
        upload = store.create(Upload(length=0))
        first = store.claim(upload)
        with pytest.raises(UploadLocked):
            store.claim(upload)
        first.release()
        store.claim(upload).release()

    def test_an_accepted_upload_keeps_its_record_only(self, store: Store) -> None:
        upload = store.create(Upload(length=3))
        store.append(upload, 0, b"abc")
        claim = store.claim(upload)
        assert claim.upload.state == State.COMPLETE
        claim.accept()
        claim.accept()
        claim.release()
        after = store.load(upload.id)
        assert (after.state, after.offset, after.length) == (State.ACCEPTED, 3, 3)
        again = store.claim(upload)
        assert again.upload.state == State.ACCEPTED
        again.release()
        with pytest.raises(OffsetMismatch):  # and not UploadGone, because clients would then send the whole file again
            store.append(upload, 0, b"abc")
        with pytest.raises(OffsetMismatch):
            store.open(upload, 3)

    def test_accepted_data_can_be_kept_as_long_as_its_record(self, store: Store, clock: Clock) -> None:
        upload = store.append(store.create(Upload(length=3)), 0, b"abc")
        claim = store.claim(upload)
        claim.begin()
        assert claim.keep()
        assert not claim.keep(), "it is kept already"
        claim.sync()
        claim.accept()
        after = store.load(upload.id)
        assert (after.state, after.offset) == (State.ACCEPTED, 3)
        if isinstance(store, Reads):
            assert self.read(store, after) == b"abc"
        if isinstance(store, Expires):
            clock.now += 51
            assert store.sweep() == 1
            with pytest.raises(UploadNotFound):
                store.load(upload.id)

    def test_kept_data_outlives_records_that_are_not_kept(self, clock: Clock) -> None:
        store = self.make_store(completed_keep=0, clock=clock)
        upload = store.append(store.create(Upload(length=3)), 0, b"abc")
        claim = store.claim(upload)
        claim.begin()
        claim.keep()
        claim.accept()
        clock.now += 86000
        if isinstance(store, Expires):
            assert store.sweep() == 0
        if isinstance(store, Reads):
            assert self.read(store, upload) == b"abc"
        clock.now += 1000
        if isinstance(store, Expires):
            assert store.sweep() == 1

    def test_keeping_data_does_not_accept_it(self, store: Store) -> None:
        upload = store.append(store.create(Upload(length=3)), 0, b"abc")
        claim = store.claim(upload)
        claim.begin()
        claim.keep()
        claim.release("the answer was 503")
        assert store.load(upload.id).state == State.COMPLETE
        again = store.claim(upload)
        again.begin()
        again.accept()
        if isinstance(store, Reads):
            with pytest.raises(UploadGone):
                store.read(store.load(upload.id))

    def test_an_attempt_is_recorded_before_it_is_made(self, store: Store, clock: Clock) -> None:
        upload = store.append(store.create(Upload(length=3)), 0, b"abc")
        assert (upload.state, upload.attempts, upload.since) == (State.COMPLETE, 0, clock.now)
        clock.now += 5
        claim = store.claim(upload)
        assert store.load(upload.id).state == State.COMPLETE
        begun = claim.begin()
        assert (begun.state, begun.attempts, begun.since) == (State.HANDING_OVER, 1, clock.now)
        assert store.load(upload.id).state == State.HANDING_OVER
        with pytest.raises(UploadLocked):
            store.remove(upload.id)
        claim.release("the application said no")
        released = store.load(upload.id)
        assert (released.state, released.attempts, released.error) == (State.COMPLETE, 1, "the application said no")
        assert released.key == upload.key
        second = store.claim(released)
        assert second.begin().attempts == 2
        second.release()

    def test_a_claim_without_an_attempt_leaves_no_trace(self, store: Store) -> None:
        upload = store.append(store.create(Upload(length=3)), 0, b"abc")
        store.claim(upload).release("not worth a word")
        assert store.load(upload.id) == upload

    def test_set_aside_until_the_next_attempt(self, store: Store, clock: Clock) -> None:
        upload = store.append(store.create(Upload(length=3)), 0, b"abc")
        claim = store.claim(upload)
        claim.begin(is_last=True)
        claim.release("in vain")
        assert store.load(upload.id).is_aside
        assert isinstance(store, Expires)
        clock.now += 1e9
        assert store.sweep() == 0, "an upload that was set aside does not expire"
        again = store.claim(store.load(upload.id))
        assert not again.begin().is_aside
        again.release()
        assert not store.load(upload.id).is_aside

    def test_the_answer_outlives_the_data(self, store: Store) -> None:
        upload = store.append(store.create(Upload(length=3)), 0, b"abc")
        claim = store.claim(upload)
        claim.begin()
        claim.accept(Response(201, "Created", [("X-App", "a\xe9")], (b"bo", b"dy")))
        answer = store.load(upload.id).answer
        assert answer is not None
        assert (answer.status, answer.reason, answer.headers) == (201, "Created", [("X-App", "a\xe9")])
        assert b"".join(answer.body) == b"body"

    def test_a_rejected_upload_is_kept_with_its_answer_for_a_while(self, clock: Clock) -> None:
        store = self.make_store(lifetime=100, rejected_keep=30, clock=clock)
        assert isinstance(store, Expires)
        assert isinstance(store, Reads)
        upload = store.append(store.create(Upload(length=3)), 0, b"abc")
        claim = store.claim(upload)
        claim.begin()
        claim.reject(Response(415, "Unsupported Media Type", [], (b"no picture",)))
        claim.release()
        rejected = store.load(upload.id)
        assert (rejected.state, rejected.offset, rejected.answer and rejected.answer.status) == (State.REJECTED, 3, 415)
        file, _ = store.read(rejected)
        with file:
            assert file.read() == b"abc"
        again = store.claim(rejected)
        assert again.upload.state == State.REJECTED
        again.accept()
        assert store.load(upload.id).state == State.REJECTED, "it stays rejected"
        clock.now += 29
        assert store.sweep() == 0
        clock.now += 2
        assert store.sweep() == 1

    def test_an_unknown_upload_expires_although_it_is_complete(self, store: Store, clock: Clock) -> None:
        assert isinstance(store, Expires)
        upload = store.append(store.create(Upload(length=3, is_known=False)), 0, b"abc")
        assert not upload.is_known
        clock.now += 101
        assert store.sweep() == 1

    def test_a_claim_of_a_known_upload_makes_it_known(self, store: Store, clock: Clock) -> None:
        assert isinstance(store, Expires)
        upload = store.append(store.create(Upload(length=3, is_known=False)), 0, b"abc")
        claim = store.claim(upload)
        assert not claim.begin().is_known
        claim.release("not now")
        claim = store.claim(replace(store.load(upload.id), is_known=True))
        assert claim.begin().is_known
        claim.release("not now")
        clock.now += 1e9
        assert store.sweep() == 0

    def test_a_promise_makes_it_known(self, store: Store, clock: Clock) -> None:
        assert isinstance(store, Expires)
        upload = store.append(store.create(Upload(length=3, is_known=False)), 0, b"abc")
        assert store.promise(upload).is_known
        clock.now += 1e9
        assert store.sweep() == 0

    def test_a_promise_that_meets_a_hand_over(self, store: Store) -> None:
        upload = store.append(store.create(Upload(length=3)), 0, b"abc")
        claim = store.claim(upload)
        claim.begin()
        assert store.promise(upload).is_pending  # the upload is known already, so nothing changes
        claim.release()
        upload = store.append(store.create(Upload(length=3, is_known=False)), 0, b"abc")
        claim = store.claim(upload)
        with pytest.raises(UploadLocked):
            store.promise(upload)
        claim.release()

    # -- Claims that are leases --

    @pytest.mark.usefixtures("needs_leases")
    def test_a_claim_whose_lease_has_ended(self, store: Store, clock: Clock) -> None:
        upload = store.append(store.create(Upload(length=3)), 0, b"abc")
        lost = store.claim(upload)
        begun = lost.begin()
        self.lapse(lost, clock)
        waiting = store.load(upload.id)
        assert (waiting.state, waiting.attempts, waiting.key) == (State.COMPLETE, 1, begun.key)
        assert waiting.error
        claim = store.claim(waiting)
        for use in (lost.begin, lost.accept, lost.reject, lost.release):
            with pytest.raises(UploadReplaced):
                use()
        assert claim.begin().attempts == 2
        for use in (lost.begin, lost.accept, lost.reject):
            with pytest.raises(UploadReplaced):
                use()
        claim.accept(Response(201, "Created", [("X-App", "1")], ()))
        with pytest.raises(UploadReplaced):
            lost.reject()
        accepted = store.load(upload.id)
        assert (accepted.state, accepted.attempts, accepted.key) == (State.ACCEPTED, 2, begun.key)

    @pytest.mark.usefixtures("needs_leases")
    def test_a_claim_whose_lease_has_ended_without_another_claim(self, store: Store, clock: Clock) -> None:
        upload = store.append(store.create(Upload(length=3)), 0, b"abc")
        claim = store.claim(upload)
        claim.begin()
        self.lapse(claim, clock)
        claim.accept()
        assert store.load(upload.id).state == State.ACCEPTED

    @pytest.mark.usefixtures("needs_leases")
    def test_a_claimed_upload_can_be_removed_after_the_lease(self, store: Store, clock: Clock) -> None:
        upload = store.append(store.create(Upload(length=3)), 0, b"abc")
        claim = store.claim(upload)
        claim.begin()
        self.lapse(claim, clock)
        store.remove(upload.id)
        with pytest.raises((UploadReplaced, UploadGone)):
            claim.accept()

    # -- Pending uploads --

    def test_pending_uploads_are_listed(self, store: Store, clock: Clock) -> None:
        if not isinstance(store, Pending):
            pytest.skip("this store cannot list pending uploads")
        store.create(Upload(length=3))
        store.append(store.create(Upload(length=1, concat="partial")), 0, b"a")
        store.append(store.create(Upload(length=1, is_known=False)), 0, b"a")
        store.claim(store.create(Upload(length=0))).accept()
        aside = store.claim(store.create(Upload(length=0)))
        aside.begin(is_last=True)
        aside.release("in vain")
        waiting = []
        for _ in range(3):
            clock.now += 1
            waiting.append(store.append(store.create(Upload(length=3)), 0, b"abc"))
        later = clock.now + 1
        assert [upload.id for upload in store.pending(later, 9)] == [upload.id for upload in waiting]
        assert [upload.id for upload in store.pending(later, 2)] == [upload.id for upload in waiting[:2]]
        assert list(store.pending(waiting[1].since, 9)) == waiting[:1]
        assert list(store.pending(later, 1, lambda upload: upload.id == waiting[2].id)) == waiting[2:]
        claim = store.claim(waiting[0])
        claim.begin()
        assert [upload.id for upload in store.pending(later, 9)] == [upload.id for upload in waiting[1:]]
        clock.now += 1
        claim.release("not now")
        assert [upload.id for upload in store.pending(clock.now + 1, 9)][-1] == waiting[0].id

    # -- Digests --

    def test_digests_are_kept_as_long_as_the_record(self, store: Store) -> None:
        announced = (("sha512", b"?" * 64),)
        draft = Upload(length=6, hashes=("sha256", "sha512"), announced=announced)
        upload = store.create(draft)
        store.append(upload, 0, b"abc")
        with store.open(upload, 3) as session:
            session.write(b"def")
            session.commit()
        digests = tuple((name, hashlib.new(name, b"abcdef").digest()) for name in ("sha256", "sha512"))
        claim = store.claim(store.load(upload.id))
        assert claim.digest().digests == digests
        assert claim.begin().digests == digests
        claim.release("not now")
        assert store.load(upload.id).digests == digests
        claim = store.claim(store.load(upload.id))
        claim.begin()
        claim.accept(Response(204, "No Content", [("X-App", "a")], ()))
        accepted = store.load(upload.id)
        assert (accepted.hashes, accepted.announced, accepted.digests) == (draft.hashes, announced, digests)
        assert accepted.digest("sha256") == digests[0][1]
        assert accepted.digest("md5") is None
        assert accepted.answer is not None
        assert accepted.answer.headers == [("X-App", "a")]

    def test_digests_of_an_upload_that_is_rejected_without_an_attempt(self, store: Store) -> None:
        upload = store.append(store.create(Upload(length=3, hashes=("sha256",))), 0, b"abc")
        claim = store.claim(upload)
        digests = claim.digest().digests
        claim.reject(Response(422, "Unprocessable Content", [], (b"another",)))
        rejected = store.load(upload.id)
        assert (rejected.state, rejected.attempts, rejected.digests) == (State.REJECTED, 0, digests)
        assert rejected.answer is not None
        assert rejected.answer.status == 422

    def test_a_digest_covers_the_counted_bytes(self, store: Store) -> None:
        upload = store.create(Upload(length=9, hashes=("sha256",)))
        with store.open(upload, 0) as session:
            self.write(session, b"abc")
            with store.open(upload, 3, staged=True) as unverified:
                self.write(unverified, b"xyz")
            with store.open(upload, 3) as newer:
                with pytest.raises(UploadReplaced):
                    self.write(session, b"XYZ")
                self.write(newer, b"def")
        with store.open(upload, 6, staged=True) as verified:
            verified.write(b"ghi")
            verified.commit()
        claim = store.claim(upload)
        assert claim.digest().digest("sha256") == hashlib.sha256(b"abcdefghi").digest()
        claim.release()

    def test_digests_of_an_upload_that_needs_none(self, store: Store) -> None:
        claim = store.claim(store.append(store.create(Upload(length=3)), 0, b"abc"))
        assert claim.digest().digests == ()
        claim.release()
        claim = store.claim(store.create(Upload(length=0, hashes=("sha256",))))
        assert claim.digest().digest("sha256") == hashlib.sha256().digest()
        claim.release()

    # -- Expiry --

    def test_unfinished_uploads_expire_after_their_last_byte(self, store: Store, clock: Clock) -> None:
        assert isinstance(store, Expires)
        upload = store.create(Upload(length=9))
        clock.now += 60
        store.append(upload, 0, b"abc")
        clock.now += 60
        assert store.sweep() == 0
        assert not store.load(upload.id).has_expired(clock.now)
        clock.now += 41
        assert store.load(upload.id).has_expired(clock.now)
        assert store.sweep() == 1
        with pytest.raises(UploadNotFound):
            store.load(upload.id)

    def test_finished_files_do_not_expire_until_accepted(self, store: Store, clock: Clock) -> None:
        assert isinstance(store, Expires)
        upload = store.create(Upload(length=3))
        store.append(upload, 0, b"abc")
        clock.now += 10_000
        assert store.sweep() == 0
        assert self.read(store, upload) == b"abc"
        store.claim(upload).accept()
        clock.now += 49
        assert store.sweep() == 0
        clock.now += 2
        assert store.sweep() == 1

    def test_finished_parts_expire(self, store: Store, clock: Clock) -> None:
        assert isinstance(store, Expires)
        part = store.create(Upload(length=1, concat="partial"))
        store.append(part, 0, b"a")
        clock.now += 101
        assert store.sweep() == 1

    def test_uploads_with_lifetime_zero_do_not_expire(self, clock: Clock) -> None:
        store = self.make_store(lifetime=0, completed_keep=50, clock=clock)
        assert isinstance(store, Expires)
        upload = store.create(Upload(length=1))
        assert upload.expires_at is None
        clock.now += 1e9
        assert store.sweep() == 0

    # -- Reading finished uploads --

    def test_a_finished_upload_can_be_read_until_it_is_accepted(self, store: Store) -> None:
        assert isinstance(store, Reads)
        upload = store.append(store.create(Upload(length=3)), 0, b"abc")
        file, _ = store.read(upload)
        with file:
            assert file.read() == b"abc"
        store.claim(upload).accept()
        with pytest.raises(UploadGone):
            store.read(store.load(upload.id))

    def test_a_kept_finished_upload_can_be_read_as_long_as_its_record(self, clock: Clock) -> None:
        store = self.make_store(keep_finished=True, completed_keep=50, clock=clock)
        assert isinstance(store, Reads)
        assert isinstance(store, Expires)
        upload = store.append(store.create(Upload(length=3)), 0, b"abc")
        store.claim(upload).accept()
        clock.now += 49
        assert store.sweep() == 0
        file, _ = store.read(store.load(upload.id))
        with file:
            assert file.read() == b"abc"
        assert store.claim(store.load(upload.id)).upload.state == State.ACCEPTED
        clock.now += 2
        assert store.sweep() == 1
        with pytest.raises(UploadNotFound):
            store.load(upload.id)
