"""``Tus``: the synchronous driver of :func:`tus.exchange.exchange`. It performs effects, and decides nothing."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, BinaryIO

from tus.adapters.interface import Adapter, Transactional
from tus.body import Body
from tus.downloads import download
from tus.errors import OptionError, RequestError, StorageUnavailable, UploadGone, UploadLocked, UploadNotFound
from tus.events import Answered, Begun, Created, Ended, Finished, HandedOver, emit, listen
from tus.exchange import (
    Authorize,
    Concatenate,
    Create,
    Effect,
    FinalsOf,
    HandOver,
    Load,
    Receive,
    Remove,
    Serve,
    Steps,
    Touch,
    Watch,
    exchange,
)
from tus.handover import offer
from tus.logs import log_events
from tus.models import Intent, Response, State, Upload
from tus.options import Options
from tus.patience import Patience
from tus.protocol import tus1
from tus.receiving import receive
from tus.stores import open_store
from tus.stores.interface import Claim, Concatenates, Expires, Reads, Store, extensions_of
from tus.sweeper import keep_swept

log = logging.getLogger(__name__)
listen(log_events)

#: Gives a complete upload to the application, and answers with what that said.
Receiver = Callable[[Claim], Response]

#: Asks the application whether a request may do what it intends: the principal, or what the client hears instead.
Asker = Callable[[Intent, Upload], str | Response | None]


class Tus:
    """One request to the uploads.

    In a view::

        tus = Tus(WebobAdapter(request), tmp_file_dir="/var/lib/uploads")
        if tus.valid:
            tus.handle()
            if tus.upload_finished:
                store(tus.get_filepath(), tus.upload.filename)
                tus.cleanup_file()
            return adapter.resp

    Making one is cheap: equal options are looked at, and their directory is proven, once per process.

    Args:
        adapter: the request, see :class:`tus.adapters.interface.Adapter`.
        tmp_file_dir: the directory of the uploads.
        send_file: whether the finished file itself takes the place of the request's body, or its path.
        upload_valid_duration: seconds that an unfinished upload is kept.
        options: all of them at once, built by :meth:`tus.options.Options.build`; then none of the others is given.
        store: where uploads are kept, if not in ``tmp_file_dir``.
        receiver: whoever takes finished uploads within :meth:`handle`; None where the caller goes on itself.
        asker: asks for the intents of ``ask_app``.
        principal: who sends the request, where the caller knows it. An upload belongs to the principal that created
            it; to others it does not exist.
        **others: the other options.

    Raises:
        OptionError: an option is unknown or has a bad value.
    """

    def __init__(
        self,
        adapter: Adapter,
        tmp_file_dir: object = None,
        send_file: object = None,
        upload_valid_duration: object = None,
        *,
        options: Options | None = None,
        store: Store | None = None,
        receiver: Receiver | None = None,
        asker: Asker | None = None,
        principal: object = None,
        **others: object,
    ) -> None:
        named = {
            "tmp_file_dir": tmp_file_dir,
            "send_file": send_file,
            "upload_valid_duration": upload_valid_duration,
        }
        values = {name: value for name, value in named.items() if value is not None} | others
        if options is None:
            options = Options.build(**values)
        elif values:
            raise OptionError(next(iter(values)), "cannot be given beside options=")
        if options.ask_app and asker is None:
            raise OptionError("ask_app", "is for a Filter, which has an application to ask; a view asks by itself")
        self.options = options
        self._adapter = adapter
        self._store = open_store(options) if store is None else store
        if options.download and not isinstance(self._store, Reads):
            raise OptionError("download", "cannot be true with this store, whose uploads cannot be read")
        self._receiver = receiver
        self._asker = asker
        self._principal = None if principal is None else str(principal)
        self._claim: Claim | None = None
        self._is_accepted = False
        self._file: BinaryIO | None = None
        self._is_in_application = False
        self._upload: Upload | None = None
        self._body: Body | None = None
        self._kept = 0  # bytes of it that are counted

    @property
    def valid(self) -> bool:
        """Whether the request speaks to the uploads; else it is for a page or a form at the same URL."""
        return tus1.is_ours(self._adapter.request, self.options)

    @property
    def send_file(self) -> bool:
        """Whether the finished file itself is the request's body now, or its path."""
        return self.options.send_file

    @property
    def upload(self) -> Upload | None:
        """The upload that this request is about, as it stands after it; None where there is none."""
        return self._upload

    @property
    def upload_finished(self) -> bool:
        """Whether this request completed an upload, for the caller to take.

        Having it, the caller says so by :meth:`cleanup_file`.
        """
        return self._claim is not None

    def get_filepath(self) -> str:
        """The path of the finished file.

        Raises:
            UploadGone: this request completed no upload, or its store keeps no files.
        """
        if self._claim is None or self._claim.upload.path is None:
            raise UploadGone("This request completed no upload.")
        return self._claim.upload.path

    def cleanup_file(self) -> None:
        """Acknowledge the finished file: the application has it, so the data is removed.

        Until then a repeated last request offers it again. It does not matter whether the file was moved away.
        Where the framework has transactions, it is removed once that of this request is committed.
        """
        self._is_accepted = True
        if self._claim is not None and not isinstance(self._adapter, Transactional):
            _accept(self._claim)
        if self._file is not None:
            self._file.close()

    def cleanup(self) -> int:
        """Remove the uploads that have expired; returns how many that were.

        Nobody needs to call it where threads run: the first creation starts one that does it.
        """
        return self._store.sweep() if isinstance(self._store, Expires) else 0

    def handle(self) -> None:
        """Answer the request; refusals too become the adapter's response."""
        method = tus1.effective_method(self._adapter.request)
        began = time.monotonic()
        response = Response(500, "Internal Server Error")
        emit(Begun(method))
        try:
            response = self._drive()
            self._adapter.respond(response)
        finally:
            body = self._body
            cut = body is not None and body.cut
            emit(
                Answered(
                    method=method,
                    status=response.status,
                    reason=response.reason,
                    upload=self._upload,
                    received=0 if body is None else body.received,
                    cut=cut,
                    kept_from_cut=self._kept if cut else 0,
                    seconds=time.monotonic() - began,
                )
            )

    def _drive(self) -> Response:
        """Perform the effects of the exchange until it has come to its response."""
        steps: Steps = exchange(self._adapter.request, self.options, self._extensions(), time.time())
        try:
            effect = next(steps)
            while True:
                try:
                    result = self._perform(effect)
                except RequestError as error:
                    effect = steps.throw(error)
                except OSError as error:
                    if self._is_in_application:
                        raise
                    log.exception("the store failed")
                    effect = steps.throw(StorageUnavailable().with_traceback(error.__traceback__))
                else:
                    effect = steps.send(result)
        except StopIteration as stop:
            response: Response = stop.value
            return response

    def _extensions(self) -> frozenset[str]:
        extensions = extensions_of(self._store)
        return extensions if self.options.upload_valid_duration else extensions - {"expiration"}

    # -- Effects --

    def _perform(self, effect: Effect) -> Any:
        store = self._store
        match effect:
            case Authorize(intent, upload):
                return self._authorize(intent, upload)
            case Load(upload_id):
                loaded = store.load(upload_id)
                self._upload = self._upload or loaded
                return loaded
            case Receive(upload, intake):
                patience = Patience(self.options.stall_timeout, self.options.min_rate)
                self._body = Body(self._adapter.stream, intake.body.length, patience)
                received = receive(store, self._body, upload, intake)
                self._upload = received.upload
                self._kept = received.upload.offset - intake.offset
                if received.upload.is_complete:
                    emit(Finished(received.upload))
                return received
            case Create(draft):
                keep_swept(store, self.options.upload_valid_duration)
                began = time.time()
                self._upload = store.create(draft)
                if not draft.id or self._upload.created_at >= began:  # else the one that exists was found
                    emit(Created(self._upload))
                    if self._upload.is_complete:
                        emit(Finished(self._upload))
                return self._upload
            case Serve(upload):
                assert isinstance(store, Reads), "looked at when this was made"
                return download(self._adapter.request, upload, *store.read(upload))
            case HandOver(upload):
                return self._hand_over(upload)
            case Remove(upload_id):
                store.remove(upload_id)
                if self._upload is not None and tus1.effective_method(self._adapter.request) == "DELETE":
                    emit(Ended(self._upload, "terminated"))
                return None
        assert isinstance(store, Concatenates), "the exchange asks for what the extensions contain"
        match effect:
            case Watch(final):
                return [store.watch(part_id, final.id) for part_id in final.parts]
            case Concatenate(final, parts):
                joined = store.concatenate(final.id, parts)
                if joined.is_complete:
                    emit(Finished(joined))
                return joined
            case FinalsOf(part):
                return store.finals_of(part.id)
            case Touch(final_id):
                with suppress(UploadNotFound, UploadGone):
                    return store.touch(final_id)

    def _authorize(self, intent: Intent, upload: Upload) -> str | Response | None:
        principal: str | Response | None = self._principal
        self._is_in_application = True
        if self.options.authorize is not None:
            named: object = self.options.authorize(self._adapter.request, intent, upload)
            principal = None if named is None else str(named)  # many a framework's users are numbers
        if self._asker is not None and intent in self.options.ask_app:
            principal = self._asker(intent, upload)
        self._is_in_application = False
        return principal

    def _hand_over(self, upload: Upload) -> Response | None:
        if self._claim is not None:
            # One part can complete several final uploads. The caller takes them one by one: the client asks again.
            raise UploadLocked()
        claim = self._store.claim(upload)
        self._upload = claim.upload
        began = time.monotonic()
        outcome = ""
        try:
            if claim.upload.state == State.ACCEPTED:
                return None  # by another request, while this one was on its way
            outcome = "failed"
            if self._receiver is None:
                outcome = "offered"
                self._file = offer(self._adapter, claim, self.options.send_file)
                self._claim = claim
                if isinstance(self._adapter, Transactional):
                    self._adapter.at_transaction_end(self._settle)
                return None
            self._is_in_application = True
            response = self._receiver(claim)
            self._is_in_application = False
            outcome = "refused"
            if 200 <= response.status < 300:
                outcome = "accepted"
                _accept(claim)
            return response
        finally:
            if outcome:
                emit(HandedOver(claim.upload, outcome, time.monotonic() - began))
            if self._claim is not claim:
                claim.release()

    def _settle(self, committed: bool) -> None:
        """What the caller did with the finished upload stands now, or it does not."""
        if self._claim is None:
            return
        if self._file is not None:
            self._file.close()
        if committed and self._is_accepted:
            _accept(self._claim)
        else:
            self._claim.release()


def _accept(claim: Claim) -> None:
    """Take down that the application has the upload."""
    if claim.upload.state != State.ACCEPTED:
        claim.accept()
        emit(Ended(claim.upload, "accepted"))
