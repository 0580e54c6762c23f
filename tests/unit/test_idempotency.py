"""Idempotency-Key, where the conformance tests do not reach: keys as text, events, late bytes of a first request."""

import json

import pytest

from tests.support.subjects import PATH, FilterSubject
from tests.support.wsgi import OCTETS, TUS, call
from tus import events
from tus.errors import BadRequest
from tus.events import Created, Finished
from tus.models import Upload
from tus.protocols import idempotency

KEY = "8e03978e-40d5-43e8-bc93-6894a57f9324"


@pytest.mark.parametrize(
    ("field", "key"),
    [
        (f'"{KEY}"', KEY),
        (KEY, KEY),
        (f' "{KEY}"\t', KEY),
        (f'"{KEY}";v=1', KEY),
        ('"a \\"key\\" of \\\\ some length"', 'a "key" of \\ some length'),
        ("sixteen+letters/==", "sixteen+letters/=="),
        ("a" * 255, "a" * 255),
    ],
)
def test_a_key_is_parsed(field, key):
    assert idempotency.parse_key(field, None) == key


@pytest.mark.parametrize("field", ["", '""', "a" * 256, f"{KEY}, {KEY}", f'"{KEY}', f"{KEY} x", "\u00e4" * 20, "(1 2)"])
def test_a_malformed_key_is_refused(field):
    with pytest.raises(BadRequest):
        idempotency.parse_key(field, "ann")


def test_only_a_principal_may_have_a_short_key():
    assert idempotency.parse_key("7", "ann") == idempotency.parse_key('"7"', "ann") == "7"
    with pytest.raises(BadRequest, match="16"):
        idempotency.parse_key("7" * 15, None)
    assert idempotency.parse_key("7" * 16, None)


def test_names_cannot_be_confused():
    drafts = [
        ("k", Upload(service="a", principal="b")),
        ("k", Upload(service="a", principal=None)),
        ("k", Upload(service="a", principal="null")),
        ("k", Upload(service="ab", principal="")),
        ('b", "k', Upload(service="a")),
    ]
    names = [idempotency.name_of(key, draft) for key, draft in drafts]
    assert len(set(names)) == len(names)
    assert json.loads(names[0]) == ["a", "b", "k"]


def test_a_repeated_creation_is_one_event(tmp_path, monkeypatch):
    seen = []
    for kind in (Created, Finished):
        monkeypatch.setitem(events.listeners, kind, (seen.append,))
    subject = FilterSubject(tmp_file_dir=str(tmp_path))
    for _ in range(3):
        assert subject.create(4, {"Idempotency-Key": KEY}, b"abcd").status == 201
    assert [type(event) for event in seen] == [Created, Finished]


class Stalling:
    """A body whose second half comes after another request."""

    def __init__(self, halves, between):
        self._halves, self._between = halves, between

    def read(self, size=-1):
        if len(self._halves) == 1:
            self._between()
        return self._halves.pop(0) if self._halves else b""


def test_late_bytes_of_the_first_request_do_not_count_twice(tmp_path):
    subject = FilterSubject(tmp_file_dir=str(tmp_path))
    data = bytes(100_000) + b"x" * 100_000
    fields = TUS | OCTETS | {"Upload-Length": "200000", "Idempotency-Key": KEY}
    replies = []

    def repeat():
        replies.append(call(subject.app, "POST", PATH, fields, data))

    environ = {"wsgi.input": Stalling([data[:100_000], data[100_000:]], repeat), "CONTENT_LENGTH": "200000"}
    first = call(subject.app, "POST", PATH, fields, data, environ=environ, validate=False)
    offset = int(replies[0]["Upload-Offset"])
    url = replies[0]["Location"]
    assert (replies[0].status, first.status) == (201, 409)
    assert subject.offset(url) == offset == 100_000
    assert subject.patch(url, offset, data[offset:]).status == 204
    assert [got for _, got in subject.landed] == [data]


def test_a_malformed_host_is_no_failure(tmp_path):
    subject = FilterSubject(tmp_file_dir=str(tmp_path))
    headers = TUS | {"Upload-Length": "4", "Idempotency-Key": KEY, "Host": "[x"}
    replies = [call(subject.app, "POST", PATH, headers) for _ in range(2)]
    assert [reply.status for reply in replies] == [201, 201]
    assert replies[0]["Location"] == replies[1]["Location"]
