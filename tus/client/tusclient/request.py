"""One chunk on its way."""

from __future__ import annotations

from contextlib import closing, nullcontext
from typing import TYPE_CHECKING, Any

from tus.client.commands import Call, Flow
from tus.client.dialects.interface import Append
from tus.client.dialects.tus1 import Tus1
from tus.client.errors import ClientError
from tus.client.flow.asking import ask
from tus.client.flow.context import Context
from tus.client.messages import Body
from tus.client.sources import source_of
from tus.client.tusclient.exceptions import TusUploadFailed

if TYPE_CHECKING:
    from tus.client.tusclient.uploader.baseuploader import BaseUploader
    from tus.client.tusclient.uploader.uploader import AsyncUploader, Uploader


class BaseTusRequest:
    """A PATCH with the next chunk of an uploader.

    Attributes:
        status_code: of the response; None if there was none.
        response_headers: by their names in lower case.
        response_content: the body of the response.
    """

    def __init__(self, uploader: BaseUploader) -> None:
        self.status_code: int | None = None
        self.response_headers: dict[str, str] = {}
        self.response_content: bytes | None = None
        self._uploader = uploader

    def _flow(self, context: Context) -> Flow[None]:
        uploader, offset = self._uploader, self._uploader.offset
        stream = uploader.get_file_stream()
        with nullcontext() if stream is uploader.file_stream else closing(stream):
            source = source_of(stream)
            assert source.size is not None
            body = Body(source, offset, max(min(uploader.get_request_length(), source.size - offset), 0))
            checksum = (yield Call(lambda: self._checksum(body))) if uploader.upload_checksum else None
            append = Append(uploader.url or "", body, source.size, is_last=False, checksum=checksum)
            response = yield from ask(context, Tus1().append(append))
        self.status_code = response.status
        self.response_headers = dict(response.headers)
        self.response_content = response.body

    def _checksum(self, body: Body) -> tuple[str, bytes]:
        hasher = self._uploader.checksum_algorithm()
        for block in body.source.blocks(body.offset, body.length):
            hasher.update(block)
        return self._uploader.checksum_algorithm_name, hasher.digest()


class TusRequest(BaseTusRequest):
    """A PATCH for a thread."""

    _uploader: Uploader

    def perform(self) -> None:
        """Send the chunk.

        Raises:
            TusUploadFailed: there is no response.
        """
        try:
            self._uploader._run(self._flow)
        except ClientError as error:
            raise TusUploadFailed.of(error) from error


class AsyncTusRequest(BaseTusRequest):
    """A PATCH for an event loop."""

    _uploader: AsyncUploader

    def __init__(self, uploader: AsyncUploader, io_loop: Any = None) -> None:
        super().__init__(uploader)

    async def perform(self) -> None:
        """Do what :meth:`TusRequest.perform` does."""
        try:
            await self._uploader._run_async(self._flow)
        except ClientError as error:
            raise TusUploadFailed.of(error) from error
