"""Hooks in Python: what each can do, and in which order an upload comes to them."""

import pytest

from tests.support.hooks import Recorder
from tests.support.subjects import PATH, SUBJECTS, FilterSubject
from tests.support.wsgi import OCTETS, TUS, call
from tus import HookReply
from tus.errors import Forbidden, OptionError
from tus.hooks import tusd
from tus.models import HookEvent, HookType, Request, Response, Upload
from tus.stores.directory.store import DirectoryStore

DATA = b"hello world"
NAMED = {"Upload-Metadata": "filename YS50eHQ=,note eA=="}
TEAPOT = Response(418, "I'm a teapot", [("X-Hook", "tea")], (b"short and stout",))


@pytest.fixture(params=SUBJECTS, ids=["filter", "view", "asgi"])
def hooked(request, tmp_path):
    """Make a subject with hooks that answer so."""

    def hooked(**replies):
        hooks = Recorder(**replies)
        subject = request.param(tmp_file_dir=str(tmp_path), hooks=hooks)
        subject.hooks = hooks
        return subject

    return hooked


def test_their_order(hooked):
    subject = hooked()
    url = subject.url(len(DATA), NAMED)
    assert subject.patch(url, 0, DATA).status == 204
    assert subject.send("DELETE", url).status == 204
    hooks = subject.hooks
    assert hooks.types == ["pre-create", "post-create", "pre-finish", "post-finish", "pre-terminate", "post-terminate"]
    draft, created, finishing = (event.upload for event in hooks.seen[:3])
    assert (draft.id, draft.length, draft.text_metadata) == ("", 11, {"filename": "a.txt", "note": "x"})
    assert (url.endswith(created.id), created.offset) == (True, 0)
    assert (finishing.id, finishing.offset, finishing.attempts) == (created.id, 11, 1)
    assert {event.request.method for event in hooks.seen} == {"POST", "PATCH", "DELETE"}
    assert len({event.id for event in hooks.seen}) == 6


def test_the_same_event_has_the_same_id(hooked):
    subject = hooked(pre_finish=RuntimeError("not now"))
    url = subject.url(len(DATA))
    for offset in (0, 10, 10):
        assert subject.patch(url, offset, DATA[offset:]).status == 503
    ids = [event.id for event in subject.hooks.seen if event.type == "pre-finish"]
    assert ids == [ids[0]] * 3


def test_pre_create_refuses(hooked):
    subject = hooked(pre_create=HookReply(reject=True, response=TEAPOT))
    reply = subject.create(3)
    assert (reply.status, reply.body, reply["X-Hook"]) == (418, b"short and stout", "tea")
    assert subject.hooks.types == ["pre-create"]
    subject = hooked(pre_create=HookReply(reject=True))
    assert subject.create(3).status == 400
    subject = hooked(pre_create=Forbidden("Not you."))
    assert (subject.create(3).status, subject.create(3).body) == (403, b"Not you.\n")


def test_pre_create_is_asked_before_a_byte_is_read(hooked):
    subject = hooked(pre_create=HookReply(reject=True))
    taken = []

    class Body:
        def read(self, size):
            taken.append(size)
            return b""

    typed = {"Upload-Length": "3"} | OCTETS
    subject.send("POST", PATH, typed, b"abc", environ={"wsgi.input": Body()}, validate=False)
    assert taken == []


def test_pre_create_changes(hooked):
    upload_id = "0123456789abcdef" * 2
    subject = hooked(
        pre_create=HookReply(
            metadata={"filename": "b.txt", "owner": "ann"},
            id=upload_id,
            response=Response(200, "OK", [("X-Hook", "1")]),
        )
    )
    reply = subject.create(3, NAMED)
    assert reply["Location"].endswith(f"/{upload_id}")
    assert (reply.status, reply["X-Hook"]) == (201, "1")
    assert subject.patch(reply["Location"], 0, b"abc").status == 204
    ((upload, _),) = subject.landed
    assert upload.text_metadata == {"filename": "b.txt", "owner": "ann"}
    subject.hooks.replies["pre-create"] = HookReply(name="c.txt")
    assert subject.create(3, NAMED, b"abc").status == 201
    assert subject.landed[-1][0].text_metadata == {"filename": "c.txt", "note": "x"}


