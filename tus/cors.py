"""The names that CORS middleware of a framework needs, if it answers in place of ``cors_allow_origin``."""

from __future__ import annotations

from typing import Final

from tus.protocols import cors

#: The methods of clients of both protocols.
METHODS: Final = tuple(cors.METHODS.split(", "))

#: The header fields that pages send.
REQUEST_HEADERS: Final = tuple(cors.REQUEST_HEADERS.split(", "))

#: The header fields that pages must be able to read.
EXPOSED_HEADERS: Final = tuple(cors.EXPOSED_HEADERS.split(", "))
