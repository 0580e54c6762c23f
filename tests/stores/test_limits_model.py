"""The limits under random mixes of what uses room, with processes that die, held against a model.

Charged is at all times what is kept, or more: what sessions are charged ahead, and what processes that died have left
charged until a sweep. Each refusal is held against the model too: what fits is never refused.
"""

import contextlib
import os
import tempfile
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import HealthCheck, assume, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tus.errors import QuotaExceeded, RequestError, TooLarge, TooManyUploads
from tus.models import Upload, is_upload_id
from tus.stores.charges import step_of
from tus.stores.directory import creation
from tus.stores.directory.quota import NAME, Quota
from tus.stores.directory.store import DirectoryStore
from tus.stores.interface import Limits
from tus.stores.memory import MemoryStore
from tus.testing import Clock

LIMITS = Limits(uploads=8, size=1000, uploads_each=5, size_each=600)
AHEAD = step_of(LIMITS, None)
LIFETIME = 100
PRINCIPALS = st.sampled_from([None, "ann", "bob"])


class Crash(BaseException):
    """The process dies here."""


class Model:
    """What an upload must be charged."""

    def __init__(self, upload):
        self.id = upload.id
        self.principal = upload.principal
        self.is_partial = upload.is_partial
        self.length = upload.length
        self.offset = upload.offset
        self.is_decided = False

    @property
    def charge(self):
        return (0, self.offset) if self.is_decided else (1, max(self.length or 0, self.offset))


