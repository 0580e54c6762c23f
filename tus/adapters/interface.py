"""What an adapter is: the whole of what this package asks of a web framework."""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO, Protocol, runtime_checkable

from tus.models import Readable, Request, Response, Upload


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