@pytest.mark.parametrize("upload_id", ["../../etc/passwd", "abc", "A" * 32, "0" * 33])
def test_an_id_that_is_none_makes_no_file(hooked, tmp_path, upload_id, caplog):
    subject = hooked()
    subject.hooks.replies["pre-create"] = lambda: HookReply(id=upload_id)
    assert subject.create(3).status == 503
    assert "32 lower-case hexadecimal digits" in caplog.text
    assert not [path for path in tmp_path.rglob("*") if path.suffix == ".tus"]


def test_an_id_that_is_there_is_not_taken_twice(hooked):
    subject = hooked(pre_create=HookReply(id="0" * 32))
    url = subject.url(3)
    assert subject.create(3).status == 503
    assert subject.patch(url, 0, b"abc").status == 204


def spoken_requests(protocol):
    """Return the header fields of a creation with five bytes, in each protocol."""
    if protocol == "tus":
        return TUS | OCTETS | {"Upload-Length": "5"}
    return {"Upload-Draft-Interop-Version": protocol.removeprefix("ietf "), "Upload-Complete": "?1"}


@pytest.mark.parametrize("protocol", ["tus", "ietf 4", "ietf 9"])
@pytest.mark.parametrize("owner", ["service", "principal"])
@pytest.mark.parametrize("subject", SUBJECTS)
def test_an_id_of_another_owner_is_not_taken(tmp_path, caplog, subject, owner, protocol):
    """The hook has given an id twice, and the other client must not notice."""
    made = {"tmp_file_dir": str(tmp_path), "hooks": Recorder(pre_create=HookReply(id="0" * 32))}
    first = subject(**made, name="photos", authorize=lambda request, intent, upload: "ann")
    others = {
        "service": {"name": "videos", "authorize": lambda request, intent, upload: "ann"},
        "principal": {"name": "photos", "authorize": lambda request, intent, upload: "bob"},
    }
    second = subject(**made, **others[owner])
    url = first.url(5, NAMED)
    assert first.patch(url, 0, b"he").status == 204
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    reply = call(second.app, "POST", PATH, spoken_requests(protocol), b"HELLO")
    assert (reply.status, reply.get("Location")) == (503, None)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before
    assert second.landed == []
    assert first.patch(url, 2, b"llo").status == 204
    assert [data for _, data in first.landed] == [b"hello"]


@pytest.mark.parametrize("protocol", ["tus", "ietf 9"])
def test_an_id_that_two_owners_get_at_the_same_time_is_for_one(tmp_path, monkeypatch, protocol):
    made = {"tmp_file_dir": str(tmp_path), "hooks": Recorder(pre_create=HookReply(id="0" * 32))}
    first = FilterSubject(**made, authorize=lambda request, intent, upload: "ann")
    second = FilterSubject(**made, authorize=lambda request, intent, upload: "bob")
    create, urls = DirectoryStore.create, []

    def be_late(store, draft):
        if not urls:
            urls.append("")
            urls[0] = first.url(5)
        return create(store, draft)

    monkeypatch.setattr(DirectoryStore, "create", be_late)
    assert call(second.app, "POST", PATH, spoken_requests(protocol), b"HELLO").status == 503
    assert (first.offset(urls[0]), second.landed) == (0, [])
    assert first.patch(urls[0], 0, b"hello").status == 204
    assert [upload.principal for upload, _ in first.landed] == ["ann"]


