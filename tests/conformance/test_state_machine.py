"""Uploads under random requests, cuts and crashes, held against a model: bytes are equal, the offset never lies."""

import contextlib
import hashlib
import tempfile
from base64 import b64encode
from unittest import mock

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from tests.support.stores import KINDS, dying
from tests.support.subjects import SUBJECTS

MAX_SIZE = 3000


class Crash(BaseException):
    """The process dies here: nothing that would clean up gets to run its course."""


class Model:
    """What an upload must be."""

    def __init__(self, url, length, partial=False):
        self.url = url
        self.length = length
        self.partial = partial
        self.data = b""
        self.gone = False
        self.accepted = False

    @property
    def complete(self):
        return len(self.data) == self.length


def checksum(data):
    return {"Upload-Checksum": "sha256 " + b64encode(hashlib.sha256(data).digest()).decode()}


class Uploads(RuleBasedStateMachine):
    subject_class = SUBJECTS[0]
    kind = KINDS["directory"]
    uploads = Bundle("uploads")
    content = st.binary(max_size=800)

    @initialize()
    def start(self):
        self.directory = tempfile.TemporaryDirectory()
        self.models = []
        self.finals = 0
        self.now = 1e9
        self.where = self.kind(self.directory.name, lifetime=1000, completed_keep=10**9)
        self.clocks = contextlib.ExitStack()  # both, because one alone would have jumped
        self.clocks.enter_context(mock.patch("time.time", lambda: self.now))
        self.clocks.enter_context(mock.patch("time.clock_gettime", lambda clock: self.now))
        self.restart()

    def teardown(self):
        if hasattr(self, "directory"):
            self.clocks.close()
            self.directory.cleanup()

    @rule()
    def restart(self):
        """A new process over the same store."""
        landed = self.subject.landed if hasattr(self, "subject") else []
        self.subject = self.subject_class(
            **self.where, max_size=MAX_SIZE, upload_valid_duration=1000, completed_keep=10**9, fsync="none"
        )
        self.subject.landed = landed

    def add(self, model):
        self.models.append(model)
        return model

    # -- Creating --

    @rule(target=uploads, length=st.none() | st.integers(0, 2000), partial=st.booleans())
    def create(self, length, partial):
        headers = {"Upload-Concat": "partial"} if partial else {}
        return self.add(Model(self.subject.url(length, headers), length, partial))

    @rule(target=uploads, data=content, more=st.integers(0, 50), partial=st.booleans())
    def create_with_data(self, data, more, partial):
        headers = {"Upload-Concat": "partial"} if partial else {}
        reply = self.subject.create(len(data) + more, headers, data)
        assert reply.status == 201
        model = Model(reply["Location"], len(data) + more, partial)
        model.data = data
        if data:
            assert reply["Upload-Offset"] == str(len(data))
        return self.add(model)

    # -- Appending --

    def limit(self, model):
        return (MAX_SIZE if model.length is None else model.length) - len(model.data)

    @rule(model=uploads, data=content, chunked=st.booleans(), summed=st.booleans())
    def append(self, model, data, chunked, summed):
        headers = checksum(data) if summed else {}
        reply = self.subject.patch(model.url, len(model.data), data, headers, chunked=chunked)
        if model.gone:
            assert reply.status in (404, 410)
        elif len(data) > self.limit(model):
            assert reply.status == 413
        else:
            assert (reply.status, reply["Upload-Offset"]) == (204, str(len(model.data) + len(data)))
            model.data += data

    @rule(
        model=uploads, data=content, keep=st.floats(0, 1), error=st.none() | st.sampled_from([OSError(), ValueError()])
    )
    def append_and_cut(self, model, data, keep, error):
        if model.gone or len(data) > self.limit(model):
            return
        kept = data[: int(len(data) * keep)]
        reply = self.subject.patch(model.url, len(model.data), kept, length=len(data), error=error)
        stands = len(model.data)
        if error is None:
            stands += len(kept)  # a block that raised is lost, one that came short is kept
            assert (reply.status, reply["Upload-Offset"]) == (204, str(stands))
        offset = self.subject.offset(model.url)
        assert len(model.data) <= offset <= len(model.data) + len(kept)
        assert offset >= stands
        model.data += kept[: offset - len(model.data)]

    @rule(model=uploads, data=content, keep=st.floats(0, 1))
    def append_with_checksum_and_cut(self, model, data, keep):
        if model.gone or len(data) > self.limit(model) or not data:
            return
        kept = data[: int((len(data) - 1) * keep)]
        reply = self.subject.patch(model.url, len(model.data), kept, checksum(data), length=len(data))
        assert reply.status == 400

    @rule(model=uploads, data=content.filter(bool), chunked=st.booleans())
    def append_with_a_wrong_checksum(self, model, data, chunked):
        if model.gone or len(data) > self.limit(model):
            return
        reply = self.subject.patch(model.url, len(model.data), data, checksum(data + b"x"), chunked=chunked)
        assert reply.status == 460

    @rule(model=uploads, data=content, by=st.integers(-5000, 5000).filter(bool))
    def append_elsewhere(self, model, data, by):
        if model.gone or len(model.data) + by < 0:
            return
        reply = self.subject.patch(model.url, len(model.data) + by, data)
        assert (reply.status, reply["Upload-Offset"]) == (409, str(len(model.data)))

    @rule(model=uploads)
    def declare_the_length(self, model):
        if model.gone or model.length is not None:
            return
        length = len(model.data)
        reply = self.subject.patch(model.url, length, headers={"Upload-Length": str(length)})
        assert reply.status == 204
        model.length = length

    @rule(
        model=uploads,
        data=content.filter(bool),
        where=st.sampled_from(["body", "data", "slot"]),
        summed=st.booleans(),
        large=st.booleans(),
    )
    def crash(self, model, data, where, summed, large):
        """Die while the body is read, before the data is written, or before it is counted."""
        if model.gone or len(data) >= self.limit(model) or model.complete:
            return
        headers = checksum(data) if summed else {}
        how = {"error": Crash(), "length": len(data) + 1} if where == "body" else {}
        broken = contextlib.nullcontext() if where == "body" else dying(where, Crash)
        # A body that is longer than the smallest block takes the way of sessions instead of the short one.
        small = mock.patch("tus.server.runner.SMALL", 0 if large else 64 * 1024)
        with broken, small, pytest.raises(Crash):
            self.subject.patch(model.url, len(model.data), data, headers, **how)
        self.restart()
        if where == "body" and not summed and self.subject_class is SUBJECTS[2]:
            model.data += data  # an asynchronous driver keeps what it has even then
        assert self.subject.offset(model.url) == len(model.data)

    @rule(
        model=uploads,
        data=content,
        failures=st.lists(
            st.sampled_from(["503 Service Unavailable", "401 Unauthorized", RuntimeError("a bug")]), min_size=1
        ),
        again=st.sampled_from(["a byte", "nothing", "alone"]),
        died=st.booleans(),
    )
    def complete_while_the_application_fails(self, model, data, failures, again, died):
        if model.gone or model.partial or model.length is None or model.complete:
            return
        rest = data[: model.length - len(model.data)].ljust(model.length - len(model.data), b"?")
        whole = model.data + rest
        if self.subject_class is SUBJECTS[1]:  # what a view raises is its own business
            failures = [failure for failure in failures if isinstance(failure, str)] or ["503 Service Unavailable"]
        for failure in failures:
            self.subject.fail = failure
            reply = self.subject.patch(model.url, len(model.data), rest)
            assert reply.status == (500 if isinstance(failure, Exception) else int(failure[:3]))
            self.subject.fail = None
            assert self.subject.offset(model.url) == model.length - 1
            model.data, rest = whole[:-1], whole[-1:]
        if died:
            self.restart()
        wrong = self.subject.patch(model.url, model.length - 1, bytes([rest[0] ^ 1]))
        assert wrong.status == 400
        model.data = whole
        if again == "alone" and self.subject_class is not SUBJECTS[1]:
            assert len(list(self.subject.app.backlog.run(everything=True))) == 1
            again = "a byte"
        offset, body = (model.length - 1, rest) if again == "a byte" else (model.length, b"")
        assert self.subject.patch(model.url, offset, body).status == 204

    # -- The rest of a life --

    @rule(model=uploads)
    def head_tells_the_truth(self, model):
        reply = self.subject.head(model.url)
        if model.gone:
            assert reply.status in (404, 410)
            assert reply.get("Upload-Offset") is None
        else:
            assert (reply.status, reply["Upload-Offset"]) == (200, str(len(model.data)))
            assert reply.get("Upload-Length") == (None if model.length is None else str(model.length))

    @rule(model=consumes(uploads))
    def terminate(self, model):
        reply = self.subject.send("DELETE", model.url)
        assert reply.status in ((404, 410) if model.gone else (204,))
        model.gone = True

    @rule(target=uploads, parts=st.lists(uploads, min_size=1, max_size=4))
    def concatenate(self, parts):
        self.finals += 1
        headers = {
            "Upload-Concat": "final;" + " ".join(part.url for part in parts),
            "Upload-Metadata": "name " + b64encode(str(self.finals).encode()).decode(),
        }
        data = b"".join(part.data for part in parts)
        reply = self.subject.send("POST", headers=headers)
        if any(part.gone for part in parts):
            assert reply.status in (404, 410)
            return multiple()
        if not all(part.partial for part in parts):
            assert reply.status == 400
            return multiple()
        if sum(len(part.data) if part.length is None else part.length for part in parts) > MAX_SIZE:
            assert reply.status == 413
            return multiple()
        assert reply.status == 201
        if not all(part.complete for part in parts):
            assert self.subject.head(reply["Location"]).get("Upload-Offset") is None
            self.subject.send("DELETE", reply["Location"])  # the model does not follow what waits
            return multiple()
        assert reply["Upload-Offset"] == str(len(data))
        final = Model(reply["Location"], len(data))
        final.data = data
        final.is_final = True
        self.models.append(final)
        assert self.subject.patch(final.url, len(data), b"").status == 403
        return multiple()

    @rule(seconds=st.integers(1, 1500))
    def time_passes(self, seconds):
        self.now += seconds
        for model in self.models:
            reply = self.subject.head(model.url)
            if reply.status == 410:
                assert not model.complete or model.partial, "a finished file has expired"
                model.gone = True

    @rule()
    def sweep(self):
        self.restart()
        self.subject.stored().sweep()

    # -- What always holds --

    @invariant()
    def every_finished_file_landed_once_and_whole(self):
        if not hasattr(self, "models"):
            return
        expected = sorted(
            (model.url.rpartition("/")[2], model.data) for model in self.models if model.complete and not model.partial
        )
        assert sorted((upload.id, data) for upload, data in self.subject.landed) == expected


def machine(subject, kind="directory", examples=60):
    case = type(f"{subject.__name__}Uploads", (Uploads,), {"subject_class": subject, "kind": KINDS[kind]}).TestCase
    case.settings = settings(
        max_examples=examples,
        stateful_step_count=40,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    return case


TestFilter = machine(SUBJECTS[0])
TestView = machine(SUBJECTS[1])
TestAsgi = machine(SUBJECTS[2])
# A store without files, at once and as one on another host; a view gets its files by their path.
TestMemory = machine(SUBJECTS[0], "memory", 20)
TestLate = machine(SUBJECTS[0], "late", 40)
TestLateAsgi = machine(SUBJECTS[2], "late", 40)
TestLeased = machine(SUBJECTS[0], "leased", 20)
