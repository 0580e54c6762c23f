"""The short form of the fuzz room, and that it finds what it is for."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.__main__ import run
from tests.fuzz.heads import FIELDS, METHODS, NAMES, NEVER, SOUND, UPLOADS, Head, Maker
from tests.fuzz.sites import VARIANTS, AsyncSite, Finding, Site
from tests.fuzz.values import REPLIES, SIDE_CARS, Values, check_entry, check_field, check_reply, check_side_car
from tests.support.serving import ROOT
from tus.protocols.tus1 import replies

CORPUS = sorted((Path(__file__).parent / "corpus").glob("*.txt"))
FEW = settings(deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))

FIELD = st.text(st.characters(max_codepoint=255, blacklist_characters=NEVER), max_size=40)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
MEMBERS = ("RejectUpload", "StopUpload", "HTTPResponse", "ChangeFileInfo", "RejectTermination")


@pytest.fixture(scope="module")
def sites():
    return [make(variant) for variant in range(len(VARIANTS)) for make in (Site, AsyncSite)]


@pytest.mark.parametrize("path", CORPUS, ids=[path.stem for path in CORPUS])
def test_what_was_found_before(sites, path):
    head = Head.parse(path.read_text("utf-8"))
    for site in sites:
        site.check(head)


def test_sound_heads():
    for number, head in enumerate(SOUND):
        Site(number % len(VARIANTS)).check(head)


def test_a_few_thousand_heads():
    summary = run(("short", 2500))
    assert not summary.findings, str(summary)
    assert summary.heads == 2500
    assert set(summary.statuses) >= {200, 201, 204, 206, 304, 400, 403, 404, 405, 409, 412, 413, 415}


@FEW
@given(
    method=st.sampled_from(METHODS),
    path=st.sampled_from(UPLOADS).map(lambda name: f"/files/{{{name}}}") | st.just("/files"),
    fields=st.dictionaries(
        st.sampled_from(NAMES), FIELD | st.sampled_from([v for values in FIELDS.values() for v in values]), max_size=5
    ),
    body=st.binary(max_size=9),
)
def test_heads_of_any_kind(sites, method, path, fields, body):
    for site in sites[:6:2]:
        site.check(Head(method, path, fields, body))


@FEW
@given(text=st.text(max_size=60))
def test_fields_of_any_kind(text):
    check_field(text)


@FEW
@given(data=st.binary(max_size=400))
def test_side_cars_of_any_kind(data):
    check_side_car(data)
    check_side_car(SIDE_CARS[0][:128] + data)


@FEW
@given(value=JSON)
def test_entries_of_the_spool_of_any_kind(value):
    check_entry(json.dumps(value).encode())


@FEW
@given(value=JSON, name=st.sampled_from(MEMBERS))
def test_replies_to_webhooks_of_any_kind(value, name):
    check_reply(json.dumps(value).encode())
    check_reply(json.dumps({name: value}).encode())


def test_replies_to_webhooks_that_are_right():
    for reply in REPLIES:
        check_reply(json.dumps(reply).encode())


# -- The room itself --


def test_the_same_seed_makes_the_same_heads():
    first, second = Maker("a"), Maker("a")
    heads = [str(first.head()) for _ in range(200)]
    assert heads == [str(second.head()) for _ in range(200)]
    assert len(set(heads)) > 150


def test_a_head_survives_its_text():
    maker = Maker(1)
    for _ in range(500):
        head = maker.head()
        assert Head.parse(str(head)) == head


def test_a_fault_is_found(monkeypatch):
    """An exception, and one that is told as a failure of the store, and a field with a control character."""
    site = Site()
    head = Head("HEAD", "/files/{half}", {"Tus-Resumable": "1.0.0"})
    site.check(head)

    def fail(*arguments):
        raise RuntimeError

    monkeypatch.setattr(replies, "inspected", fail)
    with pytest.raises(Finding, match=r"an error is logged|status is 500"):
        site.check(head)
    monkeypatch.undo()
    monkeypatch.setattr(site.store, "load", fail)
    with pytest.raises(Finding, match="an error is logged"):
        site.check(head)
    monkeypatch.undo()
    monkeypatch.setattr(replies, "VERSION", "1\x01")
    with pytest.raises(Finding, match="malformed"):
        site.check(head)


def test_values_are_made_of_a_seed():
    Values("short").check()


def test_the_long_form_says_what_it_has_seen():
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", "--heads", "600", "--processes", "2", "--seed", "1"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "600 heads (6 of them under ASGI), 600 other values" in done.stdout
    assert "findings: 0" in done.stdout