class Limiting(RuleBasedStateMachine):
    """Two stores over one place."""

    def __init__(self):
        super().__init__()
        self.clock = Clock()
        self.models = {}
        self.sessions = []  # with their model
        self.left_charged = 0  # by processes that died
        self.left_uploads = 0
        self.swept_over = 0  # what open sessions were charged ahead when a sweep has counted again
        self.make()

    def options(self):
        return {"limits": LIMITS, "lifetime": LIFETIME, "completed_keep": 50, "rejected_keep": 30, "clock": self.clock}

    # -- What is expected --

    def total(self, principal=None):
        charges = [one.charge for one in self.models.values() if principal is None or one.principal == principal]
        return sum(number for number, _ in charges), sum(size for _, size in charges)

    @property
    def tolerance(self):
        """How many bytes may be charged that the model does not know."""
        unverified = sum(session.unverified for session, _ in self.sessions)
        return self.left_charged + AHEAD * len(self.sessions) + unverified

    def does_not_fit(self, principal, size):
        """Whether a refusal of so many bytes is right."""
        if self.total()[1] + size + self.tolerance > LIMITS.size:
            return True
        return principal is not None and self.total(principal)[1] + size + self.tolerance > LIMITS.size_each

    def counts(self):
        raise NotImplementedError

    @invariant()
    def what_is_charged_is_what_is_kept(self):
        uploads, size = self.total()
        counts = self.counts()
        assert uploads <= counts.uploads <= uploads + self.left_uploads
        assert size - self.swept_over <= counts.size <= size + self.tolerance
        for principal in ("ann", "bob"):
            uploads, size = self.total(principal)
            number, charged = counts.each.get(principal, (0, 0))
            assert uploads <= number <= uploads + self.left_uploads
            assert size - self.swept_over <= charged <= size + self.tolerance
            assert size <= LIMITS.size_each + self.swept_over
            assert uploads <= LIMITS.uploads_each
        assert self.total()[1] <= LIMITS.size + self.swept_over
        assert self.total()[0] <= LIMITS.uploads

    # -- What happens --

    def pick(self, number, wanted=lambda model: True):
        """One of the uploads; the run of this rule ends if there is none."""
        models = [model for model in self.models.values() if wanted(model)]  # ids are random, their order is not
        assume(models)
        return models[number % len(models)]

    @staticmethod
    def is_receiving(model):
        return not model.is_decided and model.offset != model.length

    @staticmethod
    def is_complete(model):
        return not model.is_decided and model.offset == model.length

    number = st.integers(0, 99)
    store = st.integers(0, 1)
    size = st.integers(0, 400)

    @rule(store=store, principal=PRINCIPALS, length=st.none() | st.integers(0, 700), partial=st.booleans())
    def create(self, store, principal, length, partial):
        draft = Upload(length=length, principal=principal, concat="partial" if partial else None)
        self.create_draft(store, draft)

    def create_draft(self, store, draft):
        try:
            upload = self.stores[store].create(draft)
        except TooLarge:
            assert draft.length > (LIMITS.size if draft.principal is None else LIMITS.size_each)
        except TooManyUploads:
            each = self.total(draft.principal)[0] if draft.principal is not None else 0
            is_full = self.total()[0] + self.left_uploads >= LIMITS.uploads
            assert is_full or each + self.left_uploads >= LIMITS.uploads_each
        except QuotaExceeded:
            assert self.does_not_fit(draft.principal, draft.length)
        else:
            self.models[upload.id] = Model(upload)
            return upload
        return None

    @rule(store=store, principal=PRINCIPALS, size=size, partial=st.booleans())
    def arrive(self, store, principal, size, partial):
        """A whole upload."""
        assume(size)
        upload = self.create_draft(store, Upload(length=size, principal=principal, concat="partial" * partial or None))
        if upload is not None:
            self.step(store, self.models[upload.id], size, None)

    @rule(store=store, principal=PRINCIPALS, sizes=st.lists(size, min_size=1, max_size=3), staged=st.booleans())
    def stream(self, store, principal, sizes, staged):
        """A session that goes on."""
        assume(len(self.sessions) < 3)
        upload = self.create_draft(store, Upload(principal=principal))
        if upload is not None:
            self.open_session(store, self.models[upload.id], staged, None)
            for size in sizes:
                self.sessions[-1][0].write(self, size)

    @rule(store=store, number=number, size=size, ends=st.booleans())
    def append(self, store, number, size, ends):
        model = self.pick(number, self.is_receiving)
        length = model.offset + size if ends and model.length is None else None
        if model.length is not None:
            size = min(size, model.length - model.offset)
        self.step(store, model, size, length)

    def step(self, store, model, size, length):
        store = self.stores[store]
        upload = store.load(model.id)
        try:
            store.append(upload, model.offset, bytes(size), length)
        except TooLarge:
            assert length > (LIMITS.size if model.principal is None else LIMITS.size_each)
        except QuotaExceeded:
            assert self.does_not_fit(model.principal, size)
            self.look(store, model)
        else:
            model.offset += size
            model.length = model.length if length is None else length

    def look(self, store, model):
        """Take over how many of the bytes were kept, at most those for which there was room."""
        kept = store.load(model.id).offset
        assert kept >= model.offset
        model.offset = kept

    @rule(store=store, number=number, staged=st.booleans(), length=st.none() | st.integers(0, 300))
    def open(self, store, number, staged, length):
        assume(len(self.sessions) < 3)
        model = self.pick(number, lambda model: self.is_receiving(model) and model.length is None)
        assume(not any(other is model for _, other in self.sessions))
        self.open_session(store, model, staged, None if length is None else model.offset + length)

    def open_session(self, store, model, staged, length):
        store = self.stores[store]
        try:
            session = store.open(store.load(model.id), model.offset, length, staged=staged)
        except TooLarge:
            assert length > (LIMITS.size if model.principal is None else LIMITS.size_each)
            return
        except QuotaExceeded:
            assert self.does_not_fit(model.principal, length - model.offset)
            return
        if not staged:
            model.length = length
        self.sessions.append((Session(session, store, model, staged, length), model))

    @rule(number=number, size=size)
    def write(self, number, size):
        assume(self.sessions)
        session, _ = self.sessions[number % len(self.sessions)]
        session.write(self, size)

    @rule(number=number, commits=st.booleans())
    def close(self, number, commits):
        assume(self.sessions)
        session, _ = self.sessions.pop(number % len(self.sessions))
        session.close(commits)

    @rule(number=number, store=store, times=st.integers(1, 4))
    def concatenate(self, number, store, times):
        part = self.pick(number, lambda model: model.is_partial and self.is_complete(model))
        store = self.stores[store]
        parts = [store.load(part.id)] * times
        draft = Upload(concat="final", parts=(part.id,) * times, length=None, principal=part.principal)
        final = self.create_draft(self.stores.index(store), draft)
        if final is None:
            return
        try:
            store.concatenate(final.id, parts)
        except TooLarge:
            assert part.offset * times > (LIMITS.size if part.principal is None else LIMITS.size_each)
        except QuotaExceeded:
            assert self.does_not_fit(part.principal, part.offset * times)
        else:
            model = self.models[final.id]
            model.offset = model.length = part.offset * times

    @rule(number=number, store=store, decision=st.sampled_from(["accept", "keep", "reject", "release"]))
    def hand_over(self, number, store, decision):
        model = self.pick(number, lambda model: self.is_complete(model) and not model.is_partial)
        claim = self.stores[store].claim(self.stores[store].load(model.id))
        claim.begin()
        if decision == "reject":
            claim.reject()
            model.is_decided = True
        elif decision == "release":
            claim.release()
        else:
            if decision == "keep":
                claim.keep()
            claim.accept()
            model.is_decided = True
            model.offset = model.offset if decision == "keep" else 0

    @rule(number=number, store=store)
    def terminate(self, number, store):
        model = self.pick(number)
        self.stores[store].remove(model.id)
        del self.models[model.id]

    @rule(store=store, seconds=st.sampled_from([0, 0, 31, 51, 101]))
    def sweep(self, store, seconds):
        self.clock.now += seconds
        self.stores[store].sweep()
        alive = {upload.id for upload in self.stores[store].list()}
        for model in [model for model in self.models.values() if model.id not in alive]:
            del self.models[model.id]
        self.has_swept()

    def has_swept(self):
        """Take account of a sweep, if it counts again."""


