"""The caller's hand on a running upload: pause it, let it go on, cancel it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from weakref import WeakSet

from tus.client.errors import Cancelled, ConnectionFailed


class Paused(ConnectionFailed):
    """A request that ended because the caller paused the upload. It does not count as a failure."""

    was_paused = True


class Control:
    """A hand on uploads, from any thread.

    A paused upload closes its connection, because servers do not wait for a silent client. It goes on where the server
    says.
    """

    def __init__(self, parent: Control | None = None) -> None:
        self._condition: threading.Condition = threading.Condition() if parent is None else parent._condition
        self._parent = parent
        self._is_paused = self._is_cancelled = False
        self._abort: set[Callable[[], None]] = set()
        self._children: WeakSet[Control] = WeakSet()
        if parent is not None:
            parent._children.add(self)

    def pause(self) -> None:
        """Stop sending at once, until :meth:`resume`."""
        self._set(is_paused=True)

    def resume(self) -> None:
        """Go on after :meth:`pause`."""
        self._set(is_paused=False)

    def cancel(self) -> None:
        """End the uploads with :class:`~tus.client.Cancelled`. A later call can go on where they stop."""
        self._set(is_cancelled=True)

    @property
    def is_paused(self) -> bool:
        return self._is_paused or (self._parent is not None and self._parent.is_paused)

    @property
    def is_cancelled(self) -> bool:
        return self._is_cancelled or (self._parent is not None and self._parent.is_cancelled)

    def _set(self, *, is_paused: bool | None = None, is_cancelled: bool = False) -> None:
        with self._condition:
            self._is_paused = self._is_paused if is_paused is None else is_paused
            self._is_cancelled = self._is_cancelled or is_cancelled
            self._condition.notify_all()
            running = self._running() if is_paused or is_cancelled else []
        for abort in running:
            abort()

    def _running(self) -> list[Callable[[], None]]:
        return [*self._abort, *(abort for child in self._children for abort in child._running())]

    def check(self) -> None:
        """Return, if the upload may go on.

        Raises:
            Cancelled: it was cancelled.
            Paused: it is paused.
        """
        if self.is_cancelled:
            raise Cancelled("The upload was cancelled; it can go on from where it is.")
        if self.is_paused:
            raise Paused("The upload is paused.")

    def sleep(self, seconds: float) -> None:
        """Wait, unless the upload is cancelled.

        Raises:
            Cancelled: it was.
        """
        with self._condition:
            self._condition.wait_for(lambda: self.is_cancelled, seconds)
        if self.is_cancelled:
            self.check()

    def wait_until_resumed(self) -> None:
        """Wait as long as the upload is paused.

        Raises:
            Cancelled: it was cancelled meanwhile.
        """
        with self._condition:
            self._condition.wait_for(lambda: self.is_cancelled or not self.is_paused)
        if self.is_cancelled:
            self.check()

    @contextmanager
    def aborting(self, abort: Callable[[], None]) -> Iterator[None]:
        """Have a function called when the uploads are paused or cancelled while the block runs, or are so already."""
        with self._condition:
            self._abort.add(abort)
        try:
            if self.is_paused or self.is_cancelled:
                abort()
            yield
        finally:
            with self._condition:
                self._abort.discard(abort)