@pytest.mark.parametrize("reply", [{"reject": True}, True, "no", Response(403, "Forbidden")], ids=repr)
@pytest.mark.parametrize("hook", ["pre_create", "pre_finish", "pre_terminate"])
def test_a_hook_that_returns_something_else(hooked, caplog, hook, reply):
    """What the hook meant is not known, so nothing happens."""
    subject = hooked(**{hook: reply})
    if hook == "pre_create":
        answer = subject.create(3)
    else:
        url = subject.url(len(DATA))
        answer = subject.send("DELETE", url) if hook == "pre_terminate" else subject.patch(url, 0, DATA)
    assert answer.status == 503
    assert f"must return a HookReply or None, not {type(reply).__name__}" in caplog.text
    assert subject.landed == []
    subject.hooks.replies.clear()
    if hook == "pre_create":
        assert list(subject.stored().list()) == []
    else:
        assert subject.offset(url) == (len(DATA) - 1 if hook == "pre_finish" else 0)


def test_post_receive_stops(hooked, monkeypatch):
    monkeypatch.setattr("tus.server.reception._TELL_EVERY", 0.0)
    monkeypatch.setattr("tus.server.body_async.BATCH", 1 << 20)  # so that a body is more than one
    subject = hooked(post_receive=HookReply(stop=True, response=TEAPOT))
    data = bytes(3_000_000)
    url = subject.url(len(data))
    reply = subject.patch(url, 0, data)
    assert (reply.status, reply.body) == (418, b"short and stout")
    (event,) = [event for event in subject.hooks.seen if event.type == "post-receive"]
    assert 0 < event.upload.offset < len(data)
    assert subject.head(url).status in (404, 410), "and the upload is terminated"
    assert subject.hooks.types[-1] == "post-terminate"
    assert subject.landed == []


def test_post_receive_tells_and_does_no_harm(hooked, monkeypatch):
    monkeypatch.setattr("tus.server.reception._TELL_EVERY", 0.0)
    monkeypatch.setattr("tus.server.body_async.BATCH", 1 << 20)  # so that a body is more than one
    subject = hooked(post_receive=RuntimeError("a bug"))
    data = bytes(3_000_000)
    assert subject.patch(subject.url(len(data)), 0, data).status == 204
    offsets = [event.upload.offset for event in subject.hooks.seen if event.type == "post-receive"]
    assert offsets == sorted(set(offsets))
    assert len(offsets) > 2


def test_pre_finish_rejects(hooked):
    subject = hooked(pre_finish=HookReply(reject=True, response=Response(451, "Gone to law", [], (b"no",))))
    url = subject.url(len(DATA))
    for offset in (0, 10):
        reply = subject.patch(url, offset, DATA[offset:])
        assert (reply.status, reply.body) == (451, b"no")
    assert (subject.landed, subject.hooks.types.count("pre-finish")) == ([], 1)
    assert "post-finish" not in subject.hooks.types
    for status in (200, 409, 423, 500):  # after which a client would go on
        subject = hooked(pre_finish=HookReply(reject=True, response=Response(status, "")))
        assert subject.patch(subject.url(len(DATA)), 0, DATA).status == 422


def test_pre_finish_answers_as_an_application(hooked):
    subject = hooked(
        pre_finish=HookReply(response=Response(503, "Service Unavailable", [], (b"the virus scanner sleeps",)))
    )
    url = subject.url(len(DATA))
    assert subject.patch(url, 0, DATA).status == 503
    assert (subject.landed, subject.offset(url)) == ([], len(DATA) - 1)
    subject.hooks.replies.clear()
    assert subject.patch(url, 10, b"d").status == 204
    assert subject.hooks.types.count("post-finish") == 1
    virus = Response(415, "Unsupported Media Type", [("Tus-Outcome", "rejected")], (b"a virus",))
    subject = hooked(pre_finish=HookReply(response=virus))
    url = subject.url(len(DATA))
    assert [subject.patch(url, offset, DATA[offset:]).body for offset in (0, 10)] == [b"a virus"] * 2
    assert subject.hooks.types.count("pre-finish") == 1, "this is a rejection, as an application's is"


