"""``Tus``: one request, in its own thread."""

from __future__ import annotations

import logging
from contextlib import suppress
from types import TracebackType
from typing import Any, BinaryIO, Self

from tus.adapters.interface import Adapter, Transactional
from tus.errors import NotTaken, OptionError, Rejected, RequestError, SweepIncomplete, UploadGone, UploadLocked
from tus.handover.finished import FinishedUpload, claim_again, keep_untaken, offer
from tus.models import Outcome, Response, Upload
from tus.options import Options
from tus.protocols.effects import (
    Claim,
    Effect,
    Offer,
    Offered,
    Settle,
    Tell,
)
from tus.server.runner_sync import SyncRunner
from tus.server.service import Service, with_store
from tus.server.view_claims import end_abandoned, hold, let_go
from tus.stores.interface import Expires, Store

log = logging.getLogger(__name__)

_NOTHING = (None,) * 5
_SILENT = "the application did not say whether it takes the file"  # the stores use the same words
_UNRECORDED = "the outcome of the hand-over could not be recorded"


class Tus:
    """One request for uploads.

    In a view::

        service = Service(tmp_file_dir="/var/lib/uploads")  # once

        with Tus(WebobAdapter(request), service=service) as tus:
            if tus.valid:
                tus.handle()
                if tus.upload_finished:
                    tus.upload.save_to("/srv/files")
                    tus.cleanup_file()  # without this call the client must retry
                return tus.adapter.resp

    Options can replace a service. Then there is no hand-over without a client.

    Args:
        adapter: the request, see :class:`tus.adapters.interface.Adapter`.
        tmp_file_dir: the directory of the uploads.
        send_file: whether the finished file itself replaces the request's body, or its path does.
        upload_valid_duration: seconds that an unfinished upload is kept.
        service: the options, the store and the receiver; allows no options beside it.
        options: all options, built by :meth:`tus.options.Options.build`; allows no other options beside it.
        store: a store or its URL, instead of ``tmp_file_dir``.
        principal: the principal that sends the request, if the caller knows it: a text or an int. An upload belongs
            to the principal that created it; for others it does not exist. False refuses the request.
        **others: the other options.

    Attributes:
        adapter: the request.
        options: the options.

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
        service: Service | None = None,
        options: Options | None = None,
        store: Store | str | None = None,
        principal: object = None,
        **others: object,
    ) -> None:
        if service is None:
            named = {
                "tmp_file_dir": tmp_file_dir,
                "send_file": send_file,
                "upload_valid_duration": upload_valid_duration,
            }
            values = {name: value for name, value in named.items() if value is not None} | others
            service = _service_of_request(options, store, values)
        elif others or (tmp_file_dir, send_file, upload_valid_duration, options, store) != _NOTHING:
            raise OptionError("service", "has its own options; give no other options with it")
        if service.options.ask_app:
            raise OptionError(
                "ask_app", "works only with Filter and TusMiddleware; in a view, check permissions before handle()"
            )
        self.adapter = adapter
        self.options = service.options
        self._service = service
        if service.receiver is None and self.options.handover == "background":
            raise OptionError("handover", "cannot be background in a view; set on_finished or spool, or use request")
        self._runner = SyncRunner(adapter, service, service.receiver, None, principal)
        if service.receiver is None:
            service.need_files_or_body()
            self._runner.left += (Offer,)
        self._is_paused = False
        self._is_abandoned = False
        self._offered: FinishedUpload | None = None
        self._waits_for_commit = False
        self._at_commit: list[Settle | Tell] = []
        self._file: BinaryIO | None = None

    @property
    def valid(self) -> bool:
        """Whether the request is about uploads; else it is for a page or a form at the same URL."""
        return self._runner.is_ours

    @property
    def send_file(self) -> bool:
        """Whether the finished file itself has replaced the request's body, or its path has."""
        return self.options.send_file

    @property
    def upload(self) -> FinishedUpload | Upload | None:
        """The upload of this request, as it is after the request; None if there is none.

        It is a :class:`~tus.FinishedUpload`, with its data, until the caller has settled the finished file.
        """
        return self._offered if self._is_paused or self._is_abandoned else self._runner.upload

    @property
    def upload_finished(self) -> bool:
        """Whether there is a complete upload for the caller to take.

        The caller must then call :meth:`cleanup_file`, :meth:`reject_file` or :meth:`postpone_file`. Until then the
        reply to the client says that the file is kept, and that the client must retry.
        """
        return self._offered is not None

    def get_filepath(self) -> str:
        """Return the path of the finished file.

        Raises:
            UploadGone: this request completed no upload.
            OptionError: its store keeps no files.
        """
        if self._offered is None:
            raise UploadGone("This request completed no upload.")
        path = self._offered.path
        if path is None:
            raise OptionError("store", "keeps no files; use upload.open(), or set send_file = true and read the body")
        return path

    def cleanup_file(self) -> None:
        """Accept the finished file: its data is removed, and the client gets a success response.

        Call it once the application has the file, whether it was copied or moved away. Until then a retry of the last
        request offers the file again. If the adapter knows of a transaction, the file is accepted once that has been
        committed; otherwise it is accepted now, so commit first.
        """
        saved_as = "" if self._offered is None else self._offered.saved_as
        self._settle(Offered(Response(204, "No Content", saved_as=saved_as), outcome=Outcome.ACCEPTED))

    def reject_file(self, message: str = "The application does not take this upload.", status: int = 422) -> None:
        """Reject the finished file: it is not offered again, and is removed after ``rejected_keep``.

        Args:
            message: the reason, for the client.
            status: the status of the response, a 4xx other than 409 and 423.

        Raises:
            ValueError: the status is another one.
        """
        rejection = Rejected(message, status)
        answer = Response.of_text(rejection.status, message, rejection.reason)
        self._settle(Offered(answer, outcome=Outcome.REJECTED))

    def postpone_file(self, message: str = "The application cannot take this file now; try again.") -> None:
        """Postpone the finished file: it is kept, and the client must retry.

        Args:
            message: the reason, for the client and the operator.
        """
        answer = Response.of_text(503, message)
        self._settle(Offered(answer, message, Outcome.POSTPONED))

    def _settle(self, offered: Offered) -> None:
        """Go on with the paused exchange; a second call does nothing."""
        if self._file is not None:
            with suppress(OSError):  # the application has decided
                self._file.close()
        if not self._resume() and not self._claim_again():
            return
        if offered.outcome == Outcome.ACCEPTED and self._offered is not None and not self.send_file:
            keep_untaken(self._offered)
        if offered.outcome is not Outcome.POSTPONED and isinstance(self.adapter, Transactional):
            self._waits_for_commit = self.adapter.at_transaction_end(self._end_transaction)
        try:
            self._drive(self._runner.go_on(lambda effect: offered, None))
        finally:
            if not self._at_commit:
                self._runner.leave(_UNRECORDED)

    def _claim_again(self) -> bool:
        """Claim the file again for a caller that settles it after the request; return whether the claim succeeded."""
        if not self._is_abandoned or self._offered is None:
            return False
        self._is_abandoned = False
        try:
            claim = self._service.store.claim(self._offered)
        except RequestError as error:
            log.warning("upload %s: a late outcome was ignored, because the claim failed: %s", self._offered.id, error)
            return False
        self._runner.adopt_claim(claim)
        claim_again(self._offered, claim)
        if not claim.upload.is_pending:
            self._runner.leave()
            return False
        return True

    def _resume(self) -> bool:
        """End the pause; return False if there is none, or another thread has released the claim."""
        if not self._is_paused or not let_go(self):
            return False
        self._is_paused = False
        return True

    def cleanup(self) -> int:
        """Remove the expired uploads, and return their number.

        Where threads can run no code needs to call it, because the first creation starts the sweeper.
        """
        store = self._service.store
        try:
            return store.sweep() if isinstance(store, Expires) else 0
        except SweepIncomplete as error:
            log.warning("%s", error)
            return error.removed

    def handle(self) -> None:
        """Handle the request, and give the adapter the response; a refusal is a response too.

        In a view the exceptions of ``authorize`` are raised, because the framework may have responses for them. Any
        other exception is logged, and the response is a 500.
        """
        end_abandoned()
        self._service.start(_allows_threads(self.adapter, self.options))
        try:
            self._drive(self._runner.begin())
        except BaseException as error:
            self._runner.break_off()
            if not isinstance(error, Exception) or self._runner.is_in_application:
                raise
            self._runner.answer_failure()

    def _drive(self, effect: Effect | None) -> None:
        """Run the exchange until it has a response, or pauses."""
        while effect is not None:
            if isinstance(effect, Offer):
                self._offer_to_caller()
                self._is_paused = True
                hold(self, self.adapter)
                self.adapter.respond(effect.pending())
                return
            effect = self._runner.go_on(self._perform, effect)
        self._runner.conclude(is_claim_kept=bool(self._at_commit))

    def close(self) -> None:
        """Postpone a finished file that the caller has not settled. The end of the ``with`` block calls it."""
        if self._is_paused:
            self._settle(Offered(Response.of_error(NotTaken()), _SILENT, Outcome.POSTPONED))

    def abandon(self) -> None:
        """Release the claim after a request whose caller has not settled the finished file."""
        let_go(self)
        if self._is_paused:
            self._is_paused = False
            self._is_abandoned = True
            self._runner.break_off(_SILENT)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _perform(self, effect: Effect) -> Any:
        """Perform an effect of a file that the caller has taken."""
        if isinstance(effect, Claim):
            # One part can complete several final uploads. The caller takes one; the others are offered later.
            raise UploadLocked()
        if self._waits_for_commit:
            assert isinstance(effect, Settle | Tell), "the runner performs the others"
            self._at_commit.append(effect)
            return None
        return self._runner.perform(effect)

    def _offer_to_caller(self) -> None:
        claim = self._runner.claim
        assert claim is not None, "an Offer follows a Claim"
        self._offered = FinishedUpload(claim)
        self._file = offer(self.adapter, self._offered, self.options.send_file)
        self._runner.left += (Claim, Settle, Tell)  # the outcome may have to wait for the transaction

    def _end_transaction(self, committed: bool) -> None:
        """Record the outcome after a commit, or release the claim."""
        try:
            if committed:
                for effect in self._at_commit:
                    self._runner.perform(effect)
        finally:
            self._runner.leave(_UNRECORDED if committed else "the transaction was aborted")


def _allows_threads(adapter: Adapter, options: Options) -> bool:
    """Return whether the server lets other threads run beside this request, as far as the request says."""
    environ = getattr(adapter, "environ", None)
    return environ is None or bool(environ.get("wsgi.multithread")) or options.handover == "background"


def _service_of_request(options: Options | None, store: Store | str | None, values: dict[str, object]) -> Service:
    if options is None:
        options = Options.build(**with_store(values, store))
    elif values:
        raise OptionError(next(iter(values)), "cannot be given beside options=; pass it to Options.build()")
    return Service.of_request(options, store)
