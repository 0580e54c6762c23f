"""Digests of whole files in header fields: ``Repr-Digest`` (RFC 9530). Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tus.http import structured
from tus.http.digests import NAMES, REPR_DIGEST, Digests, format_digest, parse_digest
from tus.models import Response, Upload


def requested(draft: Upload, fields: Mapping[str, str], hashes: tuple[str, ...]) -> Upload:
    """Return the draft with the digests that must be computed; a part needs none.

    Args:
        draft: the upload before its creation.
        fields: the header fields; ``Repr-Digest`` announces digests, and ``Want-Repr-Digest`` asks for them.
        hashes: the algorithms of the option ``digest``.
    """
    announcing, wanting = fields.get(REPR_DIGEST), fields.get("Want-Repr-Digest")
    if not (hashes or announcing or wanting) or draft.is_partial:
        return draft
    announced = parse_digest(announcing)
    wanted = structured.parse_counts(wanting)
    named = [algorithm for algorithm, _ in announced]
    named += [NAMES[name] for name, preference in wanted.items() if preference and name in NAMES]
    return replace(draft, hashes=tuple(dict.fromkeys((*hashes, *named))), announced=announced)


def differs(upload: Upload) -> bool:
    """Return whether the file does not have the digests that its client has announced."""
    return not set(upload.announced) <= set(upload.digests)


def rejection() -> Response:
    """Return the response for a file without the announced digests. Clients do not retry after it."""
    return Response.of_text(422, "The file does not have the digest in Repr-Digest; upload it again.")


def described(response: Response, digests: Digests) -> Response:
    """Return the response with the digests of its file."""
    if not digests:
        return response
    return replace(response, headers=[*response.headers, (REPR_DIGEST, format_digest(digests))])
