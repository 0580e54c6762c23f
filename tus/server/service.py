"""The composition root: options, a store and hooks become one service, configured once.

``Filter``, ``TusMiddleware``, ``TusApp``, ``Tus``, the operations and the command line hold one and pass it on. Law of
this room: no registry of the process finds a service again by its options. What is made for a request dies with it,
and a finished file can only go to the receiver of the service under whose name it was created.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import unquote, urlsplit
from weakref import WeakSet

from tus.errors import OptionError, RequestError, StorageUnavailable, UploadGone, UploadNotFound
from tus.events import Answered, Created, Ended, Finished, emit, listen
from tus.handover.attempt import Receiver
from tus.handover.backlog import Backlog
from tus.handover.receivers import receiver_of
from tus.hooks.configured import hooks_of
from tus.http.headers import format_metadata
from tus.models import HookType, State, Upload, is_upload_id
from tus.monitoring.logs import log_events
from tus.options import Options
from tus.protocols.bodies import check_size
from tus.server.pace import Patience
from tus.stores import open_store
from tus.stores.interface import Completes, Expires, HasFiles, Lists, Reads, Store, extensions_of
from tus.stores.sweeper import Sweeper, keep_directory_swept

log = logging.getLogger(__name__)

_living: WeakSet[Service] = WeakSet()  # for the command line, and to refuse two of one name; nothing is found by it
_living_lock = threading.Lock()


class Service:
    """Where uploads are kept, and what takes them.

    In a view::

        service = tus.Service(tmp_file_dir="/var/lib/uploads", on_finished=take)

        def upload_view(request):
            adapter = tus.WebobAdapter(request)
            with tus.Tus(adapter, service=service) as upload:
                ...

    Args:
        options: all of them at once, built by :meth:`tus.Options.build`; then give none of the others.
        store: where uploads are kept: a store or its URL; by default the directory ``tmp_file_dir``.
        **others: see :class:`tus.Options`.

    Attributes:
        options: see there.
        name: what uploads remember of their service: the option ``name``, or else ``upload_path``.
        store: where uploads are kept.
        hooks: the hooks to call.
        receiver: takes finished uploads; None where the application does.
        small: bytes that the store takes in one step; None where it does not say.
        patience: how slow clients may be.
        backlog: hands over without a client; None where nothing takes uploads without one.
        extensions: the tus extensions that work with the store.
        completes: the store, if it can take the last bytes and begin the hand-over in one step.

    Raises:
        OptionError: an option is unknown or has a bad value, does not go with the store, or another service of this
            process has this directory and this name.
    """

    def __init__(self, *, options: Options | None = None, store: Store | str | None = None, **others: object) -> None:
        if options is None:
            options = Options.build(**with_store(others, store))
        elif others:
            raise OptionError(next(iter(others)), "cannot be given beside options=")
        self._set_up(options, store)
        self.receiver = receiver_of(options)
        self.hooks = hooks_of(options, self.store)
        self._sweeper = Sweeper()
        self._is_of_request = False
        self._register()
        if self.receiver is not None:
            self.hand_over_to(self.receiver)

    def _set_up(self, options: Options, store: Store | str | None) -> None:
        listen(log_events, Answered, Ended)
        self.options = options
        self.name = options.service_name
        self.store = _opened(options, store)
        self.backlog: Backlog | None = None
        self.small: int | None = getattr(self.store, "small", None)
        self.patience = Patience(options.stall_timeout, options.min_rate)
        self._swept_in = 0  # the process in which the store is swept
        self.extensions = extensions_of(self.store)
        self.completes = self.store if isinstance(self.store, Completes) else None
        if not options.upload_valid_duration:
            self.extensions -= {"expiration"}
        if options.download and not isinstance(self.store, Reads):
            raise OptionError("download", "cannot be true with this store, whose uploads cannot be read")
        if options.spool:
            self.need_files("spool", "needs a store that keeps files; use tmp_file_dir, or on_finished")
        if options.webhook and not options.tmp_file_dir:
            raise OptionError("tmp_file_dir", "is required with webhook; events wait there until they are delivered")

    @classmethod
    def of_request(cls, options: Options, store: Store | str | None = None) -> Service:
        """Return a service for one request, which has no threads and does not hand over without a client.

        Raises:
            OptionError: an option needs a service that lasts.
        """
        if options.webhook:
            raise OptionError("webhook", "needs a tus.Service that is built once; pass it as service=")
        if options.handover == "background":
            raise OptionError("handover", "cannot be background without a tus.Service that is built once")
        service = cls.__new__(cls)
        service._set_up(options, store)
        service.receiver = receiver_of(options)
        service.hooks = hooks_of(options, service.store)
        service._is_of_request = True
        return service

    def need_files(self, option: str, problem: str) -> None:
        """Refuse an option that cannot work with a store that keeps no files.

        Raises:
            OptionError: the store keeps none.
        """
        if not isinstance(self.store, HasFiles):
            raise OptionError(option, problem)

    def need_files_or_body(self) -> None:
        """Refuse to give an application the path of a file that does not exist.

        Raises:
            OptionError: it would get one, and the store keeps no files.
        """
        if not self.options.send_file:
            self.need_files("send_file", "must be true with a store that keeps no files; read the body of the request")

    @property
    def directory(self) -> str:
        """The directory of the uploads; empty where the store is another one."""
        return str(getattr(self.store, "directory", ""))

    def _register(self) -> None:
        with _living_lock:
            for other in _living:
                if self.name == other.name and self._shares_store(other) and self._takes_otherwise(other):
                    raise OptionError(
                        "name",
                        f"cannot be {self.name!r}: another service of this process has its uploads in the same place "
                        "under this name, with another receiver; give each of them a name of its own, or close() the "
                        "other one first",
                    )
            _living.add(self)

    def _shares_store(self, other: Service) -> bool:
        if self.store is other.store:
            return True
        return bool(self.directory) and os.path.realpath(self.directory) == os.path.realpath(other.directory)

    def _takes_otherwise(self, other: Service) -> bool:
        mine, theirs = self.options, other.options
        return (mine.on_finished, mine.spool) != (theirs.on_finished, theirs.spool)

    # -- Beside the requests --

    def hand_over_to(self, receiver: Receiver) -> Backlog:
        """Have finished uploads of which no client asks given to a receiver; the first one that is given counts.

        Raises:
            OptionError: the receiver would get the path of a file, and the store keeps none.
        """
        if self.options.on_finished is None and not self.options.spool:
            self.need_files_or_body()
        if self.backlog is None:
            self.backlog = Backlog(self.store, self.options, receiver, self.hooks)
        return self.backlog

    def start(self) -> None:
        """Start the threads that hand over and deliver events, unless this process has them."""
        if self._is_of_request or not self.options.threads:
            return
        self.hooks.start()
        if self.backlog is not None:
            self.backlog.start()

    def keep_swept(self) -> None:
        """Have expired uploads removed beside the requests."""
        if self._swept_in == os.getpid():
            return
        self._swept_in = os.getpid()
        if not self.options.threads or not isinstance(self.store, Expires):
            return
        lifetime = self.options.upload_valid_duration
        if self._is_of_request:
            keep_directory_swept(self.store, lifetime)
        else:
            self._sweeper.add(self.store, lifetime)

    def schedule(self, upload: Upload) -> None:
        """Have an upload handed over once that is due."""
        if self.backlog is not None:
            self.backlog.add(upload)

    def close(self) -> None:
        """End the threads. The service must not be used after that."""
        if self.backlog is not None:
            self.backlog.stop()
        if not self._is_of_request:
            self._sweeper.stop()
            with _living_lock:
                _living.discard(self)

    # -- Uploads that code of the site makes, looks up and ends --

    def create_upload(
        self,
        *,
        length: int | None = None,
        metadata: Mapping[str, str | bytes] | None = None,
        principal: object = None,
        expires: float | None = None,
    ) -> Upload:
        """Create an upload for a client that only appends; :meth:`url_of` is what the client is given.

        Args:
            length: in bytes, None where the client is to tell it.
            metadata: as a client would send it, by key.
            principal: who may continue it; None for any client that knows the URL.
            expires: seconds until it is removed if no byte comes; by default ``upload_valid_duration``, which counts
                from the first byte on.

        The hook ``post_create`` is called; ``pre_create`` and ``authorize`` are for requests of clients.

        Raises:
            ValueError: the metadata cannot be ``Upload-Metadata``, or a number is negative.
            TooLarge: the length is more than ``max_size``.
            RequestError: another limit is reached, or the store failed.
        """
        if (length is not None and length < 0) or (expires is not None and expires < 0):
            raise ValueError("length and expires must not be negative")
        check_size(length, self.options)
        draft = Upload(
            length=length,
            raw_metadata=format_metadata(metadata or {}),
            principal=None if principal is None else str(principal),
            service=self.name,
            hashes=self.options.digest,
            expires_at=None if expires is None else time.time() + expires,
        )
        with _store_failures():
            upload = self.store.create(draft)
        self.keep_swept()
        emit(Created(upload))
        if self.hooks:
            self.hooks.queue(HookType.POST_CREATE, upload, None)
            self.hooks.notify(HookType.POST_CREATE, upload, None)
        if upload.is_complete:
            emit(Finished(upload))
            self.schedule(upload)
        return upload

    def url_of(self, upload: Upload) -> str:
        """Return the URL of an upload: absolute where ``base_url`` is set, else from the root of the site.

        Raises:
            OptionError: ``upload_path`` is not set, as in a view, whose framework knows the URL.
        """
        if self.options.upload_path is None:
            raise OptionError("upload_path", "is required for URLs; in a view, build them by the framework")
        return f"{self.options.base_url}{self.options.upload_path}/{upload.id}"

    def find(self, url_or_id: str, *, principal: object = None) -> Upload | None:
        """Return an upload of this service by its URL or id; None where there is none.

        Args:
            url_or_id: such as a form posts it. Only its path counts, and where ``upload_path`` is set it must be that.
            principal: who asks; an upload that belongs to another principal does not exist.

        Raises:
            StorageUnavailable: the store failed.
        """
        upload_id = self._id_in(url_or_id)
        if upload_id is None:
            return None
        try:
            with _store_failures():
                upload = self.store.load(upload_id)
        except (UploadNotFound, UploadGone):
            return None
        if upload.service not in (None, self.name) or upload.state == State.TERMINATED:
            return None
        if upload.principal is not None and (principal is None or str(principal) != upload.principal):
            return None
        return upload

    def _id_in(self, url_or_id: str) -> str | None:
        if is_upload_id(url_or_id):
            return url_or_id
        try:
            head, _, tail = unquote(urlsplit(url_or_id).path).rstrip("/").rpartition("/")
        except ValueError:
            return None
        path = self.options.upload_path
        if not is_upload_id(tail) or (path is not None and head != path):
            return None
        return tail

    def list(self, *, principal: object = None) -> Iterator[Upload]:
        """Yield the uploads of this service, in no order.

        Args:
            principal: only what belongs to this principal; None for all.

        Raises:
            TusException: the store cannot list uploads.
        """
        if not isinstance(self.store, Lists):
            raise OptionError("store", "cannot list its uploads")
        return self._listed(self.store.list(), None if principal is None else str(principal))

    def _listed(self, uploads: Iterable[Upload], principal: str | None) -> Iterator[Upload]:
        for upload in uploads:
            if upload.service in (None, self.name) and (principal is None or upload.principal == principal):
                yield upload

    def cancel(self, upload: Upload) -> None:
        """Remove an upload, its data and its record; a client that goes on with it gets 404 or 410.

        Raises:
            UploadLocked: it is being handed over or concatenated.
            UploadNotFound: it does not exist.
            UploadGone: it does not exist any more.
            StorageUnavailable: the store failed.
        """
        if self.hooks:
            self.hooks.queue(HookType.POST_TERMINATE, upload, None)
        try:
            with _store_failures():
                self.store.remove(upload.id)
        except RequestError:
            if self.hooks:
                self.hooks.unqueue(HookType.POST_TERMINATE, upload, None)
            raise
        emit(Ended(upload, "terminated"))
        if self.hooks:
            self.hooks.notify(HookType.POST_TERMINATE, upload, None)


@contextmanager
def _store_failures() -> Iterator[None]:
    """Raise StorageUnavailable for what a store raises of its medium, as for a client's request."""
    try:
        yield
    except RequestError:
        raise
    except Exception as error:
        log.exception("the store failed")
        raise StorageUnavailable() from error


def with_store(values: dict[str, object], store: Store | str | None) -> dict[str, object]:
    """Return the values of options with the store that is given beside them."""
    if store is None:
        return values
    return values | {"store": store if isinstance(store, str) else "given"}


def _opened(options: Options, store: Store | str | None) -> Store:
    if store is None:
        return open_store(options.store or options.tmp_file_dir, options)
    return open_store(store, options) if isinstance(store, str) else store


def services_over(directory: str | None) -> list[Service]:
    """Return the services of this process, or those of them whose uploads are in a directory."""
    with _living_lock:
        living = list(_living)
    if directory is None:
        return living
    wanted = os.path.realpath(directory)
    return [service for service in living if service.directory and os.path.realpath(service.directory) == wanted]
