"""Digests of whole files in header fields: ``Repr-Digest`` (RFC 9530). Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tus.http import structured
from tus.http.digests import _FIELD, NAMES, Digests, format_digest, parse_digest
from tus.models import Response, Upload


def requested(draft: Upload, fields: Mapping[str, str], hashes: tuple[str, ...]) -> Upload:
    """The draft of an upload with the digests that are to be computed; a part needs none.

    Args:
        draft: what is about to be created.
        fields: the request's, of which ``Repr-Digest`` announces digests, and ``Want-Repr-Digest`` asks for them.
        hashes: the algorithms that the operator wants.
    """
    announcing, wanting = fields.get(_FIELD), fields.get("Want-Repr-Digest")
    if draft.is_partial or not (hashes or announcing or wanting):
        return draft
    announced = parse_digest(announcing)
    wanted = structured.parse_counts(wanting)
    named = [algorithm for algorithm, _ in announced]
    named += [NAMES[name] for name, preference in wanted.items() if preference and name in NAMES]
    return replace(draft, hashes=tuple(dict.fromkeys((*hashes, *named))), announced=announced)


def differs(upload: Upload) -> bool:
    """Whether the file is not the one that its client has announced."""
    return not set(upload.announced) <= set(upload.digests)


def rejection() -> Response:
    """What the client of such a file hears; none tries again after it."""
    return Response.of_text(422, "The file does not have the digest that was announced for it; upload it again.")


def described(response: Response, digests: Digests) -> Response:
    """A response with the digests of the file that it is about."""
    if not digests:
        return response
    return replace(response, headers=[*response.headers, (_FIELD, format_digest(digests))])
