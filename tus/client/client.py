"""The client for threads, and what both clients take as arguments."""

from __future__ import annotations

import base64
import hashlib
import os
import ssl
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Literal, Self, TypeAlias, TypeVar
from urllib.parse import urlsplit, urlunsplit

from tus.client.capabilities import Capabilities
from tus.client.commands import Call, Fill, Flow, OnInterim, Progress, Report, Send, Together, Wait
from tus.client.control import Control, Paused
from tus.client.dialects.tus1 import format_checksum
from tus.client.driving import Kept, Meter, Pacer, body_length, wire_headers
from tus.client.errors import ClientError, ConnectionFailed, ForeignOrigin
from tus.client.flow import discovery, parallel, simple
from tus.client.flow import download as downloading
from tus.client.flow.context import Context, Settings, origin_of
from tus.client.flow.upload import Upload
from tus.client.messages import Body, Headers, Request, Response
from tus.client.records import Records, open_records
from tus.client.records.identity import key_of
from tus.client.results import DownloadResult, Outcome, UploadInfo, UploadResult
from tus.client.retry import Retry
from tus.client.sources import Source, guess_type, source_of
from tus.client.transports.interface import Transport, WireRequest, WireResponse

_T = TypeVar("_T")

Metadata: TypeAlias = Mapping[str, str | bytes]
HeaderSource: TypeAlias = Mapping[str, str] | Callable[[], Any] | None
OnProgress: TypeAlias = Callable[[Progress], Any]

_PROTOCOLS: Final = ("auto", "tus", "ietf")
_DIGESTS: Final = ("sha-256", "sha-512")


@dataclass(frozen=True, slots=True, kw_only=True)
class Arguments:
    """The arguments of both clients, checked.

    Attributes:
        settings: the choices that flows know.
        headers: the caller's own fields, or a callable that returns them.
        credentials: the field of a user and a password, if there are any.
    """

    settings: Settings
    headers: HeaderSource
    credentials: Mapping[str, str]


def read_arguments(
    endpoint: str,
    *,
    headers: HeaderSource,
    auth: tuple[str, str] | None,
    protocol: str,
    chunk_size: int | None,
    checksum: str | None,
    digest: str | None,
    retry: Retry,
    override_patch: bool,
    trusted_origins: Iterable[str],
    sends_trailers: bool,
) -> Arguments:
    """Check the arguments of a client.

    Raises:
        ValueError: one has a bad value.
    """
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"the URL of the server must begin with http:// or https://; it is {endpoint!r}")
    if parts.username is not None:  # credentials in a URL would go into logs, and into records of unfinished uploads
        if auth is None:
            auth = parts.username, parts.password or ""
        endpoint = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    if protocol not in _PROTOCOLS:
        raise ValueError(f"protocol must be one of {', '.join(_PROTOCOLS)}; it is {protocol!r}")
    if chunk_size is not None and chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1, or None for no limit; it is {chunk_size}")
    if digest is not None and digest not in _DIGESTS:
        raise ValueError(f"digest must be one of {', '.join(_DIGESTS)}; it is {digest!r}")
    if checksum not in (None, "auto") and checksum not in hashlib.algorithms_available:
        raise ValueError(f"checksum must be 'auto' or an algorithm of hashlib; it is {checksum!r}")
    credentials = {}
    if auth is not None:
        credentials["Authorization"] = "Basic " + base64.b64encode(":".join(auth).encode()).decode()
    settings = Settings(
        endpoint=endpoint,
        protocol=protocol,
        chunk_size=chunk_size,
        checksum=checksum,
        digest=digest,
        retry=retry,
        overrides_method=override_patch,
        trusted=frozenset(origin_of(origin) for origin in trusted_origins),
        can_renew=callable(headers),
        sends_trailers=sends_trailers,
    )
    return Arguments(settings=settings, headers=headers, credentials=credentials)


