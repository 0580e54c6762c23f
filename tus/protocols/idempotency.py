"""The field ``Idempotency-Key`` of a creation (draft-ietf-httpapi-idempotency-key-header-07). Pure.

A client that got no response repeats its request with the same key, and finds the upload of the first request. The
store makes the upload's id from the key, so there is no list of keys that could grow or get lost.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Final

from tus.errors import BadRequest, KeyReused
from tus.http import structured
from tus.models import Request, Upload

FIELD: Final = "Idempotency-Key"
LONGEST: Final = 255
#: The shortest key of a client without a principal. Other clients could guess a shorter one, and find the upload.
SHORTEST_ANONYMOUS: Final = 16

_BARE: Final = re.compile(r"[!#-+\--:<-\[\]-~]+")  # visible ASCII, but no quote, comma, semicolon or backslash


def parse_key(value: str, principal: str | None) -> str:
    """Return the key in a field: a String of RFC 9651, or the same text without quotes, as many clients send it.

    Args:
        value: the field.
        principal: the principal that sends the request, if it is known.

    Raises:
        BadRequest: the field is malformed, or too long, or too short for a client without a principal.
    """
    value = value.strip(" \t")
    key = value if _BARE.fullmatch(value) else structured.parse_string(value)
    if not key or len(key) > LONGEST:
        raise BadRequest(f'{FIELD} must be one quoted string of 1 to {LONGEST} characters, such as "<UUID>".')
    if principal is None and len(key) < SHORTEST_ANONYMOUS:
        raise BadRequest(f"{FIELD} must have at least {SHORTEST_ANONYMOUS} characters; use a random UUID.")
    return key


def name_of(key: str, draft: Upload) -> str:
    """Return the text from which a store makes the id. Another principal's or service's same key is another text."""
    return json.dumps([draft.service, draft.principal, key])


def fingerprint_of(key: str, draft: Upload, request: Request) -> str:
    """Return a digest of what the creation asks for, 32 hexadecimal digits.

    The body is not part of it, because the first request may have lost its body. A final upload gets its length from
    its parts, maybe later.
    """
    announced = [[algorithm, digest.hex()] for algorithm, digest in draft.announced]
    length = None if draft.parts else draft.length
    asked = [key, draft.protocol, length, draft.raw_metadata, draft.concat, draft.parts, announced]
    path = request.url.partition("://")[2].partition("/")[2]  # not urlsplit(), which fails on a malformed Host
    seed = json.dumps([*asked, "/" + path.rstrip("/")])
    return hashlib.blake2b(seed.encode(), digest_size=16, person=b"tus creation").hexdigest()


def check_same(found: Upload, draft: Upload) -> Upload:
    """Return the upload that was found by its key, if the same request has created it.

    Raises:
        KeyReused: another request has.
    """
    if found.fingerprint != draft.fingerprint:
        raise KeyReused()
    return found
