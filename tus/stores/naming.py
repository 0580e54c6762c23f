"""Ids that are made from a text. Pure.

The same text always gives the same id. Without the secret of the store the id cannot be guessed, even if the text can.
"""

from __future__ import annotations

import hmac
from typing import Final

SECRET_SIZE: Final = 32


def id_from(secret: bytes, text: str) -> str:
    """Return the id of the upload for a text, 32 hexadecimal digits."""
    return hmac.digest(secret, text.encode("utf-8", "surrogateescape"), "sha256")[:16].hex()
