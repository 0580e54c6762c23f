"""Both clients with one face, and an account of what a server got from them."""

from __future__ import annotations

import hashlib
import json
import uuid
from dataclasses import dataclass

import anyio
import httpx2

from tests.support.serving import Serving
from tus.client import AsyncClient, Client, MemoryRecords, Retry, UploadResult

KINDS = ("threads", "asyncio", "trio")
#: Failures cost no time here, and there are many.
PATIENT = Retry(attempts=40, base=0.01, cap=0.05, stall_timeout=0.5, answer_timeout=1.0)


class Uploader:
    """Uploads with one kind of client."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def upload(self, url, source, *, size=None, parallel=1, own_session=False, **settings) -> UploadResult:
        settings = {"records": MemoryRecords(), "retry": PATIENT} | settings
        self.name = uuid.uuid4().hex
        how = {"filename": self.name, "size": size, "parallel": parallel}
        return self.call(url, settings, "upload", source, own_session=own_session, **how)

    def call(self, url, settings, method, *arguments, own_session=False, **how):
        """Call a method of a client with these settings, which is closed afterwards."""
        if self.kind == "threads":
            with httpx2.Client() as session, Client(url, **settings, http=session if own_session else None) as client:
                return getattr(client, method)(*arguments, **how)

        async def run():
            async with (
                httpx2.AsyncClient() as session,
                AsyncClient(url, **settings, http=session if own_session else None) as client,
            ):
                return await getattr(client, method)(*arguments, **how)

        return anyio.run(run, backend=self.kind)


@dataclass
class Account:
    """What a server has of the uploads since the last look.

    Attributes:
        files: the digests of the files that the application has.
        handovers: how often it was called with a file.
        stored: how many uploads the store has.
    """

    files: list[str]
    handovers: int
    stored: int


class Auditor:
    """Counts what a server gets."""

    def __init__(self, served: Serving) -> None:
        self._served = served
        self._seen = self._everything()

    def account(self) -> Account:
        """What is there that was not there at the last look."""
        before, now = self._seen, self._everything()
        self._seen = now
        new = [path for path in now[0] if path not in before[0]]
        digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in new]
        return Account(digests, now[1] - before[1], now[2] - before[2])

    def names(self) -> list[str]:
        """The names of the files that the application has."""
        return [json.loads(path.read_text())["filename"] for path in self._served.landed.glob("*.json")]

    def _everything(self):
        served = self._served
        landed = [path for path in served.landed.iterdir() if path.suffix != ".json"]
        handovers = served.handovers.read_text().count("\n") if served.handovers.exists() else 0
        return landed, handovers, len(list(served.store.glob("*.tus")))
