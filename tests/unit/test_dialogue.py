"""The dialogue tester: what it accepts, and what it shows where a dialogue differs."""

import doctest
from dataclasses import replace

import pytest

import tus.testing.dialogue
from tests.support.dialogues import dialogue
from tus.errors import UploadNotFound
from tus.models import Intent
from tus.protocols.effects import Authorize, Create, Fence, Load, Receive, Remove
from tus.testing.dialogue import (
    ID,
    OTHER,
    URL,
    Ietf,
    Placeholder,
    an_upload,
    asks,
    created,
    raises,
    received,
    responds,
    tus1,
)

LOADED = asks(Load(ID)).gets(an_upload(offset=2, length=9))
PATCH = tus1.patch(ID, offset=2, body=3)


def difference(*lines, request=PATCH, **options):
    """The lines with a sign, without their indentation, and the number of the line that differs."""
    with pytest.raises(AssertionError) as failed:
        dialogue(request, *lines, **options)
    head, *shown = str(failed.value).splitlines()
    assert head.endswith("(- expected, + actual)")
    number = int(head.removeprefix("the dialogue differs at line ").split()[0])
    return number, [f"{line[2]} {line[3:].strip()}" for line in shown if line[2:3] in ("-", "+")]


def test_the_examples_of_the_documentation():
    assert doctest.testmod(tus.testing.dialogue, raise_on_error=False) == (0, 4)


# -- Differences --------------------------------------------------------------------------------------------------


def test_another_effect():
    assert difference(asks(Load(ID)), asks(Remove(ID)), responds(204), request=Ietf().delete(ID))[0] == 2
    number, shown = difference(LOADED, asks(Remove, OTHER), responds(204))
    assert number == 2
    assert shown[:4] == ["- asks Remove", f"- upload_id: {OTHER!r}", "+ asks Authorize", "+ intent: Intent.APPEND"]


def test_another_field():
    lines = (LOADED, asks(Authorize), asks(Receive, {"id": ID}, {"offset": 2, "limit": 6}), responds(204))
    assert difference(*lines) == (3, ["- intake.limit: 6", "+ intake.limit: 7"])


def test_fields_that_are_the_same_are_shown_without_a_sign():
    with pytest.raises(AssertionError, match=r"\n        intake.offset: 2\n  -     intake.limit: 6\n"):
        dialogue(PATCH, LOADED, asks(Authorize), asks(Receive, intake={"offset": 2, "limit": 6}), responds(204))


def test_a_field_that_does_not_exist_differs():
    shown = difference(LOADED, asks(Authorize, upload={"size": 9}), responds(204))[1]
    assert shown == ["- upload.size: 9", "+ upload.size: (absent)"]


def test_an_item_of_a_sequence():
    assert difference(LOADED, asks(Authorize, upload={"parts": [ID]}), responds(204))[1] == [
        f"- upload.parts: [{ID!r}]",
        "+ upload.parts: ()",
    ]


def test_a_response_in_the_place_of_an_effect():
    number, shown = difference(LOADED, asks(Authorize), asks(Receive), responds(204), request=tus1.head(ID))
    assert number == 3
    assert shown[:3] == ["- asks Receive", "+ responds 200 OK", "+ Tus-Resumable: 1.0.0"]


def test_an_effect_in_the_place_of_the_response():
    number, shown = difference(LOADED, asks(Authorize), responds(204, {"Upload-Offset": 5, "Upload-Expires": None}))
    assert number == 3
    expected = ["- responds 204", "- Upload-Offset: 5", "- Upload-Expires: (absent)"]
    assert shown[:4] == [*expected, "+ asks Receive"]


@pytest.mark.parametrize(
    ("headers", "shown"),
    [
        ({"Upload-Offset": 3}, ["- Upload-Offset: 3", "+ Upload-Offset: 2"]),
        ({"upload-offset": None}, ["- upload-offset: (absent)", "+ upload-offset: 2"]),
        ({"Location": ...}, ["- Location: ...", "+ Location: (absent)"]),
        ({"Upload-Length": lambda value: int(value) < 9}, 2),
    ],
)
def test_a_header_field(headers, shown):
    number, found = difference(LOADED, asks(Authorize), responds(200, headers), request=tus1.head(ID))
    assert number == 3
    assert found == shown or len(found) == shown


