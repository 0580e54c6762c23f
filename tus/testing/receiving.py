"""Creating, appending and removing: :class:`tus.stores.interface.Store`."""

from __future__ import annotations

import hashlib
import threading

import pytest

from tus.errors import OffsetMismatch, UploadGone, UploadNotFound, UploadReplaced
from tus.models import State, Upload
from tus.stores.interface import Lists, Store
from tus.testing.base import Base, Clock

UNKNOWN = "0" * 32


class Receiving(Base):
    """The tests of creating, appending and removing."""

    # -- Creating and reading --

    def test_a_created_upload_is_loaded(self, store: Store, clock: Clock) -> None:
        draft = Upload(length=5, raw_metadata="filename \xe4bc,flag", concat="partial")
        upload = store.create(draft)
        assert store.load(upload.id) == upload
        assert (upload.offset, upload.length, upload.concat) == (0, 5, "partial")
        assert upload.raw_metadata == "filename \xe4bc,flag"
        assert upload.state == State.RECEIVING
        assert upload.created_at == clock.now
        assert upload.expires_at == clock.now + 100

    def test_ids_differ_and_cannot_be_guessed(self, store: Store) -> None:
        ids = {store.create(Upload()).id for _ in range(100)}
        assert len(ids) == 100
        assert len({upload_id[:8] for upload_id in ids}) > 90

    def test_a_draft_with_an_id_that_exists_finds_it(self, store: Store) -> None:
        first = store.create(Upload(id="a" * 32, length=3))
        store.append(first, 0, b"ab")
        again = store.create(Upload(id="a" * 32, length=9))
        assert (again.length, again.offset) == (3, 2)

    @pytest.mark.parametrize("upload_id", [UNKNOWN, "", "..", "../x", "A" * 32, "x" * 32, "a" * 31, "a" * 33, "a\n"])
    def test_an_unknown_id_is_not_found(self, store: Store, upload_id: str) -> None:
        with pytest.raises(UploadNotFound):
            store.load(upload_id)
        with pytest.raises(UploadNotFound):
            store.open(Upload(id=upload_id), 0)
        with pytest.raises(UploadNotFound):
            store.append(Upload(id=upload_id), 0, b"x")
        with pytest.raises(UploadNotFound):
            store.claim(Upload(id=upload_id))
        with pytest.raises(UploadNotFound):
            store.remove(upload_id)

    def test_all_are_listed(self, store: Store) -> None:
        assert isinstance(store, Lists)
        ids = {store.create(Upload(length=1)).id for _ in range(3)}
        assert {upload.id for upload in store.list()} == ids

    # -- Appending --

    def test_blocks_count_as_they_come(self, store: Store) -> None:
        upload = store.create(Upload(length=6))
        with store.open(upload, 0) as session:
            self.write(session, b"abc")
            assert store.load(upload.id).offset == 3
            self.write(session, memoryview(bytearray(b"de")))
            assert store.load(upload.id).offset == 5
            assert store.load(upload.id).state == State.RECEIVING
            self.write(session, b"f")
            assert store.load(upload.id).state == State.COMPLETE
            assert session.commit() == store.load(upload.id)
        assert self.read(store, upload) == b"abcdef"

    def test_blocks_count_at_the_latest_when_they_are_kept(self, store: Store) -> None:
        upload = store.create(Upload(length=6))
        with store.open(upload, 0) as session:
            session.write(b"abc")
            assert session.upload.offset in (0, 3)
            assert session.upload.offset == store.load(upload.id).offset
            assert session.keep() == session.upload == store.load(upload.id)
            assert session.upload.offset == 3
            assert session.keep().offset == 3
            session.write(b"de")
            session.write(b"f")
            assert session.keep().state == State.COMPLETE
            assert session.keep().state == State.COMPLETE
        assert self.read(store, upload) == b"abcdef"

    def test_a_session_that_was_replaced_keeps_nothing(self, store: Store) -> None:
        upload = store.create(Upload(length=6))
        with store.open(upload, 0) as old:
            store.append(upload, 0, b"abc")
            with pytest.raises(UploadReplaced):
                self.write(old, b"XXX")
        assert (store.load(upload.id).offset, store.load(upload.id).state) == (3, State.RECEIVING)
        with store.open(upload, 3) as old, pytest.raises((UploadReplaced, UploadGone)):
            store.remove(upload.id)
            self.write(old, b"XXX")

    def test_keeping_counts_no_staged_block(self, store: Store) -> None:
        upload = store.create(Upload(length=3))
        with store.open(upload, 0, staged=True) as session:
            session.write(b"abc")
            assert (session.keep().offset, session.upload.offset) == (0, 0)
            assert session.commit().state == State.COMPLETE

    def test_blocks_count_without_a_commit(self, store: Store) -> None:
        upload = store.create(Upload(length=6))
        with pytest.raises(RuntimeError), store.open(upload, 0) as session:
            session.write(b"abc")
            raise RuntimeError
        assert store.load(upload.id).offset == 3

    @pytest.mark.parametrize("staged", [True, False])
    def test_many_blocks_at_once(self, store: Store, staged: bool) -> None:
        # More blocks than one system call takes, and empty ones.
        blocks = [bytes([i % 251]) * (i % 7) for i in range(3000)]
        whole = b"".join(blocks)
        upload = store.create(Upload(length=len(whole), hashes=("sha256",)))
        with store.open(upload, 0, staged=staged) as session:
            session.write(*blocks[:10], memoryview(b"".join(blocks[10:20])))
            session.write(*blocks[20:])
            assert session.commit().state == State.COMPLETE
        assert self.read(store, upload) == whole
        claim = store.claim(store.load(upload.id))
        assert claim.digest().digest("sha256") == hashlib.sha256(whole).digest()
        claim.release()

    def test_append_is_one_step(self, store: Store) -> None:
        upload = store.create(Upload(length=6))
        assert store.append(upload, 0, b"abc").offset == 3
        after = store.append(upload, 3, b"def")
        assert (after.offset, after.state) == (6, State.COMPLETE)
        assert self.read(store, upload) == b"abcdef"

    def test_the_length_can_be_reached_without_an_end(self, store: Store) -> None:
        upload = store.append(store.create(Upload(length=3)), 0, b"abc", completes=False)
        assert (upload.offset, upload.state) == (3, State.RECEIVING)
        upload = store.create(Upload(length=6))
        with store.open(upload, 0, completes=False) as session:
            session.write(b"abc")
            session.write(b"def")
            assert session.commit().state == State.RECEIVING
        assert store.load(upload.id).offset == 6
        ended = store.append(upload, 6, b"")
        assert (ended.offset, ended.state) == (6, State.COMPLETE)
        assert self.read(store, upload) == b"abcdef"

    @pytest.mark.parametrize("staged", [True, False])
    def test_an_end_settles_the_length(self, store: Store, staged: bool) -> None:
        upload = store.create(Upload())
        with store.open(upload, 0, staged=staged) as session:
            session.write(b"abc")
            assert session.commit(ends=True).state == State.COMPLETE
        assert (store.load(upload.id).length, store.load(upload.id).offset) == (3, 3)
        assert self.read(store, upload) == b"abc"

    def test_an_end_before_the_length_does_not_complete(self, store: Store) -> None:
        upload = store.create(Upload(length=6))
        with store.open(upload, 0) as session:
            session.write(b"abc")
            assert session.commit(ends=True).state == State.RECEIVING
        assert (store.load(upload.id).length, store.load(upload.id).offset) == (6, 3)

    @pytest.mark.parametrize("offset", [0, 2, 4, 10**12])
    def test_a_wrong_offset_is_refused_and_ends_no_session(self, store: Store, offset: int) -> None:
        upload = store.create(Upload(length=6))
        with store.open(upload, 0) as session:
            self.write(session, b"abc")
            with pytest.raises(OffsetMismatch) as refused:
                store.open(upload, offset)
            assert refused.value.offset == 3
            with pytest.raises(OffsetMismatch):
                store.append(upload, offset, b"xxx")
            self.write(session, b"def")
        assert self.read(store, upload) == b"abcdef"

    def test_a_complete_upload_accepts_no_more_bytes(self, store: Store) -> None:
        upload = store.create(Upload(length=1))
        store.append(upload, 0, b"a")
        with pytest.raises(OffsetMismatch):
            store.append(upload, 1, b"b")
        with pytest.raises(OffsetMismatch):
            store.open(upload, 1)
        assert self.read(store, upload) == b"a"

    def test_a_newer_session_ends_the_older(self, store: Store) -> None:
        upload = store.create(Upload(length=6))
        with store.open(upload, 0) as old:
            self.write(old, b"abc")
            assert old.is_current()
            with store.open(upload, 3) as new:
                assert not old.is_current()
                assert new.is_current()
                with pytest.raises(UploadReplaced):
                    self.write(old, b"XXX")
                self.write(new, b"def")
            with pytest.raises(UploadReplaced):
                self.write(old, b"XXX")
        assert self.read(store, upload) == b"abcdef"

    def test_append_ends_a_session_too(self, store: Store) -> None:
        upload = store.create(Upload(length=6))
        with store.open(upload, 0) as old:
            store.append(upload, 0, b"abc")
            with pytest.raises(UploadReplaced):
                self.write(old, b"XXX")
        assert store.load(upload.id).offset == 3

    def test_a_fence_ends_a_session_and_nothing_else(self, store: Store, clock: Clock) -> None:
        upload = store.create(Upload(length=10))
        with store.open(upload, 0) as session:
            self.write(session, b"abc")
            before = store.load(upload.id)
            clock.now += 1
            assert store.fence(upload) == before
            assert not session.is_current()
            with pytest.raises(UploadReplaced):
                self.write(session, b"d")
        assert store.load(upload.id).offset == 3
        assert store.append(upload, 3, b"defghij").is_complete
        assert store.fence(upload).is_complete

    def test_one_of_many_wins_each_offset(self, store: Store) -> None:
        upload = store.create(Upload(length=None))
        wins: list[bytes] = []

        def work(mark: bytes) -> None:
            for _ in range(30):
                try:
                    stands = store.load(upload.id).offset
                    with store.open(upload, stands) as session:
                        self.write(session, mark * 7)
                        wins.append(mark)
                except (OffsetMismatch, UploadReplaced):
                    pass

        threads = [threading.Thread(target=work, args=(mark,)) for mark in (b"a", b"b", b"c")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        offset = store.load(upload.id).offset
        assert offset == 7 * len(wins)
        store.append(upload, offset, b"", length=offset)
        data = self.read(store, upload)
        assert sorted(data[i : i + 7] for i in range(0, offset, 7)) == sorted(mark * 7 for mark in wins)

    # -- Length --

    def test_length_zero_is_complete_at_once(self, store: Store) -> None:
        upload = store.create(Upload(length=0))
        assert upload.state == State.COMPLETE
        assert self.read(store, upload) == b""

    def test_a_deferred_length_is_settled_by_a_session(self, store: Store) -> None:
        upload = store.create(Upload())
        assert upload.length is None
        assert store.append(upload, 0, b"abc").state == State.RECEIVING
        with store.open(upload, 3, length=5) as session:
            assert store.load(upload.id).length == 5
            session.write(b"de")
        assert store.load(upload.id).state == State.COMPLETE

    def test_settling_the_length_can_complete(self, store: Store) -> None:
        one, other = store.create(Upload()), store.create(Upload())
        store.append(one, 0, b"abc")
        assert store.append(one, 3, b"", length=3).state == State.COMPLETE
        store.append(other, 0, b"abc")
        with store.open(other, 3, length=3) as session:
            assert session.commit().state == State.COMPLETE

    # -- Staged blocks --

    def test_staged_blocks_count_when_committed(self, store: Store) -> None:
        upload = store.create(Upload(length=6))
        with store.open(upload, 0, staged=True) as session:
            session.write(b"abc")
            session.write(b"def")
            assert store.load(upload.id).offset == 0
            assert session.commit().state == State.COMPLETE
        assert self.read(store, upload) == b"abcdef"

    def test_staged_blocks_without_a_commit_are_discarded(self, store: Store) -> None:
        upload = store.create(Upload())
        store.append(upload, 0, b"abc")
        with store.open(upload, 3, length=4, staged=True) as session:
            session.write(b"XXXXXXX")
        assert (store.load(upload.id).offset, store.load(upload.id).length) == (3, None)
        store.append(upload, 3, b"", length=3)
        assert self.read(store, upload) == b"abc"

    def test_a_replaced_staged_session_cannot_commit(self, store: Store) -> None:
        upload = store.create(Upload(length=6))
        with store.open(upload, 0, staged=True) as old:
            self.write(old, b"XXX")
            with store.open(upload, 0) as new:
                self.write(new, b"abcdef")
            with pytest.raises(UploadReplaced):
                old.commit()
        assert self.read(store, upload) == b"abcdef"

    # -- Removing --

    def test_a_removed_upload_is_gone(self, store: Store) -> None:
        upload = store.create(Upload(length=6))
        with store.open(upload, 0) as session:
            self.write(session, b"abc")
            store.remove(upload.id)
            with pytest.raises((UploadGone, UploadReplaced)):
                self.write(session, b"def")
        with pytest.raises(UploadNotFound):
            store.load(upload.id)
        assert isinstance(store, Lists)
        assert list(store.list()) == []
