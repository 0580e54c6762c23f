"""The receivers of finished uploads that options select instead of the wrapped application."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable

from tus.converters import is_async
from tus.errors import StorageFull, StorageUnavailable
from tus.filesystem.io import is_full
from tus.filesystem.ownership import Ownership
from tus.handover.attempt import Receiver
from tus.handover.finished import FinishedUpload, keep_untaken
from tus.handover.spool import Spool
from tus.models import Response, Upload
from tus.options import OnFinished, Options
from tus.stores.interface import Claim

log = logging.getLogger(__name__)


class FunctionReceiver:
    """The receiver that calls a Python function with each finished upload.

    Attributes:
        calls_out: whether the function is the application's, and may wait for anything.
    """

    def __init__(self, function: OnFinished) -> None:
        self._function = function
        self.calls_out: bool = getattr(function, "calls_out", True)

    def __call__(self, claim: Claim) -> Response:
        upload = FinishedUpload(claim)
        returned = self._function(upload)
        if returned is not None and inspect.isawaitable(returned):
            getattr(returned, "close", lambda: None)()
            raise TypeError("on_finished returned an awaitable; under WSGI it must be an ordinary function")
        keep_untaken(upload)
        return Response(204, "No Content", saved_as=upload.saved_as)


class SpoolReceiver:
    """The receiver that puts each finished upload into a spool."""

    calls_out = False

    def __init__(self, put: Callable[[Upload, str], None]) -> None:
        self._put = put

    def __call__(self, claim: Claim) -> Response:
        """Put the upload into the spool.

        Raises:
            StorageFull: there is no room for the entry.
            StorageUnavailable: the spool cannot be written now, or the data cannot be forced to the disk.
        """
        try:
            claim.sync()
            self._put(claim.upload, claim.upload.key)
        except OSError as error:
            if is_full(error):
                raise StorageFull() from error
            log.exception("upload %s could not be put into the spool", claim.upload.id)
            raise StorageUnavailable() from error
        return Response(204, "No Content")


#: The spools and directories of uploads between which links were proven to work.
_linked: set[tuple[str, str]] = set()
_MOST_LINKED = 1024


def receiver_of(options: Options) -> Receiver | None:
    """Return the receiver that the options select; None if the application or an async function is the receiver.

    Raises:
        OptionError: the spool cannot be used.
    """
    if is_async(options.on_finished):
        return None  # its event loop calls it
    if options.on_finished is not None:
        return FunctionReceiver(options.on_finished)
    if not options.spool:
        return None
    spool = Spool(options.spool, ownership=Ownership(options.trusted_group))
    pair = (options.spool, options.tmp_file_dir)
    if pair not in _linked:  # a view may make a receiver in each request
        spool.check_links_from(options.tmp_file_dir)
        if len(_linked) >= _MOST_LINKED:
            _linked.clear()
        _linked.add(pair)
    return SpoolReceiver(spool.put)