@pytest.mark.parametrize(
    ("version", "body", "shown"),
    [
        (9, {"status": 405}, ["- body.status: 405", "+ body.status: 404"]),
        (9, {"title": None}, ["- body.title: (absent)", "+ body.title: 'Not Found'"]),
        (3, {"status": 404}, 2),
        (3, "a text that is missing", 2),
        (3, b"other bytes", 2),
    ],
)
def test_a_body(version, body, shown):
    lost = asks(Load(ID)).fails(UploadNotFound())
    found = difference(lost, asks(Authorize), responds(404, body=body), request=Ietf(version).delete(ID))[1]
    assert found == shown or len(found) == shown


def test_an_error_of_the_exchange():
    number, shown = difference(asks(Load(ID)).fails(KeyError("x")), responds(404))
    assert (number, shown) == (2, ["- responds 404", "+ raises KeyError('x')"])


def test_an_error_that_does_not_come():
    lost = asks(Load(ID)).fails(UploadNotFound())
    assert difference(lost, asks(Authorize), raises(OSError))[1][:2] == [
        "- raises OSError",
        "+ responds 404 Not Found",
    ]


def test_another_error_than_the_one_that_is_expected():
    assert difference(asks(Load(ID)).fails(KeyError()), raises(OSError))[1] == [
        "- raises OSError",
        "+ raises KeyError()",
    ]


def test_the_dialogue_so_far_is_shown():
    with pytest.raises(AssertionError) as failed:
        dialogue(PATCH, LOADED, asks(Authorize).fails(UploadNotFound()), responds(204))
    text = str(failed.value)
    assert f"    PATCH {URL}/{ID}\n        Tus-Resumable: 1.0.0\n" in text
    assert f"    gets Upload(id='{ID}', offset=2, length=9)\n    asks Authorize(intent=Intent.APPEND, " in text
    assert "\n    fails UploadNotFound(" in text


# -- Values that the exchange makes -------------------------------------------------------------------------------


def test_a_placeholder_takes_the_first_value():
    upload_id = Placeholder("id")
    lines = (
        asks(Load, upload_id).gets(an_upload(id=upload_id, offset=2, length=9)),
        asks(Authorize, Intent.APPEND, {"id": upload_id}),
        asks(Receive).gets(received(offset=5)),
        responds(204),
    )
    dialogue(PATCH, *lines)
    assert upload_id.value == ID
    shown = difference(*lines, request=tus1.patch(OTHER, offset=2, body=3))[1]
    assert shown == [f"- upload_id: {ID!r}", f"+ upload_id: {OTHER!r}"]


def test_a_placeholder_after_a_text():
    upload_id = Placeholder("id")
    lines = (asks(Authorize), asks(Create).gets(created()), responds(201, {"Location": f"{URL}/" + upload_id}))
    dialogue(tus1.post(length=9), *lines)
    assert upload_id.value == ID
    other = (asks(Authorize), asks(Create).gets(created(id=OTHER)), lines[-1])
    assert difference(*other, request=tus1.post(length=9))[1] == [
        f"- Location: '{URL}/' + '{ID}'",
        f"+ Location: {URL}/{OTHER}",
    ]


def test_a_placeholder_without_a_value_is_no_reply():
    with pytest.raises(AssertionError, match="'final' has no value yet"):
        dialogue(PATCH, asks(Load).gets(an_upload(id=Placeholder("final"))), responds(204))


def test_a_reply_can_be_made_of_the_effect():
    dialogue(
        Ietf().head(ID),
        asks(Load).gets(lambda load: an_upload(id=load.upload_id, offset=2)),
        asks(Authorize),
        asks(Fence).gets(lambda fence: replace(fence.upload, offset=4)),
        responds(204, {"Upload-Offset": 4}),
    )


# -- Mistakes of a test's author ----------------------------------------------------------------------------------


@pytest.mark.parametrize("lines", [(), (LOADED,), (responds(404), responds(404))])
def test_a_dialogue_has_one_end(lines):
    with pytest.raises(TypeError, match="ends with one"):
        dialogue(PATCH, *lines)


@pytest.mark.parametrize(
    "make", [lambda: asks(Load, id=ID), lambda: asks(Load, ID, ID), lambda: asks(Load, ID, upload_id=ID)]
)
def test_a_field_must_exist(make):
    with pytest.raises(TypeError, match="Load has the fields upload_id"):
        make()