class Session:
    """An open session, as the model knows it."""

    def __init__(self, session, store, model, staged, length):
        self.session = session.__enter__()
        self.start = model.offset
        self.store = store
        self.model = model
        self.staged = staged
        self.length = length
        self.written = 0
        self.refused = 0  # bytes that are charged until the session ends, because it was replaced

    @property
    def unverified(self):
        """The bytes that may be charged though the model does not count them."""
        unverified = max(self.written, (self.length or 0) - self.start, 0) if self.staged else 0
        return unverified + self.refused

    def write(self, machine, size):
        if self.length is not None:
            size = max(min(size, self.length - self.model.offset - self.written), 0)
        try:
            self.session.write(bytes(size))
        except QuotaExceeded:
            assert machine.does_not_fit(self.model.principal, size)
        except RequestError:  # it was replaced, or removed
            self.refused += size
            return
        if self.staged:
            self.written += size
        elif self.model.id in machine.models:
            machine.look(self.store, self.model)

    def close(self, commits):
        with contextlib.suppress(RequestError), self.session as session:
            if commits:
                session.commit()
        if not self.model.is_decided:
            with contextlib.suppress(RequestError):
                upload = self.store.load(self.model.id)
                self.model.offset, self.model.length = upload.offset, upload.length


class Directory(Limiting):
    def make(self):
        self.place = tempfile.TemporaryDirectory()
        self.stores = [DirectoryStore(self.place.name, fsync="none", **self.options()) for _ in range(2)]

    def teardown(self):
        for session, _ in self.sessions:
            session.close(False)
        self.place.cleanup()

    def counts(self):
        return self.stores[0]._quota.read("ann", "bob")

    def has_swept(self):
        """A sweep corrects what processes that died have left, and does not know what sessions are charged ahead."""
        self.left_charged = self.left_uploads = 0
        self.swept_over = AHEAD * 4 if self.sessions else 0
        for model in self.models.values():  # but what such a process has written and not counted is still there
            with contextlib.suppress(FileNotFoundError):
                uncounted = os.stat(os.path.join(self.place.name, model.id)).st_size - model.offset
                self.left_charged += max(uncounted, 0)

    @invariant()
    def what_is_on_the_disk_is_charged(self):
        sizes = [path.stat().st_size for path in Path(self.place.name).iterdir() if is_upload_id(path.name)]
        assert sum(sizes) <= self.counts().size + self.swept_over

    # -- Processes that die --

    @contextlib.contextmanager
    def dying(self):
        """A process that dies before it gives back what it was charged."""
        with mock.patch.object(Quota, "_give_back", side_effect=Crash), pytest.raises(Crash):
            yield

    @rule(principal=PRINCIPALS, length=st.integers(0, 300))
    def die_before_a_creation(self, principal, length):
        counts = self.counts()
        fits = (
            LIMITS.size - counts.size >= length and LIMITS.size_each - counts.each.get(principal, (0, 0))[1] >= length
        )
        assume(fits and counts.uploads < LIMITS.uploads and counts.each.get(principal, (0, 0))[0] < LIMITS.uploads_each)
        with self.dying(), mock.patch.object(creation, "_make", side_effect=Crash):
            self.stores[0].create(Upload(length=length, principal=principal))
        self.left_charged += length
        self.left_uploads += 1

    @rule(number=Limiting.number)
    def die_after_a_removal(self, number):
        model = self.pick(number)
        with self.dying():
            self.stores[0].remove(model.id)
        del self.models[model.id]
        self.left_charged += model.charge[1]
        self.left_uploads += model.charge[0]

    @rule(number=Limiting.number)
    def die_after_an_acceptance(self, number):
        model = self.pick(number, lambda model: self.is_complete(model) and not model.is_partial)
        claim = self.stores[0].claim(self.stores[0].load(model.id))
        claim.begin()
        with self.dying():
            claim.accept()
        self.left_charged += model.charge[1]
        self.left_uploads += 1
        model.is_decided, model.offset = True, 0

    @rule(number=Limiting.number)
    def die_in_a_session(self, number):
        assume(self.sessions)
        session, _ = self.sessions.pop(number % len(self.sessions))
        self.left_charged += AHEAD + session.unverified
        os.close(session.session._data_fd)
        session.session._data_fd = -1
        session.session._car.close()

    @rule()
    def lose_the_counts(self):
        os.unlink(os.path.join(self.place.name, NAME))
        self.counts()
        self.has_swept()


class Memory(Limiting):
    def make(self):
        store = MemoryStore(**self.options())
        self.stores = [store, store]

    def counts(self):
        return self.stores[0]._counts


def machine(kind, examples):
    case = kind.TestCase
    case.settings = settings(
        max_examples=examples, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
    )
    return case


TestDirectory = machine(Directory, 25)
TestMemory = machine(Memory, 25)


@pytest.mark.long
class TestDirectoryLonger(type("Longer", (Directory,), {}).TestCase):
    settings = settings(TestDirectory.settings, max_examples=150, stateful_step_count=50)
