"""The life of an upload's record by itself: random events, in random order, against the laws of the ledger."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tus.errors import (
    BadRequest,
    InconsistentLength,
    OffsetMismatch,
    RequestError,
    TooLarge,
    UploadGone,
    UploadReplaced,
)
from tus.models import Response, State, Upload
from tus.stores import ledger
from tus.stores.directory import record_format as sidecar
from tus.stores.directory.store import DirectoryStore
from tus.stores.slots import Lifetimes, Slot, upload_of

LIFETIMES = Lifetimes(lifetime=100, completed_keep=50, rejected_keep=30)
DECIDED = (State.ACCEPTED, State.REJECTED)
PENDING = (State.COMPLETE, State.HANDING_OVER)

sizes = st.integers(0, 6)
lengths = st.none() | st.integers(0, 12)


class Lives(RuleBasedStateMachine):
    """One record, sessions and claims that are open on it, and what the medium has stored.

    Attributes:
        stored: the bytes that a medium would have; only what a session wrote before it counted.
        history: every slot so far.
    """

    @initialize(length=lengths, is_known=st.booleans(), is_final=st.booleans(), is_partial=st.booleans())
    def create(self, length, is_known, is_final, is_partial):
        self.now = 1000.0
        self.is_partial = is_partial and not is_final
        self.slot = ledger.create(
            length=length, now=self.now, lifetimes=LIFETIMES, is_known=is_known, is_final=is_final
        )
        self.stored = 0
        self.sessions = []
        self.claims = []
        self.latest = -1  # the newest generation that a session or a claim was given
        self.history = [self.slot]

    def change(self, transition, *arguments, **named):
        """Do what a store does; whether it was not refused."""
        before = self.slot
        try:
            after = transition(before, *arguments, **named)
        except RequestError as error:
            self.refused = error
            return False
        self.slot = after
        if after is not before:
            self.history.append(after)
            assert after.sequence == before.sequence + 1
        return True

    @rule(seconds=st.integers(1, 200))
    def time_passes(self, seconds):
        self.now += seconds

    # -- Receiving --

    @rule(
        shift=st.sampled_from([0, 0, 0, 1, -1]),
        length=lengths,
        staged=st.booleans(),
        completes=st.booleans(),
        is_known=st.booleans(),
    )
    def open(self, shift, length, staged, completes, is_known):
        offset = self.slot.offset + shift
        before = self.slot
        opened = self.change(
            ledger.open,
            offset=offset,
            length=length,
            now=self.now,
            lifetimes=LIFETIMES,
            is_known=is_known,
            staged=staged,
            completes=completes,
        )
        if not opened:
            assert self.slot is before
            return
        assert shift == 0
        assert before.state == State.RECEIVING
        assert self.slot.generation > self.latest
        self.latest = self.slot.generation
        self.stored = offset
        self.sessions.append([self.slot.generation, offset, length, staged, completes])

    @precondition(lambda self: self.sessions)
    @rule(which=st.integers(0, 9), size=sizes, writing=st.booleans())
    def count(self, which, size, writing):
        session = self.sessions[which % len(self.sessions)]
        generation, start, length, _, completes = session
        end = start + size
        is_newest = generation == self.latest and self.slot.generation == generation
        if is_newest:
            self.stored = max(self.stored, end)  # an older one could not write, because it looks first
        counted = self.change(
            ledger.count,
            generation=generation,
            offset=end,
            length=length,
            now=self.now,
            lifetimes=LIFETIMES,
            completes=completes,
            writing=writing,
        )
        if counted:
            assert is_newest, "an older session has counted bytes after a newer one began"
            session[1] = end

    @precondition(lambda self: self.sessions)
    @rule(which=st.integers(0, 9))
    def leave(self, which):
        generation = self.sessions[which % len(self.sessions)][0]
        if self.change(ledger.leave, generation=generation):
            assert not self.slot.writing

    @rule()
    def fence(self):
        before = self.slot
        if self.change(ledger.fence):
            assert self.slot._replace(sequence=0, generation=0, writing=False) == before._replace(
                sequence=0, generation=0, writing=False
            )
            if before.state == State.RECEIVING:
                self.latest = self.slot.generation
                assert self.slot.generation > before.generation

    @rule(shift=st.sampled_from([0, 0, 0, 1]), size=sizes, length=lengths, completes=st.booleans())
    def append(self, shift, size, length, completes):
        offset = self.slot.offset + shift
        self.stored = max(self.stored, offset + size)
        appended = self.change(
            ledger.append,
            offset=offset,
            end=offset + size,
            length=length,
            now=self.now,
            lifetimes=LIFETIMES,
            completes=completes,
        )
        if appended:
            assert shift == 0
            assert self.slot.generation > self.latest
            self.latest = self.slot.generation

    @rule(size=sizes, length=lengths, is_last=st.booleans())
    def complete(self, size, length, is_last):
        before, offset = self.slot, self.slot.offset
        completed = self.change(
            ledger.complete,
            offset=offset,
            end=offset + size,
            length=length,
            now=self.now,
            lifetimes=LIFETIMES,
            is_last=is_last,
        )
        if completed:
            self.stored = max(self.stored, offset + size)
            assert before.state == State.RECEIVING
            assert (self.slot.state, self.slot.offset) == (State.HANDING_OVER, self.slot.length)
            assert (self.slot.attempts, self.slot.is_aside) == (before.attempts + 1, is_last)
            assert self.slot.generation > self.latest
            self.latest = self.slot.generation
            self.claims.append(self.slot.generation)

    @rule(size=sizes)
    def join(self, size):
        size += self.slot.offset
        self.stored = max(self.stored, size)
        if self.change(ledger.join, size=size, now=self.now, lifetimes=LIFETIMES):
            assert (self.slot.state, self.slot.offset) == (State.COMPLETE, size)
            self.latest = self.slot.generation

    # -- Hand-over --

    @rule(is_lease=st.booleans())
    def claim(self, is_lease):
        if is_lease:
            self.change(ledger.claim)
        if self.slot.state in PENDING:
            self.latest = self.slot.generation
            self.claims.append(self.slot.generation)

    @precondition(lambda self: self.claims)
    @rule(which=st.integers(0, 9), verb=st.sampled_from(["begin", "accept", "reject", "release"]), flag=st.booleans())
    def use_a_claim(self, which, verb, flag):
        index = which % len(self.claims)
        generation, before = self.claims[index], self.slot
        how = {
            "begin": {"is_last": flag, "is_known": flag},
            "accept": {"lifetimes": LIFETIMES},
            "reject": {"lifetimes": LIFETIMES},
            "release": {},
        }[verb]
        if not self.change(getattr(ledger, verb), generation=generation, now=self.now, **how):
            assert isinstance(self.refused, UploadReplaced | UploadGone)
            return
        assert generation == before.generation, "an older claim has decided"
        assert before.state in PENDING
        assert self.slot.generation >= before.generation
        self.latest = self.claims[index] = self.slot.generation
        if verb == "begin":
            assert self.slot.attempts == before.attempts + 1
        if verb == "release":
            assert self.slot.state == State.COMPLETE
            assert (self.slot is before) == (before.state == State.COMPLETE), "no attempt, no trace"

    @rule()
    def promise(self):
        if self.change(ledger.promise):
            assert self.slot.is_known

    @rule()
    def prolong(self):
        before = self.slot
        if self.change(ledger.prolong, now=self.now, lifetimes=LIFETIMES):
            assert before._replace(sequence=0, expires_at=None) == self.slot._replace(sequence=0, expires_at=None)
            if self.slot.state in DECIDED:
                assert self.slot is before

    # -- The end --

    @rule()
    def expire(self):
        before = self.slot
        self.change(ledger.expire, now=self.now, is_partial=self.is_partial)
        if self.slot is not before:
            assert before.expires_at is not None
            assert before.expires_at <= self.now
            assert not (before.state in PENDING and before.is_known and not self.is_partial), "a pending file expired"

    @rule()
    def terminate(self):
        before = self.slot
        self.change(ledger.terminate)
        assert self.slot.state == State.TERMINATED
        assert self.slot is before or self.slot.generation > before.generation

    # -- What always holds --

    @invariant()
    def the_laws_hold(self):
        if not hasattr(self, "history"):
            return
        slot = self.slot
        assert slot.offset <= self.stored, "more is counted than is stored"
        assert slot.length is None or slot.offset <= slot.length
        if slot.state in (*PENDING, *DECIDED):
            assert slot.offset == slot.length
            assert slot.since > 0
        if slot.state == State.TERMINATED:
            assert not slot.writing
        if len(self.history) < 2:
            return
        before, after = self.history[-2:]
        if after is not slot:
            return
        assert after.generation >= before.generation
        assert after.offset >= before.offset, "the offset has gone back"
        assert after.attempts >= before.attempts
        assert after.is_known >= before.is_known
        assert before.length is None or after.length == before.length
        if before.state in DECIDED:
            assert after.state in (before.state, State.TERMINATED)
        if before.state in PENDING:
            assert after.state != State.RECEIVING
        assert before.state != State.TERMINATED, "something has changed after the end"


Lives.TestCase.settings = settings(
    max_examples=400, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
TestLives = Lives.TestCase


# -- What each event refuses --


def made(**changes):
    return Slot(length=9, expires_at=1100.0)._replace(**changes)


AT = {"now": 1000.0, "lifetimes": LIFETIMES}


@pytest.mark.parametrize(
    ("event", "error"),
    [
        (lambda: ledger.open(made(), offset=1, **AT), OffsetMismatch),
        (lambda: ledger.open(made(state=State.COMPLETE, offset=9), offset=9, **AT), OffsetMismatch),
        (lambda: ledger.open(made(state=State.TERMINATED), offset=0, **AT), UploadGone),
        (lambda: ledger.open(made(), offset=0, length=8, **AT), InconsistentLength),
        (lambda: ledger.open(made(length=None, offset=3), offset=3, length=2, **AT), InconsistentLength),
        (lambda: ledger.count(made(generation=2), generation=1, offset=3, **AT), UploadReplaced),
        (lambda: ledger.count(made(), generation=0, offset=10, **AT), TooLarge),
        (lambda: ledger.count(made(offset=3), generation=0, offset=2, **AT), OffsetMismatch),
        (lambda: ledger.count(made(state=State.TERMINATED), generation=0, offset=1, **AT), UploadGone),
        (lambda: ledger.append(made(), offset=0, end=10, **AT), TooLarge),
        (lambda: ledger.complete(made(), offset=0, end=8, **AT), InconsistentLength),
        (lambda: ledger.complete(made(length=None), offset=0, end=8, **AT), InconsistentLength),
        (lambda: ledger.begin(made(), generation=0, now=1.0), UploadReplaced),
        (lambda: ledger.begin(made(state=State.ACCEPTED), generation=0, now=1.0), UploadReplaced),
        (lambda: ledger.accept(made(state=State.COMPLETE), generation=1, **AT), UploadReplaced),
        (lambda: ledger.accept(made(state=State.REJECTED), generation=0, **AT), UploadReplaced),
        (lambda: ledger.reject(made(state=State.TERMINATED), generation=0, **AT), UploadGone),
        (lambda: ledger.claim(made(state=State.TERMINATED)), UploadGone),
        (lambda: ledger.watch([str(number) for number in range(16)], "x"), BadRequest),
    ],
)
def test_what_is_refused(event, error):
    with pytest.raises(error):
        event()


def test_a_session_that_has_completed_the_upload_may_count_nothing_more():
    opened = ledger.open(made(), offset=0, **AT)
    whole = ledger.count(opened, generation=1, offset=9, writing=True, **AT)
    assert (whole.state, whole.writing) == (State.COMPLETE, False)
    assert ledger.count(whole, generation=1, offset=9, **AT) is whole
    with pytest.raises(TooLarge):
        ledger.count(whole, generation=1, offset=10, **AT)


def test_a_staged_session_settles_the_length_when_it_counts():
    opened = ledger.open(made(length=None), offset=0, length=5, staged=True, **AT)
    assert opened.length is None
    assert ledger.count(opened, generation=1, offset=5, length=5, **AT).length == 5


@pytest.mark.parametrize("state", PENDING)
def test_what_waits_for_the_application_does_not_expire(state):
    waiting = made(state=state, offset=9)
    assert ledger.expire(waiting, now=1e12, is_partial=False) is waiting
    assert ledger.expire(waiting, now=1e12, is_partial=True).state == State.TERMINATED
    assert ledger.expire(waiting._replace(is_known=False), now=1e12, is_partial=False).state == State.TERMINATED


@pytest.mark.parametrize("expires_at", [None, 999.0, 1000.0, 1001.0, 1030.0, 1031.0, 1100.0, 1101.0, 1e9])
@pytest.mark.parametrize("state", State)
def test_a_slot_alone_shows_that_a_sweep_must_only_count(state, expires_at):
    slot = Slot(state=state, expires_at=expires_at, offset=1)
    upload = upload_of(Upload(id="a"), slot)
    is_too_far = ledger.is_too_far(upload, now=1000.0, lifetimes=LIFETIMES)
    must_act = state in (*PENDING, State.TERMINATED) or upload.has_expired(1000.0) or is_too_far
    assert ledger.is_at_rest(slot, now=1000.0, lifetimes=LIFETIMES) is not must_act


def test_a_part_is_watched_once():
    assert ledger.watch((), "a") == ("a",)
    assert ledger.watch(["a"], "a") == ("a",)


def test_what_the_medium_has_lost_is_sent_again():
    accepted = made(state=State.COMPLETE, offset=9, since=5.0, attempts=2)
    assert ledger.shorten(accepted, 9) is accepted
    shortened = ledger.shorten(accepted, 4)
    assert (shortened.state, shortened.offset, shortened.attempts) == (State.RECEIVING, 4, 2)
    assert ledger.append(shortened, offset=4, end=9, **AT).state == State.COMPLETE
    assert ledger.append(shortened, offset=4, end=9, **AT).attempts == 2
    assert ledger.complete(shortened, offset=4, end=9, **AT).attempts == 3


# -- The bytes of side-cars ---------------------------------------------------------------------------------------

FROZEN = json.loads(Path(__file__).with_name("frozen_sidecars.json").read_text())


BOOT = bytes(range(16))


class Clock:
    now = 1_700_000_000.25

    def __call__(self):
        return self.now


def test_side_cars_have_the_bytes_that_they_always_had(tmp_path, monkeypatch):
    """Another version of this package, or an older one, reads and writes the same directory."""
    clock, seen = Clock(), {}
    store = DirectoryStore(
        str(tmp_path), fsync="none", lifetime=1000, completed_keep=500, rejected_keep=300, clock=clock, boot=BOOT
    )

    def see(name, upload):
        seen[name] = (tmp_path / f"{upload.id}.tus").read_bytes().hex()

    def create(digit, **fields):
        return store.create(Upload(id=digit * 32, **fields))

    upload = create(
        "1", length=9, raw_metadata="filename \xe4bc,flag", service="/files", principal="ann", protocol="ietf"
    )
    see("created", upload)
    clock.now += 1
    upload = store.append(upload, 0, b"abc")
    see("appended", upload)
    with store.open(upload, 3) as session:
        see("opened", upload)
        session.write(b"de")
        see("written", upload)
    see("left", upload)
    store.fence(upload)
    see("fenced", upload)
    upload = store.append(store.load(upload.id), 5, b"fghi")
    see("complete", upload)
    clock.now += 1
    claim = store.claim(upload)
    claim.begin(is_last=True)
    see("handing over", upload)
    clock.now += 1
    claim.release("in vain")
    see("released", upload)
    claim = store.claim(store.load(upload.id))
    claim.begin()
    clock.now += 1
    claim.accept(Response(201, "Created", [("X-App", "1")], (b"yes",)))
    see("accepted", upload)
    upload = create("2", length=None, is_known=False, hashes=("sha256", "sha512"), announced=(("sha256", b"?" * 32),))
    see("unknown and hashed", upload)
    store.promise(upload)
    see("promised", upload)
    upload = create("3", length=0)
    store.claim(upload).reject(Response(415, "No", [], (b"no",)))
    see("rejected", upload)
    upload = create("4", length=3, concat="partial")
    store.watch(upload.id, "5" * 32)
    store.append(upload, 0, b"abc")
    see("part", upload)
    final = create("5", concat="final;/4", parts=("4" * 32,))
    monkeypatch.setattr(ledger, "PROLONG_EVERY", 0.0)
    store.touch(final.id)
    see("final", final)
    store.concatenate(final.id, [store.load(upload.id)])
    see("joined", final)
    assert seen == FROZEN


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("created", {"offset": 0, "length": 9, "state": State.RECEIVING, "protocol": "ietf", "principal": "ann"}),
        ("written", {"offset": 5, "raw_metadata": "filename \xe4bc,flag"}),
        ("handing over", {"state": State.COMPLETE, "attempts": 1, "is_aside": True, "offset": 9}),
        ("released", {"state": State.COMPLETE, "attempts": 1, "is_aside": True, "error": "in vain"}),
        ("accepted", {"state": State.ACCEPTED, "attempts": 2, "is_aside": False, "error": None}),
        ("unknown and hashed", {"is_known": False, "length": None, "hashes": ("sha256", "sha512")}),
        ("promised", {"is_known": True, "announced": (("sha256", b"?" * 32),)}),
        ("rejected", {"state": State.REJECTED, "expires_at": 1_700_000_304.25}),
        ("part", {"offset": 3, "is_partial": True}),
        ("joined", {"offset": 3, "length": 3, "parts": ("4" * 32,), "state": State.COMPLETE}),
    ],
)
def test_a_side_car_of_an_older_version_is_read(tmp_path, name, expected):
    content = bytes.fromhex(FROZEN[name])
    record = sidecar.unpack_record(content)
    (tmp_path / f"{record.id}.tus").write_bytes(content)
    (tmp_path / record.id).write_bytes(bytes(9))
    upload = DirectoryStore(str(tmp_path), boot=BOOT).load(record.id)
    assert {key: getattr(upload, key) for key in expected} == expected


@pytest.mark.parametrize("name", FROZEN)
def test_a_slot_of_an_older_version_is_packed_as_it_was(name):
    content = bytes.fromhex(FROZEN[name])
    slot = sidecar.unpack_slots(content)
    position = sidecar.position_of(slot)
    assert sidecar.pack_slot(slot) == content[position : position + sidecar.SLOT_SIZE]
