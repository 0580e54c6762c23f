"""Which files of an earlier, incomplete run are complete, so that the same command does not send them again.

They are remembered until a run with them is complete as a whole. One file alone is not remembered: who uploads it again
wants a second upload.
"""

from __future__ import annotations

import time
from typing import Any, Final

from tus.cli.choosing import Chosen
from tus.client import Headers, Response, UploadResult
from tus.client.arguments import describe_file, record_key
from tus.client.records import Records, ResumeRecord
from tus.client.sources import source_of

#: What the keys of these records begin with.
PREFIX: Final = "finished:"
_LIFETIME: Final = 7 * 86400.0


class FinishedFiles:
    """The complete files of an incomplete run.

    Args:
        records: where they are remembered.
        endpoint: where the uploads are created.
        about: the file name and the media type of each file, as :meth:`tus.client.Client.upload` takes them.
    """

    def __init__(self, records: Records, endpoint: str, **about: Any) -> None:
        self._records, self._endpoint, self._about = records, endpoint, about
        self._keys: set[str] = set()

    def find(self, file: Chosen) -> UploadResult | None:
        """Return the result of an earlier run for a file that has not changed since."""
        key = self._key(file)
        record = self._records.find(key) if key else None
        if record is None:
            return None
        self._keys.add(key)
        return UploadResult(record.url, record.size, record.size, record.size, 0, record.protocol, _NO_RESPONSE)

    def add(self, file: Chosen, result: UploadResult) -> None:
        """Remember a file that is complete."""
        if key := self._key(file):
            now = time.time()
            self._keys.add(key)
            self._records.save(
                ResumeRecord(
                    key=key,
                    url=result.url,
                    endpoint=self._endpoint,
                    path=str(file.source),
                    size=result.size,
                    protocol=result.protocol,
                    created_at=now,
                    expires_at=now + _LIFETIME,
                )
            )

    def forget(self) -> None:
        """Forget them, because the run is complete."""
        for key in self._keys:
            self._records.forget(key)

    def _key(self, file: Chosen) -> str:
        if not file.is_file:
            return ""
        source = source_of(file.source)
        key = record_key(source, self._endpoint, describe_file(source, file.metadata, **self._about))
        return f"{PREFIX}{key}" if key else ""


_NO_RESPONSE: Final = Response(0, Headers())
