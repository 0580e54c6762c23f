"""What the uploaders for threads and for event loops have in common."""

from __future__ import annotations

import functools
import hashlib
import os
import re
import ssl
import sys
import time
import weakref
from base64 import b64encode
from collections.abc import Callable, Mapping
from typing import IO, TYPE_CHECKING, Any, ClassVar, TypeVar

from tus.client.client import Client
from tus.client.commands import Flow
from tus.client.errors import ClientError, FileChanged, UploadGone
from tus.client.flow import simple
from tus.client.flow.asking import ask, describe, resolve
from tus.client.flow.context import Context
from tus.client.messages import Headers, Request
from tus.client.retry import NO_RETRIES, retry_after
from tus.client.tusclient.exceptions import TusCommunicationError, TusUploadFailed
from tus.client.tusclient.fingerprint import fingerprint
from tus.client.tusclient.fingerprint import interface as fingerprints
from tus.client.tusclient.storage.interface import Storage

if TYPE_CHECKING:
    from tus.client.transports.httpx import HttpxTransport
    from tus.client.tusclient.client import TusClient
    from tus.client.tusclient.request import BaseTusRequest

_T = TypeVar("_T")


class BaseUploader:
    """An upload of one file, a chunk at a time.

    Args:
        file_path: the file; or ``file_stream``.
        file_stream: a file that is open in binary mode and can seek. It is sent from its start, and not closed.
        url: of the upload, if there is one already. It gets the headers of the client, whatever its host is.
        client: has the URL that creates uploads, and the headers.
        chunk_size: the most bytes of one request.
        metadata: what the server gets to know about the file.
        metadata_encoding: of its values.
        retries: how often a chunk is sent again after a failure.
        retry_delay: seconds before that. A longer ``Retry-After`` of the server is obeyed.
        verify_tls_cert: whether servers are verified; or the path of trusted certificates.
        store_url: whether the URL is stored, so that another process goes on with the upload.
        url_storage: where it is stored.
        fingerprinter: finds it there again.
        upload_checksum: whether each chunk has a checksum.
        log_func: called with a sentence before each retry.

    Attributes:
        offset: the number of bytes that the server has.
        stop_at: where to stop.
        request: the last chunk, with the response to it.
    """

    DEFAULT_HEADERS: ClassVar[Mapping[str, str]] = {"Tus-Resumable": "1.0.0"}
    DEFAULT_CHUNK_SIZE: ClassVar[int] = sys.maxsize
    CHECKSUM_ALGORITHM_PAIR: ClassVar[tuple[str, Callable[..., Any]]] = ("sha1", hashlib.sha1)

    request: BaseTusRequest | None

    def __init__(
        self,
        file_path: str | None = None,
        file_stream: IO[bytes] | None = None,
        url: str | None = None,
        client: TusClient | None = None,
        chunk_size: int = sys.maxsize,
        metadata: Mapping[Any, str | bytes] | None = None,
        metadata_encoding: str = "utf-8",
        retries: int = 0,
        retry_delay: float = 30,
        verify_tls_cert: bool | str = True,
        store_url: bool = False,
        url_storage: Storage | None = None,
        fingerprinter: fingerprints.Fingerprint | None = None,
        upload_checksum: bool = False,
        log_func: Callable[[str], Any] | None = None,
    ) -> None:
        if file_path is None and file_stream is None:
            raise ValueError("file_path or file_stream is necessary")
        if url is None and client is None:
            raise ValueError("url or client is necessary")
        if store_url and url_storage is None:
            raise ValueError("store_url needs a url_storage")
        self.file_path = file_path
        self.file_stream = file_stream
        self.client = client
        self.chunk_size = chunk_size
        self.metadata = metadata or {}
        self.metadata_encoding = metadata_encoding
        self.retries = retries
        self.retry_delay = retry_delay
        self.verify_tls_cert = verify_tls_cert
        self.store_url = store_url
        self.url_storage = url_storage
        self.fingerprinter = fingerprinter or fingerprint.Fingerprint()
        self.upload_checksum = upload_checksum
        self.log_func = log_func
        self.stop_at = self.get_file_size()
        self.url: str | None = None
        self.offset = 0
        self.request = None
        self._retried = 0
        self._named_by_server = ""
        self._connections: tuple[object, HttpxTransport] | None = None
        if url:
            self.set_url(url)
            self.offset = self.get_offset()
        elif store_url:
            self._find_url()

    # -- The file --

    def get_file_stream(self) -> IO[bytes]:
        """Return the file, open and at its start."""
        if self.file_stream is not None:
            self.file_stream.seek(0)
            return self.file_stream
        if self.file_path is None or not os.path.isfile(self.file_path):
            raise ValueError(f"{self.file_path} is not a file")
        return open(self.file_path, "rb")

    def get_file_size(self) -> int:
        """Return the number of bytes in the file."""
        stream = self.get_file_stream()
        try:
            stream.seek(0, os.SEEK_END)
            return stream.tell()
        finally:
            if stream is not self.file_stream:
                stream.close()

    def get_request_length(self) -> int:
        """Return the number of bytes in the next chunk."""
        return min(self.chunk_size, self.stop_at - self.offset)

    @property
    def checksum_algorithm(self) -> Callable[..., Any]:
        """Makes a hash as :mod:`hashlib` does."""
        return self.CHECKSUM_ALGORITHM_PAIR[1]

    @property
    def checksum_algorithm_name(self) -> str:
        """The name of the algorithm in ``Upload-Checksum``."""
        return self.CHECKSUM_ALGORITHM_PAIR[0]

    # -- Headers --

    @property
    def client_cert(self) -> str | tuple[str, str] | None:
        """The certificate of the client."""
        return None if self.client is None else self.client.client_cert

    def get_headers(self) -> dict[str, str]:
        """Return the headers of each request."""
        return {**self.DEFAULT_HEADERS, **(self.client.headers if self.client is not None else {})}

    def get_url_creation_headers(self) -> dict[str, str]:
        """Return the headers of the request that creates the upload."""
        headers = self.get_headers() | {"upload-length": str(self.get_file_size())}
        if metadata := self.encode_metadata():
            headers["upload-metadata"] = ",".join(metadata)
        return headers

    def encode_metadata(self) -> list[str]:
        """Return the keys of the metadata with their encoded values.

        Raises:
            ValueError: a key is empty, or has a space or a comma.
        """
        encoded = []
        for key, value in self.metadata.items():
            name = str(key)
            if not name or re.search(r"[\s,]", name):
                raise ValueError(f"a key of the metadata must have no spaces and no commas; it is {name!r}")
            data = value.encode(self.metadata_encoding) if isinstance(value, str) else value
            encoded.append(f"{name} {b64encode(data).decode()}" if data else name)
        return encoded

    # -- The upload --

    def set_url(self, url: str) -> None:
        """Choose the upload, and store its URL if that is asked for."""
        self.url = url
        if self.store_url and self.url_storage is not None:
            self.url_storage.set_item(self._fingerprint(), url)

    def get_offset(self) -> int:
        """Ask the server how many bytes it has.

        Raises:
            TusCommunicationError: the response does not say so.
        """
        try:
            return self._run(lambda context: simple.head(context, self.url or "")).offset
        except ClientError as error:
            raise TusCommunicationError.of(error) from error

    def _find_url(self) -> None:
        """Go on with a stored upload, if the server has it and it is for a file of this size."""
        assert self.url_storage is not None
        stored = self.url_storage.get_item(self._fingerprint())
        if not stored:
            return
        try:
            info = self._run(lambda context: simple.head(context, stored))
        except UploadGone:
            return
        except ClientError as error:
            raise TusCommunicationError.of(error) from error
        if info.length in (None, self.get_file_size()):
            self.url, self.offset = stored, info.offset

    def _fingerprint(self) -> str:
        stream = self.get_file_stream()
        try:
            return self.fingerprinter.get_fingerprint(stream)
        finally:
            if stream is not self.file_stream:
                stream.close()

    def _creation(self, context: Context) -> Flow[str]:
        """Create the upload, and return its URL."""
        own = {name: value for name, value in self.get_url_creation_headers().items() if _is_of_protocol(name)}
        endpoint = context.settings.endpoint
        response = yield from ask(context, Request("POST", endpoint, own))
        location = response.headers.get("Location")
        if location is None:
            message = f"No upload was created: {describe(response)}"
            raise TusCommunicationError(message, response.status, response.body)
        self._named_by_server = resolve(context, response.url, location)
        return self._named_by_server

    def _take(self, request: BaseTusRequest) -> None:
        """Take the response to a chunk.

        Raises:
            TusUploadFailed: it is not a success.
        """
        status, content = request.status_code, request.response_content
        if status is None or not 200 <= status < 300:
            raise TusUploadFailed("", status, content)
        length = self.get_request_length()
        try:
            offset = int(request.response_headers["upload-offset"])
        except (KeyError, ValueError):
            raise TusUploadFailed("The response has no Upload-Offset.", status, content) from None
        if not self.offset + bool(length) <= offset <= self.offset + length:
            raise TusUploadFailed(f"The server has {offset} bytes, after those from {self.offset} on.", status, content)
        self.offset = offset

    def _delay(self, error: TusCommunicationError) -> float:
        """Return the seconds to wait before the next attempt.

        Raises:
            TusCommunicationError: there is none; this is the error itself.
        """
        if self._retried >= self.retries or isinstance(error.__cause__, FileChanged):
            raise error
        self._retried += 1
        asked = None
        if self.request is not None and error.status_code == self.request.status_code:
            asked = retry_after(Headers(self.request.response_headers.items()), time.time())
        if asked is not None and asked > NO_RETRIES.longest_wait:
            raise error
        seconds = max(self.retry_delay, asked or 0)
        if self.log_func is not None:
            self.log_func(f"{error} Attempt {self._retried} of {self.retries} follows in {seconds:g} s.")
        return seconds

    # -- Requests --

    def _arguments(self, headers: Mapping[str, str]) -> dict[str, Any]:
        """Return how this package's own client sends a request of this uploader, once."""
        endpoint = self.url or "" if self.client is None else self.client.url
        is_chosen_by_caller = self.url and self.url != self._named_by_server
        return {
            "endpoint": endpoint,
            "headers": {name: value for name, value in headers.items() if not _is_of_protocol(name)},
            "protocol": "tus",
            "retry": NO_RETRIES,
            "records": None,
            "trusted_origins": [self.url] if is_chosen_by_caller else [],
        }

    def _run(self, flow: Callable[[Context], Flow[_T]], headers: Mapping[str, str] | None = None) -> _T:
        """Run a flow in this thread, with the connections of this uploader."""
        settings = self.verify_tls_cert, self.client_cert
        if self._connections is None or self._connections[0] != settings:
            from tus.client.transports.httpx import HttpxTransport

            transport = HttpxTransport(verify=tls_context(*settings))
            weakref.finalize(self, transport.close)
            self._connections = settings, transport
        client = Client(**self._arguments(headers or self.get_headers()), transport=self._connections[1])
        return client._run(flow(client._context))


def _is_of_protocol(name: str) -> bool:
    return name.lower().startswith(("tus-", "upload-"))


def tls_context(verify: bool | str, cert: str | tuple[str, str] | None) -> ssl.SSLContext:
    """Return how TLS is done. To read the certificates of the system takes long, so they are kept."""
    from tus.client.transports.certificates import ssl_context

    return _usual_context() if verify is True and cert is None else ssl_context(verify, cert)


@functools.cache
def _usual_context() -> ssl.SSLContext:
    from tus.client.transports.certificates import ssl_context

    return ssl_context()