@contextmanager
def needing_httpx() -> Iterator[None]:
    """Say which package is missing, if an import within fails."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ClientError(f"the client needs {error.name}; install it with: pip install {error.name}") from None


def describe_file(source: Source, metadata: Metadata | None, filename: str | None, filetype: str | None) -> Metadata:
    """Return the metadata of an upload: the caller's, and the file's name and type."""
    described: dict[str, str | bytes] = {}
    name = source.name if filename is None else filename
    if name:
        described["filename"] = name
        filetype = guess_type(name) if filetype is None else filetype
    if filetype:
        described["filetype"] = filetype
    return described | dict(metadata or {})


def record_key(source: Source, endpoint: str, metadata: Metadata) -> str:
    """Return the key under which an upload is remembered; empty for a source that another process cannot have."""
    return "" if source.identity is None else key_of(source.identity, endpoint, metadata)


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
        self._transport = transport
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
        self._arguments = arguments
        self._has_own_session = http is not None
        self._context = Context(arguments.settings, open_records(records))
        self._pacer = Pacer(max_rate)
        self._on_request, self._on_response = on_request, on_response

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

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
        return self._run(parallel_upload(self._context, made, described, key, parallel), on_progress, control)

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
        flow = resumed_upload(self._context, made, url)
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
        return _Driver(self, control, Meter(), on_progress).run(flow)


def parallel_upload(context: Context, source: Source, metadata: Metadata, key: str, parts: int) -> Flow[UploadResult]:
    """Return the flow of an upload."""
    return parallel.upload(context, source, metadata, key, parts)


def resumed_upload(context: Context, source: Source, url: str) -> Flow[UploadResult]:
    """Return the flow that goes on with an upload."""
    return Upload(context, source, {}, url=url).run()


class _Driver:
    """Performs the commands of one flow."""

    def __init__(self, client: Client, control: Control, meter: Meter, on_progress: OnProgress | None) -> None:
        self._client = client
        self._control = control
        self._meter = meter
        self._on_progress = on_progress

    def run(self, flow: Flow[_T]) -> _T:
        with closing(flow):
            try:
                command = next(flow)
                while True:
                    try:
                        result = self._perform(command)
                    except Exception as error:
                        command = flow.throw(error)
                    else:
                        command = flow.send(result)
            except StopIteration as end:
                value: _T = end.value
                return value

    def _perform(self, command: Any) -> Any:
        match command:
            case Send():
                return self._send(command)
            case Fill():
                return command.source.fill(command.offset, command.size)
            case Call():
                return command.function()
            case Report():
                self._tell(self._meter.report(command.progress))
            case Wait():
                self._control.sleep(command.seconds)
            case Together():
                return self._together(command.flows)
        return None

    def _tell(self, progress: Progress | None) -> None:
        if progress is not None and self._on_progress is not None:
            self._on_progress(progress)

    def _send(self, command: Send) -> Response:
        client, control, request = self._client, self._control, command.request
        control.wait_until_resumed()
        callers = self._callers(command)
        if client._on_request is not None:
            client._on_request(request)
        body, stack = _Body(self, request), ExitStack()
        retry = client._arguments.settings.retry
        wire = WireRequest(
            method=request.method,
            url=request.url,
            headers=wire_headers(request, callers),
            body=body.blocks(),
            length=body_length(request),
            trailer=body.trailer if isinstance(request.body, Body) and request.body.trailer else None,
            on_interim=None if command.on_interim is None else _acting(command.on_interim),
            on_start=lambda abort: stack.enter_context(control.aborting(abort)),
            stall_timeout=retry.stall_timeout,
            answer_timeout=retry.answer_timeout,
            connect_timeout=retry.connect_timeout,
        )
        if wire.length == 0 and request.method not in ("POST", "PATCH", "PUT"):
            wire.body = wire.length = None
        try:
            with stack, client._transport.send(wire) as answer:
                response = self._receive(command, answer)
        except Exception as error:
            if body.failure is not None:
                raise body.failure from None
            if isinstance(error, ConnectionFailed) and (control.is_paused or control.is_cancelled):
                control.wait_until_resumed()
                raise Paused("The upload was paused.", url=request.url) from None
            raise
        if client._on_response is not None:
            client._on_response(request, response)
        return response

    def _callers(self, command: Send) -> Mapping[str, str]:
        """Return the caller's own fields for a request."""
        if not command.has_credentials:
            if self._client._has_own_session:
                raise ForeignOrigin(
                    f"The server names a URL at {origin_of(command.request.url)}, and the session of the caller could "
                    "send its credentials there; allow it with trusted_origins=.",
                    url=command.request.url,
                )
            return {}
        arguments = self._client._arguments
        headers = arguments.headers() if callable(arguments.headers) else arguments.headers
        return {**arguments.credentials, **(headers or {})}

    def _receive(self, command: Send, answer: WireResponse) -> Response:
        kept = Kept()
        response = Response(answer.status, answer.headers, b"", command.request.url)
        sink = command.sink if response.is_success else None
        for block in answer.blocks():
            if sink is None:
                if not kept.add(block):
                    break
            else:
                self._control.check()
                sink(response, block)
                self._tell(self._meter.sent(self._meter.position + len(block), len(block)))
        return response if sink is not None else Response(answer.status, answer.headers, kept.whole(), response.url)

    def _together(self, flows: Iterable[Flow[Any]]) -> list[Any]:
        """Run flows in threads. The first error ends the others."""
        flows = list(flows)
        group = Control(self._control)
        drivers = [_Driver(self._client, group, self._meter.part(), self._on_progress) for _ in flows]
        with ThreadPoolExecutor(len(flows), thread_name_prefix="tus-part") as pool:
            futures = [pool.submit(driver.run, flow) for driver, flow in zip(drivers, flows, strict=True)]
            try:
                waiting = set(futures)
                while waiting:
                    done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                    for future in done:
                        future.result()
            except BaseException:
                group.cancel()
                raise
        return [future.result() for future in futures]


def _acting(on_interim: OnInterim) -> Callable[[int, Headers], None]:
    """Return a function that also does what an interim response asks for. It is called by the thread that sends."""

    def act(status: int, headers: Headers) -> None:
        function = on_interim(status, headers)
        if function is not None:
            function()

    return act


class _Body:
    """The body of a request, as a transport takes it.

    Attributes:
        failure: what has gone wrong while the source was read. A transport may have another view of it.
    """

    def __init__(self, driver: _Driver, request: Request) -> None:
        self._driver, self._body = driver, request.body
        self._hasher = None
        if isinstance(request.body, Body) and request.body.trailer:
            self._hasher = hashlib.new(request.body.trailer, usedforsecurity=False)
        self.failure: BaseException | None = None

    def blocks(self) -> Iterator[bytes]:
        body, driver = self._body, self._driver
        if not isinstance(body, Body):
            if body:
                yield body
            return
        pacer, meter, control = driver._client._pacer, driver._meter, driver._control
        position = body.offset
        try:
            for block in body.source.blocks(body.offset, body.length, pacer.block):
                control.check()
                if delay := pacer.delay(len(block)):
                    control.sleep(delay)
                if self._hasher is not None:
                    self._hasher.update(block)
                yield block
                position += len(block)
                driver._tell(meter.sent(position, len(block)))
        except GeneratorExit:
            raise
        except BaseException as error:
            self.failure = error
            raise

    def trailer(self) -> tuple[str, str]:
        assert isinstance(self._body, Body) and self._hasher is not None
        return "Upload-Checksum", format_checksum(self._body.trailer, self._hasher.digest())


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
