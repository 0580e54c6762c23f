"""The header fields that the protocols ask for, which every adapter picks once."""

import re
from pathlib import Path

import pytest

import tus
from tus.adapters.asgi import ScopeHeaders
from tus.adapters.wsgi import EnvironHeaders
from tus.models import FIELDS, Request
from tus.protocols import idempotency, origins
from tus.protocols.exchange import _MARKS
from tus.protocols.ietf.profiles import VERSION_FIELD

pytestmark = pytest.mark.quick

SENT = {"Tus-Resumable": "1.0.0", "Content-Length": "4", "Content-Type": "text/plain", "Cookie": "a=b", "X-Other": "1"}
PICKED = {"Tus-Resumable": "1.0.0", "Content-Length": "4", "Content-Type": "text/plain"}
ASKED = re.compile(r'fields(?:\.get\(|\[)"([A-Z][\w-]+)"|"([A-Z][\w-]+)" (?:not )?in (?:\w+\.)*fields\b')


def environ_headers():
    names = {name: name.upper().replace("-", "_") for name in SENT}
    keys = {name: key if key.startswith("CONTENT") else f"HTTP_{key}" for name, key in names.items()}
    return EnvironHeaders({keys[name]: value for name, value in SENT.items()} | {"PATH_INFO": "/", "HTTPS": "on"})


def scope_headers():
    return ScopeHeaders([(name.lower().encode(), value.encode()) for name, value in SENT.items()])


@pytest.mark.parametrize("headers", [dict(SENT), environ_headers(), scope_headers()], ids=["dict", "environ", "scope"])
def test_a_request_has_the_fields_of_the_protocols(headers):
    assert Request("PATCH", "http://localhost/files", headers).fields == PICKED


def test_the_protocols_ask_for_no_other_field():
    """Such a field would never be there."""
    root = Path(tus.__file__).parent
    texts = [path.read_text() for room in ("protocols", "server") for path in (root / room).rglob("*.py")]
    asked = {one or other for text in texts for one, other in ASKED.findall(text)}
    assert "Upload-Offset" in asked
    named = {*origins.FORWARDING, *origins.REPRESENTATION, *_MARKS, VERSION_FIELD, idempotency.FIELD}
    elsewhere = {"Range", "If-Range"}  # a download asks the adapter's own mapping for these
    assert asked | named <= {*FIELDS, *elsewhere}
