"""``Tus``: one request, in a thread of its own."""

from __future__ import annotations

from functools import partial
from types import TracebackType
from typing import Any, BinaryIO, Self

from tus.adapters.interface import Adapter, Transactional, offer
from tus.course import Course
from tus.errors import NotTaken, OptionError, Rejected, UploadGone, UploadLocked
from tus.handover.attempt import Receiver
from tus.handover.backlog import Backlog, backlog_of
from tus.handover.receivers import receiver_of
from tus.models import Outcome, Response, Upload
from tus.options import Options
from tus.protocols.effects import Claim, Effect, Offer, Offered, Peek, Peeked, Receive, Received, Settle, Tell
from tus.protocols.tus1 import replies as tus1_replies
from tus.server.body import Body
from tus.server.runner import Asker
from tus.stores import open_store
from tus.stores.interface import Expires, Store

_SILENT = "the application did not say whether it takes the file"


class Tus:
    """One request to the uploads.

    In a view::

        tus = Tus(WebobAdapter(request), tmp_file_dir="/var/lib/uploads")
        if tus.valid:
            tus.handle()
            if tus.upload_finished:
                store(tus.get_filepath(), tus.upload.filename)
                tus.cleanup_file()  # else the client hears that it is to try again
            return adapter.resp

    Making one is cheap: equal options are looked at, and their directory is proven, once per process.

    Args:
        adapter: the request, see :class:`tus.adapters.interface.Adapter`.
        tmp_file_dir: the directory of the uploads.
        send_file: whether the finished file itself takes the place of the request's body, or its path.
        upload_valid_duration: seconds that an unfinished upload is kept.
        options: all of them at once, built by :meth:`tus.options.Options.build`; then none of the others is given.
        store: where uploads are kept, if not in ``tmp_file_dir``.
        receiver: whoever takes finished uploads within :meth:`handle`; by default what the options name, and else the
            caller goes on itself.
        backlog: whoever hands over without a client.
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
        backlog: Backlog | None = None,
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
        if receiver is None:
            receiver = receiver_of(options)
            if receiver is not None:
                backlog = backlog_of(self._store, options, receiver)
        if receiver is None and options.handover == "background":
            raise OptionError("handover", "cannot be background in a view without on_finished or spool")
        principal = None if principal is None else str(principal)
        self._course = Course(adapter, options, self._store, receiver, backlog, asker, principal)
        if receiver is None:
            self._course.left += (Offer,)
        self._rests = False
        self._offered: Upload | None = None
        self._at_commit: list[Settle | Tell] = []
        self._file: BinaryIO | None = None

    @property
    def valid(self) -> bool:
        """Whether the request speaks to the uploads; else it is for a page or a form at the same URL."""
        return self._course.is_ours

    @property
    def send_file(self) -> bool:
        """Whether the finished file itself is the request's body now, or its path."""
        return self.options.send_file

    @property
    def upload(self) -> Upload | None:
        """The upload that this request is about, as it stands after it; None where there is none."""
        return self._course.upload

    @property
    def upload_finished(self) -> bool:
        """Whether there is a complete upload for the caller to take.

        The caller then says what it has done, by :meth:`cleanup_file`, :meth:`reject_file` or :meth:`postpone_file`.
        Until then the client's reply says that the file is kept, and that it is to ask again.
        """
        return self._offered is not None

    def get_filepath(self) -> str:
        """The path of the finished file.

        Raises:
            UploadGone: this request completed no upload, or its store keeps no files.
        """
        if self._offered is None or self._offered.path is None:
            raise UploadGone("This request completed no upload.")
        return self._offered.path

    def cleanup_file(self) -> None:
        """Acknowledge the finished file: the application has it, so the data is removed, and the client hears success.

        Until then a repeated last request offers it again. It does not matter whether the file was moved away.
        Where the framework has transactions, it is removed once that of this request is committed.
        """
        self._say(Offered(Response(204, "No Content"), outcome=Outcome.ACCEPTED))

    def reject_file(self, message: str = "The application does not take this upload.", status: int = 422) -> None:
        """Reject the finished file for good: nobody is asked again, and it is removed after ``rejected_keep``.

        Args:
            message: what is wrong with it, for the client.
            status: what the client hears, a 4xx other than 409 and 423.

        Raises:
            ValueError: the status is another one.
        """
        rejection = Rejected(message, status)
        answer = Response.of_text(rejection.status, message, rejection.reason)
        self._say(Offered(answer, outcome=Outcome.REJECTED))

    def postpone_file(self, message: str = "The application cannot take this file now; try again.") -> None:
        """Leave the finished file for later: the client hears that it is to ask again."""
        answer = Response.of_text(503, message)
        self._say(Offered(answer, message, Outcome.POSTPONED))

    def _say(self, offered: Offered) -> None:
        """Go on with the exchange that rests, once."""
        if self._file is not None:
            self._file.close()
        if not self._rests:
            return
        self._rests = False
        try:
            self._drive(self._course.go_on(lambda: offered))
        finally:
            if not self._at_commit:
                self._course.handing.leave("it could not be taken down what the application did")

    def cleanup(self) -> int:
        """Remove the uploads that have expired; returns how many that were.

        Nobody needs to call it where threads run: the first creation starts one that does it.
        """
        return self._store.sweep() if isinstance(self._store, Expires) else 0

    def handle(self) -> None:
        """Answer the request; refusals too become the adapter's response."""
        try:
            self._drive(self._course.begin())
        except BaseException:
            self._course.break_off()
            raise

    def _drive(self, effect: Effect | None) -> None:
        """Go through the exchange until it has come to its response, or rests."""
        while effect is not None:
            if isinstance(effect, Offer):
                self._offer_to_caller()
                self._rests = True
                self._adapter.respond(effect.pending)
                return
            effect = self._course.go_on(partial(self._perform, effect))
        self._course.conclude(is_claim_kept=bool(self._at_commit))

    def close(self) -> None:
        """Let go of what the caller has not said anything about. It is called at the end of ``with Tus(...) as tus:``.

        A view that raises lets go by itself, once nothing refers to this object any more.
        """
        if self._rests:
            self._say(Offered(tus1_replies.refused(NotTaken(), is_head=False), _SILENT, Outcome.POSTPONED))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_rests", False):  # a view that has failed, or has not said anything
            self._course.break_off(_SILENT)

    def _perform(self, effect: Effect) -> Any:
        """What is left to this driver."""
        if isinstance(effect, Receive | Peek):
            return self._pour(effect)
        if isinstance(effect, Claim):
            # One part can complete several final uploads. The caller takes one; the others are offered later.
            raise UploadLocked()
        if isinstance(effect, Settle | Tell) and self._waits_for_commit(effect):
            self._at_commit.append(effect)
            return None
        return self._course.driver.perform(effect)

    def _pour(self, effect: Receive | Peek) -> Received | Peeked:
        driver = self._course.driver
        driver.body = body = Body(self._adapter.stream, effect.intake.body.length, driver.patience())
        with driver.sink(effect) as sink:
            body.is_wanted = sink.is_wanted
            for block in body.blocks():
                if not sink.write(block):
                    break
            came = sink.end(body.cut)
        return driver.poured(effect, came)

    def _waits_for_commit(self, effect: Settle | Tell) -> bool:
        postpones = isinstance(effect, Settle) and effect.outcome == Outcome.POSTPONED
        return isinstance(self._adapter, Transactional) and not postpones

    def _offer_to_caller(self) -> None:
        claim = self._course.handing.claim
        assert claim is not None, "an Offer follows a Claim"
        self._file = offer(self._adapter, claim, self.options.send_file)
        self._offered = claim.upload
        self._course.left += (Claim, Settle, Tell)  # what comes of it may have to wait for the transaction
        if isinstance(self._adapter, Transactional):
            self._adapter.at_transaction_end(self._end_transaction)

    def _end_transaction(self, committed: bool) -> None:
        """What the caller did with the finished upload stands now, or it does not."""
        if self._file is not None:
            self._file.close()
        if committed:
            for effect in self._at_commit:
                self._course.driver.perform(effect)
        self._course.handing.leave(_SILENT if committed else "the transaction was aborted")
