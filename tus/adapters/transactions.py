"""The end of a transaction, as it is reported by hooks that may be called several times, or not at all."""

from __future__ import annotations

import logging
from collections.abc import Callable

log = logging.getLogger(__name__)


class TransactionEnd:
    """A callback for the end of a transaction. The first report counts.

    Args:
        callback: called once, see :class:`tus.adapters.interface.Transactional`.
        postpone: called after it, if the outcome was not recorded: replaces a success response.
    """

    def __init__(self, callback: Callable[[bool], None], postpone: Callable[[], None]) -> None:
        self._callback = callback
        self._postpone = postpone
        self._is_over = False

    def __call__(self, committed: bool) -> None:
        if self._is_over:
            return
        self._is_over = True
        try:
            self._callback(committed)
        except Exception:
            # The transaction has been committed, and no caller could change that.
            log.exception("the outcome of a hand-over could not be recorded; the file is offered again")
            committed = False
        if not committed:
            self._postpone()
