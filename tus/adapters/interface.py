"""What an adapter is: the whole of what this package asks of a web framework."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from typing import BinaryIO, Protocol, runtime_checkable

from tus.errors import StorageUnavailable
from tus.models import Readable, Request, Response, Upload
from tus.stores.interface import Claim


class Face(Protocol):
    """One request of a framework, and the response to it; how its body is read is another matter.

    Attributes:
        request: the head.
    """

    @property
    def request(self) -> Request: ...

    def respond(self, response: Response) -> None:
        """Make this the framework's response, in the place of one that was made before."""


class Replaces(Protocol):
    """A request whose body can be another one."""

    def replace_body(self, file: BinaryIO, size: int, upload: Upload) -> None:
        """Put a finished upload's file, or its path, in the place of the request's body, for the code to come."""


class Adapter(Face, Replaces, Protocol):
    """One request of a framework that is served by a thread.

    Attributes:
        stream: the raw body, unread. It must not be the framework's own wrapper where that reads ahead, keeps a copy
            or drops bytes at a disconnect; :class:`~tus.server.body.Body` does the bounding.
    """

    @property
    def stream(self) -> Readable: ...


class AsyncAdapter(Face, Protocol):
    """One request of a framework that is served by an event loop.

    What is not async here, and :meth:`Informs.inform`, is called in a worker thread of anyio's.
    """

    async def receive(self) -> bytes | None:
        """The next bytes of the body, perhaps none; None after the last.

        What it raises is a cut, and so is None where more was announced. Nothing is called after either.
        """


@runtime_checkable
class Informs(Protocol):
    """An adapter that may be able to send an interim response (1xx) before the response."""

    def inform(self, response: Response) -> bool:
        """Send it if the server can; returns whether that was done."""


@runtime_checkable
class Transactional(Protocol):
    """An adapter whose framework decides after the view whether what it did is to stand."""

    def at_transaction_end(self, callback: Callable[[bool], None]) -> None:
        """Have a function called once, with True after a commit and False after an abort."""


#: Where the wrapped application finds the :class:`~tus.models.Upload` that a request completed. A client cannot set
#: it, so an application trusts this key, and never the path in a body by itself.
UPLOAD_KEY = "tus.upload"


#: Whose request it is: ``request`` where the client's own is passed on, ``background`` where there is none.
HANDOVER_KEY = "tus.handover"


#: Where an application that is asked (``ask_app``) finds what the request intends, a word, and with which upload.
INTENT_KEY = "tus.intent"


ABOUT_KEY = "tus.about"


LONGEST_ANSWER = 64 << 10  # bytes of a body that may have to be kept


#: A field of its 2xx answer names who asks; the client does not get to see it.
PRINCIPAL_FIELD = "tus-principal"


def offer(adapter: Replaces, claim: Claim, send_file: bool) -> BinaryIO:
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


def verdict_of(answer: Response) -> str | Response | None:
    """What an application means that was asked (``ask_app``): the principal, or what the client hears instead."""
    if not 200 <= answer.status < 300:
        return answer
    return next((value for name, value in answer.headers if name.lower() == PRINCIPAL_FIELD), None)
