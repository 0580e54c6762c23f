"""The composition root: options, a store and hooks become one service, configured once.

``Filter``, ``TusMiddleware``, ``TusApp``, ``Tus``, the operations and the command line hold a service and pass it on.
Law of this room: no registry of the process finds a service by its options. A service made for a request ends with the
request. A finished file can only go to the receiver of the service under whose name it was created.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import ClassVar
from urllib.parse import quote, unquote, urlsplit
from weakref import WeakSet

from tus.converters import is_async
from tus.errors import OptionError, RequestError, StorageFull, StorageUnavailable, UploadGone, UploadNotFound
from tus.events import Created, Ended, Finished, emit
from tus.filesystem import processes
from tus.handover.attempt import Receiver
from tus.handover.backlog import Backlog
from tus.handover.finished import save_upload
from tus.handover.receivers import receiver_of
from tus.hooks.configured import hooks_of
from tus.http.headers import format_metadata
from tus.models import HookType, Origin, State, Upload, is_upload_id, principal_of
from tus.monitoring.logs import log_events
from tus.options import Options
from tus.protocols.bodies import check_size
from tus.protocols.origins import split_url
from tus.protocols.routing import fill_path, is_creation_path
from tus.server.pace import Patience
from tus.stores import open_store
from tus.stores.interface import Completes, Expires, HasFiles, Lists, Reads, Store, extensions_of
from tus.stores.sweeper import Sweeper, keep_directory_swept

log = logging.getLogger(__name__)

#: For the command line, and to refuse a second service of the same name. Requests find no service by it.
_living: WeakSet[Service] = WeakSet()
_living_lock = threading.Lock()


class Service:
    """The store of uploads, and the receiver of finished uploads.

    In a view::

        service = Service(tmp_file_dir="/var/lib/uploads", on_finished=take)

        def upload_view(request):
            adapter = WebobAdapter(request)
            with Tus(adapter, service=service) as tus:
                ...

    Args:
        options: all options, from :meth:`tus.Options.build`; they exclude ``**others``.
        store: a store or its URL; by default the directory ``tmp_file_dir``.
        **others: options by name, see :class:`tus.Options`.

    Attributes:
        options: the options of the service.
        name: the name that uploads record: the option ``name``, or else ``upload_path``.
        has_path_values: whether ``upload_path`` has names in braces.
        store: the store of the uploads.
        hooks: the hooks to call.
        receiver: gets finished uploads; None if the application is the receiver.
        small: the largest body, in bytes, that the store takes in one step; None for the default.
        patience: how slow clients may be.
        backlog: hands uploads over without a client; None if there is no receiver without one.
        extensions: the tus extensions that work with the store.
        completes: the store, if it can take the last bytes and begin the hand-over in one step.

    Raises:
        OptionError: an option is unknown, has a bad value or does not work with the store; or another service of this
            process has the same directory and name.
    """

    #: Whether an event loop calls the functions and hooks of the options, so that they may be async.
    has_loop: ClassVar[bool] = False

    def __init__(self, *, options: Options | None = None, store: Store | str | None = None, **others: object) -> None:
        if options is None:
            options = Options.build(**with_store(others, store))
        elif others:
            raise OptionError(next(iter(others)), "cannot be given beside options=; pass it to Options.build()")
        if not self.has_loop:
            _refuse_async(options)
        self._set_up(options, store)
        self.receiver = receiver_of(options)
        self.hooks = hooks_of(options, self.store)
        self._sweeper = Sweeper()
        self._is_of_request = False
        self._register()
        if self.receiver is not None:
            self.hand_over_to(self.receiver)

    def _set_up(self, options: Options, store: Store | str | None) -> None:
        log_events()
        self.options = options
        self.name = options.service_name
        self.has_path_values = "{" in (options.upload_path or "")
        self.store = _store_of(options, store)
        self.backlog: Backlog | None = None
        self.small: int | None = getattr(self.store, "small", None)
        self.patience = Patience(options.stall_timeout, options.min_rate)
        self._swept_in: processes.Process | None = None  # the process in which a thread does so
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
        """Return a service for one request, which has no threads and hands over only to requests.

        Raises:
            OptionError: an option needs a service that outlives the request.
        """
        if options.webhook:
            raise OptionError("webhook", "needs a tus.Service that is built once; pass it as service=")
        if options.handover == "background":
            raise OptionError("handover", "cannot be background without a tus.Service that is built once")
        url = options.store if store is None else store
        if isinstance(url, str) and url.startswith("memory:"):
            raise OptionError("store", "cannot be memory: without a tus.Service that is built once; it would be empty")
        service = cls.__new__(cls)
        service._set_up(options, store)
        service.receiver = receiver_of(options)
        service.hooks = hooks_of(options, service.store)
        service._is_of_request = True
        return service

    def need_files(self, option: str, problem: str) -> None:
        """Refuse an option that cannot work with a store that keeps no files.

        Raises:
            OptionError: the store keeps no files.
        """
        if not isinstance(self.store, HasFiles):
            raise OptionError(option, problem)

    def need_files_or_body(self) -> None:
        """Refuse a store without files if the application would get the paths of files.

        Raises:
            OptionError: the store keeps no files, and ``send_file`` is not set.
        """
        if not self.options.send_file:
            self.need_files("send_file", "must be true with a store that keeps no files; read the body of the request")

    @property
    def directory(self) -> str:
        """The directory of the uploads; empty if the store is not a directory."""
        return str(getattr(self.store, "directory", ""))

    def _register(self) -> None:
        with _living_lock:
            for other in _living:
                if self.name == other.name and self._shares_store(other) and self._has_other_receiver(other):
                    raise OptionError(
                        "name",
                        f"cannot be {self.name!r}: another service of this process has the same store and name, but "
                        "another receiver; give each service its own name, or close() the other service first",
                    )
            _living.add(self)

    def _shares_store(self, other: Service) -> bool:
        if self.store is other.store:
            return True
        return bool(self.directory) and os.path.realpath(self.directory) == os.path.realpath(other.directory)

    def _has_other_receiver(self, other: Service) -> bool:
        mine, theirs = self.options, other.options
        return (mine.on_finished, mine.spool) != (theirs.on_finished, theirs.spool)

    # -- Between requests --

    def hand_over_to(self, receiver: Receiver) -> Backlog:
        """Set the receiver for hand-overs without a client, and return the backlog; only the first call sets it.

        Raises:
            OptionError: the receiver would get the path of a file, and the store keeps no files.
        """
        if self.options.on_finished is None and not self.options.spool:
            self.need_files_or_body()
        if self.backlog is None:
            self.backlog = Backlog(self.store, self.options, receiver, self.hooks)
        return self.backlog

    def start(self, hands_over: bool = True) -> None:
        """Start the threads that hand over and deliver events, unless they run in this process.

        Args:
            hands_over: False delivers events only.
        """
        if self._is_of_request or not self.options.threads:
            return
        try:
            if self.options.has_hooks:
                self.hooks.start()
            if hands_over and self.backlog is not None:
                self.backlog.start()
        except RuntimeError as error:  # there are too many threads; the request itself needs none
            log.warning("the work in the background could not be started: %s", error)

    def keep_swept(self) -> None:
        """Let a thread remove expired uploads from now on."""
        if self._swept_in is processes.current:
            return
        self._swept_in = processes.current
        if not self.options.threads or not isinstance(self.store, Expires):
            return
        lifetime = self.options.upload_valid_duration
        if self._is_of_request:
            keep_directory_swept(self.store, lifetime)
        else:
            self._sweeper.add(self.store, lifetime)

    def schedule(self, upload: Upload) -> None:
        """Schedule the hand-over of an upload without a client."""
        if self.backlog is not None:
            self.backlog.add(upload)

    def close(self) -> None:
        """End the threads. The service must not be used after that."""
        if self.backlog is not None:
            self.backlog.stop()
        self.hooks.stop()
        if not self._is_of_request:
            self._sweeper.stop()
            with _living_lock:
                _living.discard(self)

    # -- Uploads that code of the site creates, finds and cancels --

    def create_upload(
        self,
        *,
        length: int | None = None,
        metadata: Mapping[str, str | bytes] | None = None,
        principal: object = None,
        expires: float | None = None,
        path_values: Mapping[str, object] | None = None,
    ) -> Upload:
        """Create an upload for a client that only appends; give the client the URL from :meth:`url_of`.

        The hook ``post_create`` is called. ``pre_create`` and ``authorize`` are only for requests of clients.

        Args:
            length: in bytes; None if the client must send it.
            metadata: values by key, as a client would send them.
            principal: the owner of the upload; None for any client that knows the URL.
            expires: seconds until the upload is removed if no byte arrives; ``upload_valid_duration`` by default.
                After the first byte only ``upload_valid_duration`` counts.
            path_values: the values of the names in ``upload_path``, such as ``{"user": 7}``.

        Raises:
            ValueError: the metadata cannot be sent as ``Upload-Metadata``, a number is negative, ``principal`` is no
                principal, or ``path_values`` do not fit ``upload_path``.
            TooLarge: the length exceeds ``max_size``.
            RequestError: another limit is reached, or the store failed.
        """
        if (length is not None and length < 0) or (expires is not None and expires < 0):
            raise ValueError("length and expires must not be negative")
        check_size(length, self.options)
        draft = Upload(
            length=length,
            raw_metadata=format_metadata(metadata or {}),
            principal=principal_of(principal),
            service=self.name,
            origin=self._origin_of(path_values),
            hashes=self.options.digest,
            expires_at=None if expires is None else time.time() + expires,
        )
        with _store_failures():
            upload = self.store.create(draft)
        self.keep_swept()
        emit(Created(upload))
        if self.hooks:
            try:
                with _store_failures():
                    self.hooks.queue(HookType.POST_CREATE, upload, None)
            except RequestError:
                self.store.remove(upload.id)
                raise
            self.hooks.notify(HookType.POST_CREATE, upload, None)
        if upload.is_complete:
            emit(Finished(upload))
            self.schedule(upload)
        return upload

    def _origin_of(self, path_values: Mapping[str, object] | None) -> Origin | None:
        """Return the origin of an upload that code of the site creates; None unless ``upload_path`` has names."""
        path = self.options.upload_path or ""
        values = {name: str(value) for name, value in (path_values or {}).items()}
        filled = fill_path(path, values)
        if not values:
            return None
        scheme, host, _, _ = split_url(self.options.base_url or "http://")
        return Origin(f"{scheme}://{host}{quote(filled)}", path_values=values)

    def url_of(self, upload: Upload) -> str:
        """Return the URL of an upload: absolute if ``base_url`` is set, else from the root of the site.

        Raises:
            OptionError: ``upload_path`` is not set, as in a view, whose framework knows the URL.
        """
        if self.options.upload_path is None:
            raise OptionError("upload_path", "is required for URLs; in a view, build URLs with the framework")
        path = self.options.upload_path
        if self.has_path_values:
            path = fill_path(path, {} if upload.origin is None else upload.origin.path_values)
        return f"{self.options.base_url}{quote(path)}/{upload.id}"

    def find(self, url_or_id: str, *, principal: object = None) -> Upload | None:
        """Return an upload of this service by its URL or id; None if it does not exist.

        Args:
            url_or_id: the text that a form posts, for example. Only the path of a URL counts. If ``upload_path`` is
                set, the path must be ``upload_path`` and the id.
            principal: the user or system that asks. For other principals than the owner the upload does not exist.

        Raises:
            ValueError: the value of ``principal`` is no principal.
            StorageUnavailable: the store failed.
        """
        asking = principal_of(principal)
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
        if upload.principal not in (None, asking):
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
        if not is_upload_id(tail) or (path is not None and not is_creation_path(head, path)):
            return None
        return tail

    def list(self, *, principal: object = None) -> Iterator[Upload]:
        """Yield the uploads of this service, in no order.

        Args:
            principal: the owner of the uploads; None for all.

        Raises:
            ValueError: the value of ``principal`` is no principal.
            TusException: the store cannot list uploads.
        """
        if not isinstance(self.store, Lists):
            raise OptionError("store", "cannot list its uploads")
        return self._select(self.store.list(), principal_of(principal))

    def _select(self, uploads: Iterable[Upload], principal: str | None) -> Iterator[Upload]:
        for upload in uploads:
            if upload.service in (None, self.name) and (principal is None or upload.principal == principal):
                yield upload

    def save_to(
        self, upload: Upload, directory: str | os.PathLike[str], name: str | None = None, mode: int | None = None
    ) -> str:
        """Save the file of a complete upload that :meth:`find` has returned, and return its path.

        It does the same as :meth:`tus.FinishedUpload.save_to`, for files that ``keep_finished`` keeps. The upload stays
        as it is; :meth:`cancel` removes it.

        Args:
            upload: a complete upload.
            directory: an existing directory.
            name: the wanted name, by default that of the upload.
            mode: the permissions.

        Raises:
            ValueError: the upload is not complete.
            UploadGone: the data is not there any more.
            OptionError: the uploads of the store cannot be read.
            OSError: an error of the file system, as for :meth:`tus.FinishedUpload.save_to`.
        """
        store = self.store
        if not upload.is_complete:
            raise ValueError("the upload is not complete")
        if not isinstance(store, Reads):
            raise OptionError("store", "cannot read its uploads")
        return save_upload(upload, lambda: store.read(upload)[0], None, directory, name, mode)

    def cancel(self, upload: Upload) -> None:
        """Remove an upload, its data and its record; a client that continues it gets 404 or 410.

        Raises:
            UploadLocked: the upload is being handed over or concatenated.
            UploadNotFound: the upload does not exist.
            UploadGone: the upload was removed.
            StorageUnavailable: the store failed.
        """
        kind, is_queued = HookType.POST_TERMINATE, False
        if self.hooks:
            with _store_failures():
                upload = self.store.load(upload.id)  # the given one may be old, and the file accepted by now
            with suppress(StorageFull):  # the removal makes room for the event, and must not wait for it
                self.hooks.queue(kind, upload, None)
                is_queued = True
        try:
            with _store_failures():
                self.store.remove(upload.id)
        except RequestError:
            if is_queued:
                self.hooks.unqueue(kind, upload, None)
            raise
        emit(Ended(upload, "terminated"))
        if self.hooks:
            if not is_queued:
                with suppress(StorageFull):  # the outbox has logged it
                    self.hooks.queue(kind, upload, None)
            self.hooks.notify(kind, upload, None)


@contextmanager
def _store_failures() -> Iterator[None]:
    """Raise StorageUnavailable for errors of the store's medium, as in a client's request."""
    try:
        yield
    except RequestError:
        raise
    except Exception as error:
        log.exception("the store failed")
        raise StorageUnavailable() from error


def _refuse_async(options: Options) -> None:
    for name in ("authorize", "on_finished"):
        if is_async(getattr(options, name)):
            raise OptionError(name, "must be an ordinary function here; give an async one to TusMiddleware or TusApp")
    for hook in HookType:
        if is_async(getattr(options.hooks, hook.method, None)):
            raise OptionError("hooks", "must have ordinary methods here; give async ones to TusMiddleware or TusApp")


def with_store(values: dict[str, object], store: Store | str | None) -> dict[str, object]:
    """Return the values of options, with a note of the store that was given beside them."""
    if store is None:
        return values
    return values | {"store": store if isinstance(store, str) else "given"}


def _store_of(options: Options, store: Store | str | None) -> Store:
    if store is None:
        return open_store(options.store or options.tmp_file_dir, options)
    return open_store(store, options) if isinstance(store, str) else store


def services_over(directory: str | None) -> list[Service]:
    """Return the services of this process; with a directory, only the services that keep uploads there."""
    with _living_lock:
        living = list(_living)
    if directory is None:
        return living
    wanted = os.path.realpath(directory)
    return [service for service in living if service.directory and os.path.realpath(service.directory) == wanted]