def test_pre_finish_adds_to_the_success(hooked):
    subject = hooked(pre_finish=HookReply(response=Response(200, "OK", [("X-Hook", "1"), ("Upload-Offset", "0")])))
    reply = subject.patch(subject.url(len(DATA)), 0, DATA)
    assert (reply.status, reply["X-Hook"], reply["Upload-Offset"]) == (204, "1", "11")


def test_pre_terminate_keeps(hooked):
    subject = hooked(pre_terminate=HookReply(reject=True, response=TEAPOT))
    url = subject.url(3)
    assert subject.send("DELETE", url).status == 418
    assert subject.offset(url) == 0
    assert "post-terminate" not in subject.hooks.types


@pytest.mark.parametrize("hook", ["post_create", "post_finish", "post_terminate"])
def test_what_a_post_hook_raises_changes_nothing(hooked, hook, caplog):
    subject = hooked(**{hook: RuntimeError("a bug")})
    url = subject.url(len(DATA))
    assert subject.patch(url, 0, DATA).status == 204
    assert subject.send("DELETE", url).status == 204
    assert "a bug" in caplog.text


@pytest.mark.parametrize("hook", ["pre_create", "pre_terminate"])
def test_what_a_pre_hook_raises_is_not_now(hooked, hook, caplog):
    subject = hooked(**{hook: RuntimeError("a bug at /srv")})
    reply = subject.create(3) if hook == "pre_create" else subject.send("DELETE", subject.url(3))
    assert reply.status == 503
    assert b"/srv" not in reply.body
    assert "a bug" in caplog.text


def test_post_finish_only_after_acceptance(hooked):
    subject = hooked()
    subject.fail = "503 Service Unavailable"
    url = subject.url(len(DATA))
    subject.patch(url, 0, DATA)
    assert "post-finish" not in subject.hooks.types
    subject.fail = None
    subject.patch(url, 10, b"d")
    subject.patch(url, 10, b"d")
    assert subject.hooks.types.count("post-finish") == 1


def test_parts_are_not_finished_files(hooked):
    subject = hooked()
    urls = []
    for body in (b"ab", b"c"):
        urls.append(subject.url(len(body), {"Upload-Concat": "partial"}))
        subject.patch(urls[-1], 0, body)
    assert "pre-finish" not in subject.hooks.types
    assert subject.send("POST", PATH, {"Upload-Concat": f"final;{' '.join(urls)}"}).status == 201
    finished = [event for event in subject.hooks.seen if event.type == "post-finish"]
    assert [(event.upload.is_final, len(event.upload.parts)) for event in finished] == [(True, 2)]


class Made:
    """Hooks as a class, by its name in an ini file."""

    def pre_create(self, event):
        return HookReply(reject=True)


def test_hooks_by_name(tmp_path):
    assert FilterSubject(tmp_file_dir=str(tmp_path), hooks="tests.unit.test_hooks:Made").create(1).status == 400
    for bad in ("tests.unit.test_hooks:DATA", "tests.unit.test_hooks:nothing", "tests.no:thing"):
        with pytest.raises(OptionError, match="hooks"):
            FilterSubject(tmp_file_dir=str(tmp_path), hooks=bad)


def test_a_malformed_host_does_not_stop_an_event():
    request = Request("POST", "http://[::1/files/a%20b", {})
    event = HookEvent(HookType.PRE_CREATE, "1", Upload(), request)
    assert tusd.encode(event)["Event"]["HTTPRequest"]["URI"] == "/files/a%20b"


def test_a_name_from_a_hook_stands_beside_any_metadata_of_the_client(hooked):
    subject = hooked(pre_create=HookReply(name="named.txt"))
    url = subject.url(3, {"Upload-Metadata": "cl\xe9 eA== , filename YQ==,flag"})
    assert subject.record(url).text_metadata == {"cl\xe9": "x", "flag": "", "filename": "named.txt"}
