"""Uploads that meet both protocols, in every version, with cuts and an application that fails, held against a model.

Any request may follow any other one. Bytes are equal whatever happens; to clients of the IETF protocol an offset never
decreases; nobody is told success before the application has the file; and whatever an upload has been through, either
protocol can bring it to its end.
"""

import tempfile

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from tests.support.ietf import ALL, NEWEST, VERSIONS, Client, digest
from tests.support.stores import KINDS
from tests.support.subjects import SUBJECTS, ViewSubject

REJECTION = "422 Unprocessable Content"
FAILURES = ("503 Service Unavailable", "401 Unauthorized", "302 Found", RuntimeError("a bug"))


class Model:
    """What an upload must be.

    Attributes:
        told: the highest offset that a client of the IETF protocol was told.
        rejected: whether the application has said that it does not want it.
    """

    def __init__(self, url, data, length):
        self.url = url
        self.data = data
        self.length = length
        self.told = 0
        self.rejected = False
        self.gone = False

    @property
    def id(self):
        return self.url.rpartition("/")[2]


class Mixed(RuleBasedStateMachine):
    subject_class = SUBJECTS[0]
    kind = KINDS["directory"]
    uploads = Bundle("uploads")
    content = st.binary(max_size=4) | st.binary(max_size=600)
    surplus = st.none() | st.sampled_from([0, 1, 1, 2, 50])
    versions = st.sampled_from(ALL)

    @initialize()
    def start(self):
        self.directory = tempfile.TemporaryDirectory()
        self.models = []
        self.where = self.kind(self.directory.name)
        self.restart()

    def teardown(self):
        if hasattr(self, "directory"):
            self.directory.cleanup()

    @rule()
    def restart(self):
        """A new process over the same store."""
        landed, fail = (self.subject.landed, self.subject.fail) if hasattr(self, "subject") else ([], None)
        self.subject = self.subject_class(**self.where, fsync="none")
        self.subject.landed, self.subject.fail = landed, fail

    def client(self, version):
        return Client(self.subject, version)

    def has_landed(self, model):
        return any(upload.id == model.id for upload, _ in self.subject.landed)

    # -- The application --

    @rule(failure=st.sampled_from([None, REJECTION, *FAILURES]))
    def the_application_changes(self, failure):
        if self.subject_class is ViewSubject and not isinstance(failure, str | None):
            failure = FAILURES[0]  # what a view raises is its own business
        self.subject.fail = failure

    # -- What holds for every reply --

    def hear(self, model, reply, client):
        """Look at a reply of the IETF protocol."""
        if reply.get(client.field) is None:
            return  # a view's own
        if reply.get("Upload-Offset") is not None:
            assert int(reply["Upload-Offset"]) >= model.told
            model.told = int(reply["Upload-Offset"])
        if client.told(reply):
            if reply.status == 422:
                assert self.subject.fail == REJECTION or model.rejected
                model.rejected = True
            if not model.rejected:
                assert self.has_landed(model), "success was told before the application had the file"
        if 200 <= reply.status < 300 and not client.told(reply) and not model.rejected:
            assert not self.has_landed(model) or reply.status == 201

    def hear_tus(self, model, reply, length):
        """Look at a reply of tus, by a client that knows the length as given."""
        if reply.status == 422:
            model.rejected = self.subject_class is not ViewSubject
        if not 200 <= reply.status < 300 or reply.get("Upload-Offset") is None:
            return
        if length is not None and int(reply["Upload-Offset"]) == int(length):
            assert self.has_landed(model), "success was told before the application had the file"

    def follow(self, model, sent, may_be_gone=False):
        """See how much of what was sent is there, by a client that is told the whole offset."""
        client = self.client(NEWEST)
        reply = client.head(model.url)
        if may_be_gone and reply.status in (404, 410):
            model.gone = True
            return 0
        assert reply.status == 204, reply
        self.hear(model, reply, client)
        offset = int(reply["Upload-Offset"])
        assert len(model.data) <= offset <= len(model.data) + len(sent)
        gained = offset - len(model.data)
        model.data += sent[:gained]
        if reply.get("Upload-Length") is not None:
            assert model.length in (None, int(reply["Upload-Length"]))
            model.length = int(reply["Upload-Length"])
        return gained

    def ends(self, model):
        return model.gone or model.rejected or self.has_landed(model)

    # -- Creating --

    def add(self, reply, sent, length, client):
        model = Model(reply["Location"], b"", length)
        self.models.append(model)
        if client is None:
            self.hear_tus(model, reply, length)
        else:
            self.hear(model, reply, client)
        self.follow(model, sent)
        return model

    @rule(target=uploads, data=content, more=surplus)
    def create_by_tus(self, data, more):
        length = None if more is None else len(data) + more
        reply = self.subject.create(length, {}, data)
        return self.add(reply, data, length, None) if reply.status == 201 else multiple()

    @rule(
        target=uploads,
        version=versions,
        data=content,
        complete=st.booleans(),
        more=surplus,
        chunked=st.booleans(),
        cut=st.none() | st.floats(0, 1),
    )
    def create_by_ietf(self, version, data, complete, more, chunked, cut):
        client = self.client(version)
        length = len(data) if complete else None if more is None else len(data) + more
        headers = {} if length is None or (complete and more is None) else {"Upload-Length": str(length)}
        sent = data if cut is None else data[: int(len(data) * cut)]
        how = {"chunked": True} if chunked and cut is None else {"length": len(data)}
        reply = client.create(sent, complete, headers, **how)
        if reply.get("Location") in (None, "/login"):
            return multiple()
        # A body of unknown length that is all there is settles it only at its end.
        model = self.add(reply, sent, length, client)
        if cut is None:
            assert len(model.data) == len(data)
        return model

    # -- Appending --

    @rule(model=uploads, data=content, cut=st.none() | st.floats(0, 1))
    def append_by_tus(self, model, data, cut):
        if self.ends(model):
            return
        offset = self.subject.offset(model.url)
        again = model.data[offset:]  # a byte that is sent once more, because it was not told
        rest = data if model.length is None else data[: model.length - len(model.data)]
        sent = again + rest
        if cut is not None:
            sent = sent[: int(len(sent) * cut)]
        reply = self.subject.patch(model.url, offset, sent, length=len(again + rest))
        self.hear_tus(model, reply, model.length)
        gained = self.follow(model, sent[len(again) :])
        if cut is None and not self.ends(model):
            assert gained in (len(rest), 0)

    @rule(
        model=uploads,
        version=versions,
        data=content,
        complete=st.booleans() | st.none(),
        chunked=st.booleans(),
        cut=st.none() | st.floats(0, 1),
        summed=st.sampled_from([None, None, True, False]),
        exact=st.booleans(),
    )
    def append_by_ietf(self, model, version, data, complete, chunked, cut, summed, exact):
        if self.ends(model):
            return
        client = self.client(version)
        if exact and model.length is not None:
            data = data[: model.length - len(model.data)].ljust(model.length - len(model.data), b"?")
        headers = {} if summed is None else {"Content-Digest": digest(data if summed else data + b"x")}
        sent = data if cut is None else data[: int(len(data) * cut)]
        how = {"chunked": True} if chunked and cut is None else {"length": len(data)}
        reply = client.append(model.url, len(model.data), sent, complete, headers, **how)
        self.hear(model, reply, client)
        overruns = model.length is not None and len(model.data) + len(data) > model.length
        gained = self.follow(model, sent, may_be_gone=overruns and client.like >= 7)
        if summed is False or (summed and len(sent) < len(data)):
            assert gained == 0
        if reply.status in (201, 204) and client.told(reply) is not None and not model.gone:
            assert gained == len(sent)

    @rule(model=uploads)
    def ask_by_tus(self, model):
        reply = self.subject.head(model.url)
        assert reply.status in ((404, 410) if model.gone else (200,))
        if not model.gone:
            self.hear_tus(model, reply, reply.get("Upload-Length"))

    @rule(model=uploads, version=versions, by=st.integers(-900, 900).filter(bool))
    def append_elsewhere(self, model, version, by):
        if self.ends(model) or len(model.data) + by < 0:
            return
        client = self.client(version)
        reply = client.append(model.url, len(model.data) + by, b"x", False)
        assert (reply.status, reply["Upload-Offset"]) == (409, str(len(model.data)))
        self.hear(model, reply, client)
        assert self.follow(model, b"x") == 0

    # -- The end of a life --

    @rule(model=consumes(uploads), version=versions)
    def cancel(self, model, version):
        reply = self.client(version).send("DELETE", model.url)
        if version not in VERSIONS and reply.status == 412:  # an upload of tus, which wants to hear its own version
            reply = self.subject.send("DELETE", model.url)
        assert reply.status in ((404, 410) if model.gone else (204,)), reply
        model.gone = True

    @rule(model=consumes(uploads), version=versions, data=content)
    def finish_by_ietf(self, model, version, data):
        """Whatever an upload has been through, a client brings it to its end once the application is well."""
        if self.ends(model):
            return
        self.subject.fail = None
        client = self.client(version)
        rest = data if model.length is None else data.ljust(600, b"?")[: model.length - len(model.data)]
        rest = rest.ljust((model.length or 0) - len(model.data), b"?")
        asks = client.append(model.url, len(model.data), rest, True)
        self.hear(model, asks, client)
        if model.length is not None and asks.status == 400 and client.told(asks) is False and rest:
            raise AssertionError(asks)
        if client.told(asks) is False:  # it was pending, and this version appends nothing to it
            asks = client.append(model.url, len(model.data), b"", True)
        pending = asks.status == 400
        if pending:
            asks = client.append(model.url, len(model.data), b"", True)
        assert client.told(asks) is True, asks
        self.follow(model, rest)
        assert self.has_landed(model)

    @rule(model=consumes(uploads), data=content)
    def finish_by_tus(self, model, data):
        if self.ends(model):
            return
        self.subject.fail = None
        if model.length is None:
            model.length = len(model.data)
        rest = data.ljust(model.length, b"?")[: model.length - len(model.data)]
        offset = self.subject.offset(model.url)
        fields = {"Upload-Length": str(model.length)}
        reply = self.subject.patch(model.url, offset, model.data[offset:] + rest, fields)
        assert (reply.status, reply["Upload-Offset"]) == (204, str(model.length))
        self.follow(model, rest)
        assert self.has_landed(model)

    # -- What always holds --

    @invariant()
    def what_has_landed_did_so_once_and_whole(self):
        if not hasattr(self, "models"):
            return
        expected = {model.id: model.data for model in self.models}
        ids = [upload.id for upload, _ in self.subject.landed]
        assert len(set(ids)) == len(ids)
        for upload, data in self.subject.landed:
            assert expected.get(upload.id, data) == data


def machine(subject, kind="directory", examples=100):
    case = type(f"{subject.__name__}Mixed", (Mixed,), {"subject_class": subject, "kind": KINDS[kind]}).TestCase
    case.settings = settings(
        max_examples=examples,
        stateful_step_count=30,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    return case


TestFilter = machine(SUBJECTS[0])
TestView = machine(SUBJECTS[1])
TestAsgi = machine(SUBJECTS[2])
TestLate = machine(SUBJECTS[0], "late", 50)
TestLateAsgi = machine(SUBJECTS[2], "late", 50)
TestLeased = machine(SUBJECTS[0], "leased", 30)
