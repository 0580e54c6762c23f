"""The client for threads."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from types import TracebackType
from typing import Any, Final, Literal, Self, TypeVar

from tus.client.arguments import (
    HeaderSource,
    Means,
    Metadata,
    OnProgress,
    describe_file,
    needing_httpx,
    read_arguments,
    record_key,
)
from tus.client.capabilities import Capabilities
from tus.client.commands import Flow, Progress
from tus.client.control import Control
from tus.client.driver import Driver
from tus.client.driving import Meter, Pacer
from tus.client.errors import ClientError
from tus.client.flow import discovery, simple
from tus.client.flow import download as downloading
from tus.client.flow.context import Context
from tus.client.flow.parallel import upload as upload_in_parts
from tus.client.flow.upload import Upload
from tus.client.messages import Headers, Request, Response
from tus.client.records import Records, open_records
from tus.client.results import DownloadResult, Outcome, UploadInfo, UploadResult
from tus.client.retry import Retry
from tus.client.sources import Source, source_of
from tus.client.transports.interface import Transport

_T = TypeVar("_T")


class Client:
    """Uploads files to a server, over tus 1.0.0 or the IETF's protocol. For threads; any number can share one.

    Args:
        endpoint: the URL that creates uploads. A user and a password in it are sent as ``auth``.
        headers: fields for every request, or a callable that returns them. It is called for each request, and once
            more after a 401, so that it can return a new token.
        auth: a user and a password, for Basic authentication.
        protocol: ``tus``, ``ietf``, or ``auto`` for what the server offers.
        chunk_size: the most bytes of one request; None for the whole rest of the file. A server or a proxy that takes
            less (413) gets less.
        checksum: ``auto`` for the best checksum that the server verifies, the name of one such as ``sha256``, or None.
        digest: ``sha-256`` or ``sha-512`` to read the file first, send its digest (RFC 9530), and compare it with the
            server's; or None.
        retry: how long to go on after failures.
        records: where unfinished uploads are remembered: ``default`` for a database of this user, the path of another
            one, None for none, or :class:`~tus.client.MemoryRecords`, or the like.
        verify: False to believe any certificate, the path of a file or directory of CA certificates, or an
            ``SSLContext``.
        cert: a client certificate: the path of a PEM file, or of a certificate and its key.
        proxy: the URL of a proxy; None for those of the environment.
        http: an ``httpx2.Client`` of the caller, with all its own settings. It is not closed.
        transport: another HTTP library, see :class:`~tus.client.transports.interface.Transport`.
        max_rate: the most bytes a second, over all uploads.
        override_patch: whether PATCH and DELETE go as POST with ``X-HTTP-Method-Override``.
        trusted_origins: origins that may get ``headers`` and ``auth`` too, such as ``https://cdn.example.org``.
        on_request: called with each :class:`~tus.client.Request` before it is sent; it may change the fields.
        on_response: called with each request and its :class:`~tus.client.Response`.

    Raises:
        ValueError: an argument has a bad value.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        headers: HeaderSource = None,
        auth: tuple[str, str] | None = None,
        protocol: str = "auto",
        chunk_size: int | None = None,
        checksum: str | None = None,
        digest: str | None = None,
        retry: Retry | None = None,
        records: Records | Literal["default"] | str | os.PathLike[str] | None = "default",
        verify: bool | str | ssl.SSLContext = True,
        cert: str | tuple[str, ...] | None = None,
        proxy: str | None = None,
        http: Any = None,
        transport: Transport | None = None,
        max_rate: float | None = None,
        override_patch: bool = False,
        trusted_origins: Iterable[str] = (),
        on_request: Callable[[Request], Any] | None = None,
        on_response: Callable[[Request, Response], Any] | None = None,
    ) -> None:
        if transport is None:
            with needing_httpx():
                from tus.client.transports.httpx import HttpxTransport

            transport = HttpxTransport(verify=verify, cert=cert, proxy=proxy, client=http)
        arguments = read_arguments(
            endpoint,
            headers=headers,
            auth=auth,
            protocol=protocol,
            chunk_size=chunk_size,
            checksum=checksum,
            digest=digest,
            retry=retry or Retry(),
            override_patch=override_patch,
            trusted_origins=trusted_origins,
            sends_trailers=transport.sends_trailers,
        )
        self._context = Context(arguments.settings, open_records(records))
        self._means = Means(
            transport=transport,
            arguments=arguments,
            pacer=Pacer(max_rate),
            on_request=on_request,
            on_response=on_response,
            has_own_session=http is not None,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._means.transport.close()

    @property
    def endpoint(self) -> str:
        """The URL that creates uploads."""
        return self._context.settings.endpoint

    @property
    def records(self) -> Records:
        """Where unfinished uploads are remembered."""
        return self._context.records

    # -- What users call ------------------------------------------------------------------------------------------

    def upload(
        self,
        source: Any,
        *,
        metadata: Metadata | None = None,
        filename: str | None = None,
        filetype: str | None = None,
        size: int | None = None,
        parallel: int = 1,
        resume: bool = True,
        on_progress: OnProgress | None = None,
        control: Control | None = None,
    ) -> UploadResult:
        """Upload a file, and return when the server has it.

        An upload of a file that was interrupted goes on where it stopped, after the end of the process too.

        Args:
            source: a path, a file opened in binary mode, bytes, or an iterable of bytes.
            metadata: sent to the server beside the name and the type.
            filename: the name, instead of the source's own; empty for none.
            filetype: the media type, instead of the one that the name suggests; empty for none.
            size: the number of bytes of a stream, if it is known.
            parallel: the number of parts to send at once, where the server can join them.
            resume: whether to go on with an earlier upload of the same file, and to remember this one.
            on_progress: called with each :class:`~tus.client.Progress`, in the thread that sends.
            control: pauses or cancels the upload, from another thread.

        Raises:
            ClientError: the upload is not complete, or that is not known.
            OSError: the file cannot be read.
        """
        made = self._source(source, size, filename)
        described = describe_file(made, metadata, filename, filetype)
        key = record_key(made, self.endpoint, described) if resume else ""
        return self._run(upload_in_parts(self._context, made, described, key, parallel), on_progress, control)

    def upload_many(
        self,
        sources: Iterable[Any],
        *,
        jobs: int = 4,
        on_progress: Callable[[Any, Progress], Any] | None = None,
        control: Control | None = None,
        **options: Any,
    ) -> Iterator[Outcome]:
        """Upload files, some at a time, and return the outcome of each as it ends. A failure does not stop the others.

        Args:
            sources: what :meth:`upload` takes as one.
            jobs: how many to send at once.
            on_progress: called with the source and each :class:`~tus.client.Progress`.
            control: pauses or cancels all of them.
            options: of :meth:`upload`, for each file.
        """
        control = Control(control) if control is not None else Control()

        def upload(source: Any) -> Outcome:
            follow = None if on_progress is None else (lambda progress: on_progress(source, progress))
            try:
                control.check()
                return Outcome(source, self.upload(source, on_progress=follow, control=control, **options))
            except (ClientError, OSError) as error:
                return Outcome(source, error=error)

        waiting = iter(sources)
        with ThreadPoolExecutor(jobs, thread_name_prefix="tus-upload") as pool:
            running: set[Future[Outcome]] = set()
            try:
                while True:
                    while len(running) < jobs and (source := next(waiting, running)) is not running:
                        running.add(pool.submit(upload, source))
                    if not running:
                        return
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    for future in done:
                        yield future.result()
            finally:
                if running:
                    control.cancel()

    def create(self, size: int | None, metadata: Metadata | None = None) -> str:
        """Create an upload without bytes, and return its URL. ``size`` is None if it is not known yet."""
        return self._run(simple.create(self._context, size, metadata or {}))

    def resume(
        self,
        url: str,
        source: Any,
        *,
        size: int | None = None,
        on_progress: OnProgress | None = None,
        control: Control | None = None,
    ) -> UploadResult:
        """Go on with the upload at a URL, which was created for these bytes.

        Raises:
            UploadGone: the server does not have it, or it is for a file of another size.
            ClientError: the upload is not complete, or that is not known.
        """
        made = self._source(source, size, None)
        flow = Upload(self._context, made, {}, url=url).run()
        return self._run(flow, on_progress, control)

    def head(self, url: str) -> UploadInfo:
        """Return what the server says about an upload.

        Raises:
            UploadGone: the server does not have it.
        """
        return self._run(simple.head(self._context, url))

    def delete(self, url: str) -> None:
        """Remove an upload at the server, if it is there.

        Raises:
            Refused: the server does not remove it.
        """
        self._run(simple.delete(self._context, url))

    def options(self) -> Capabilities:
        """Return what the server offers. It is asked once."""
        return self._run(discovery.discover(self._context))

    def download(
        self,
        url: str,
        path: str | os.PathLike[str],
        *,
        verify_digest: bool = True,
        overwrite: bool = False,
        on_progress: OnProgress | None = None,
        control: Control | None = None,
    ) -> DownloadResult:
        """Download a file. An interrupted download goes on where it stopped, if the file is still the same.

        Args:
            url: the file.
            path: where it goes; until it is whole, its bytes are in ``path`` with ``.part`` behind it.
            verify_digest: whether to compare the file with the digest that the server sends, if it sends one.
            overwrite: whether to replace a file.
            on_progress: called with each :class:`~tus.client.Progress`.
            control: pauses or cancels the download.

        Raises:
            FileExistsError: there is a file, and it is not to be replaced.
            ClientError: the file is not complete.
        """
        flow = downloading.download(self._context, url, os.fspath(path), verify_digest, overwrite)
        return self._run(flow, on_progress, control)

    def _source(self, source: Any, size: int | None, filename: str | None) -> Source:
        return source_of(source, size=size, filename=filename)

    # -- How flows are run ----------------------------------------------------------------------------------------

    def _run(self, flow: Flow[_T], on_progress: OnProgress | None = None, control: Control | None = None) -> _T:
        control = control or Control()
        return Driver(self._means, control, Meter(), on_progress).run(flow)


def upload(source: Any, endpoint: str, **options: Any) -> UploadResult:
    """Upload one file, and return when the server has it.

    Args:
        source: a path, a file opened in binary mode, bytes, or an iterable of bytes.
        endpoint: the URL that creates uploads.
        options: of :class:`Client` and of :meth:`Client.upload`.

    Raises:
        ClientError: the upload is not complete, or that is not known.
    """
    own = {name: options.pop(name) for name in list(options) if name in _UPLOAD_OPTIONS}
    with Client(endpoint, **options) as client:
        return client.upload(source, **own)


_UPLOAD_OPTIONS: Final = frozenset(
    {"metadata", "filename", "filetype", "size", "parallel", "resume", "on_progress", "control"}
)

__all__ = ["Client", "Headers", "upload"]
