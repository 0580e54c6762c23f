"""The protocols of adapters: everything that this package needs from a web framework."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import reduce
from typing import BinaryIO, Protocol, runtime_checkable

from tus.models import Readable, Request, Response, Upload
from tus.protocols.admission import agree


class Face(Protocol):
    """One request of a framework, and the response to it, without the reading of its body.

    Attributes:
        request: the head of the request.
    """

    @property
    def request(self) -> Request: ...

    def respond(self, response: Response) -> None:
        """Set the framework's response; a later call replaces an earlier one."""


class Replaces(Protocol):
    """A request whose body can be replaced."""

    def replace_body(self, file: BinaryIO, size: int, upload: Upload) -> None:
        """Replace the request's body by a finished upload's file, or its path, for the application to read.

        Args:
            file: the new body.
            size: its length in bytes.
            upload: the finished upload.
        """


class Adapter(Face, Replaces, Protocol):
    """One request of a framework that is served by a thread.

    Attributes:
        stream: the raw body, unread. It must not be a wrapper of the framework that reads ahead, keeps a copy, or
            drops bytes at a disconnect. :class:`~tus.server.body.Body` applies the Content-Length.
    """

    @property
    def stream(self) -> Readable: ...


class AsyncAdapter(Face, Protocol):
    """One request of a framework that is served by an event loop.

    Methods that are not async, and :meth:`Informs.inform`, are called in a worker thread of anyio.
    """

    def has_received(self, length: int) -> bool:
        """Return whether a body of this length has arrived, so that :meth:`receive` does not wait; False if unknown."""

    async def receive(self) -> bytes | None:
        """Return the next bytes of the body, possibly none; None after the last.

        An exception is a cut, and so is None before the announced length. It is not called again after either.
        """


@runtime_checkable
class Informs(Protocol):
    """An adapter that may be able to send an interim response (1xx) before the final one."""

    def inform(self, response: Response) -> bool:
        """Send an interim response if the server can; return whether it was sent."""


@runtime_checkable
class Transactional(Protocol):
    """An adapter whose framework may commit or abort a transaction after the view."""

    def at_transaction_end(self, callback: Callable[[bool], None]) -> bool:
        """Register a function that is called once, with True after a commit and False after an abort.

        It is called for the transaction that is in force now. It raises if the outcome could not be recorded.

        Returns:
            Whether the function will be called; False if nothing is known of a transaction.
        """


#: The key of the :class:`~tus.handover.finished.FinishedUpload` that a request completed, for the wrapped application.
#: A client cannot set it, so an application must trust this key, and never the path in a body alone.
UPLOAD_KEY = "tus.upload"


#: The key of the origin of a hand-over: ``request`` for the client's own request, ``background`` without a client.
HANDOVER_KEY = "tus.handover"


#: The key of the values of the names in ``upload_path``; missing if it has none.
PATH_VALUES_KEY = "tus.path_values"


#: The key of a request's :class:`~tus.models.Intent` as text, for an application that is asked (``ask_app``).
INTENT_KEY = "tus.intent"


#: The key of the :class:`~tus.models.Upload` of that request.
ABOUT_KEY = "tus.about"


LONGEST_ANSWER = 64 << 10  # bytes; a longer body of an application's response is not kept


#: The field of the 2xx response to ``ask_app`` that names the principal; the client does not get it.
PRINCIPAL_FIELD = "tus-principal"


def verdict_of(answer: Response) -> str | Response | None:
    """Return the verdict of an application that was asked (``ask_app``).

    Returns:
        The principal or None after a 2xx, and otherwise the response for the client.

    Raises:
        Forbidden: the application names different principals.
    """
    named = [value.strip(" \t") for name, value in answer.headers if name.lower() == PRINCIPAL_FIELD]
    if 200 <= answer.status < 300:
        return reduce(agree, named, None)
    headers = [(name, value) for name, value in answer.headers if name.lower() != PRINCIPAL_FIELD]
    return replace(answer, headers=headers)
