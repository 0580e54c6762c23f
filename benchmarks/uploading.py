"""The programs of the clients: ``python -m benchmarks.uploading CLIENT URL FILE`` uploads a file once.

It prints the URL of the upload and the seconds. A client's modules are imported before its time begins.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

#: Uploads a file to a URL, and returns where it is.
Upload = Callable[[str, str], str]

MIB = 1 << 20


def ours(**options: Any) -> Upload:
    from tus.client import Client

    def upload(url: str, path: str) -> str:
        with Client(url) as client:
            return client.upload(path, **options).url

    Client("http://localhost/").close()
    return upload


def ours_async() -> Upload:
    from tus.client import AsyncClient, Client

    async def run(url: str, path: str) -> str:
        async with AsyncClient(url) as client:
            return (await client.upload(path)).url

    Client("http://localhost/").close()
    return lambda url, path: asyncio.run(run(url, path))


def tuspy(**options: Any) -> Upload:
    from tusclient.client import TusClient

    def upload(url: str, path: str) -> str:
        uploader = TusClient(url).uploader(path, metadata=metadata(path), **options)
        uploader.upload()
        return uploader.url

    return upload


def aiotus() -> Upload:
    import aiotus

    async def run(url: str, path: str) -> str:
        with open(path, "rb") as file:
            return str(await aiotus.upload(url, file, {k: v.encode() for k, v in metadata(path).items()}))

    return lambda url, path: asyncio.run(run(url, path))


def resumable_upload(**options: Any) -> Upload:
    from resumable_upload import TusClient

    return lambda url, path: TusClient(url, **options).upload_file(path, metadata=metadata(path))


def metadata(path: str) -> dict[str, str]:
    return {"filename": os.path.basename(path), "filetype": "application/octet-stream"}


#: Each returns its upload, once its modules are imported.
PROGRAMS: dict[str, Callable[[], Upload]] = {
    "ours": ours,
    "ours-parallel": partial(ours, parallel=4),
    "ours-async": ours_async,
    "tuspy": tuspy,
    "tuspy-4m": partial(tuspy, chunk_size=4 * MIB),
    "resumable": resumable_upload,
    "resumable-4m": partial(resumable_upload, chunk_size=4 * MIB, checksum=False),
    "aiotus": aiotus,
}


def main(name: str, url: str, path: str) -> None:
    upload = PROGRAMS[name]()
    began = time.monotonic()
    place = upload(url, path)
    print(place, time.monotonic() - began)


if __name__ == "__main__":
    main(*sys.argv[1:])
