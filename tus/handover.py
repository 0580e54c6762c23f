"""The finished file's way into the application."""

from __future__ import annotations

import io
import os
from typing import BinaryIO

from tus.adapters.interface import Adapter
from tus.errors import StorageUnavailable
from tus.stores.interface import Claim


def offer(adapter: Adapter, claim: Claim, send_file: bool) -> BinaryIO:
    """Put a finished upload in the place of the request's body.

    Args:
        adapter: the request that completed the upload.
        claim: the right to hand it over.
        send_file: whether the body becomes the file itself or its path.

    Returns:
        What is now the body; the caller closes it.
    """
    if send_file:
        file = claim.open()
        size = claim.upload.length or 0
    else:
        if claim.upload.path is None:
            raise StorageUnavailable()
        path = os.fsencode(claim.upload.path)
        file, size = io.BytesIO(path), len(path)
    try:
        adapter.replace_body(file, size, claim.upload)
    except BaseException:
        file.close()
        raise
    return file
