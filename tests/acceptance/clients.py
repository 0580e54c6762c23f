"""Unmodified clients, each of which uploads one file as well as it can and says what it believes."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from tusclient.client import TusClient
from tusclient.exceptions import TusCommunicationError

#: The ways in which an upload comes to its end.
TUSJS_KINDS = ("patch", "post", "empty", "parts")
TUSJS_IETF_KINDS = ("patch", "post", "empty")
TUSPY_KINDS = ("patch", "empty")

SILENCE = "it has said neither that it succeeded nor that it failed"


@dataclass
class Belief:
    """What a client believes in the end.

    Attributes:
        succeeded: whether it says that all is done.
        at: when it said so, in seconds since 1970.
        url: of the upload, where it knows one.
        error: what it says otherwise.
    """

    succeeded: bool
    at: float
    url: str | None
    error: str = ""

    @property
    def was_rejected(self) -> bool:
        return re.search(r"\b415\b", self.error) is not None


def tuspy(endpoint: str, name: str, data: bytes, kind: str, patience: int = 60) -> Belief:
    """Upload by tuspy."""
    uploader = TusClient(endpoint).uploader(
        file_stream=io.BytesIO(data),
        chunk_size=max(len(data) // 2, 1),
        metadata={"filename": name},
        retries=patience,
        retry_delay=0.1,
    )
    try:
        for left in reversed(range(patience)):
            try:
                uploader.upload()
            except TusCommunicationError as error:
                # It tries a PATCH again by itself, but neither the POST nor the HEAD before that.
                if uploader.url is not None or not left or error.status_code == 415:
                    raise
                time.sleep(0.1)
            else:
                return Belief(True, time.time(), uploader.url)
    except (TusCommunicationError, OSError) as error:
        return Belief(False, time.time(), uploader.url, f"{error} {getattr(error, 'status_code', '')}")
    raise AssertionError("the last one raises")


class TusJs:
    """tus-js-client, installed in a directory with the driver beside it."""

    def __init__(self, directory: Path, protocol: str = "tus-v1") -> None:
        self._directory = directory
        self._protocol = protocol

    def speaking(self, protocol: str) -> TusJs:
        """The same, in another protocol of its."""
        return TusJs(self._directory, protocol)

    def __call__(self, endpoint: str, name: str, data: bytes, kind: str, patience: int = 60) -> Belief:
        """Upload by tus-js-client."""
        options = {"endpoint": endpoint, "metadata": {"filename": name}, "retryDelays": [100] * patience}
        options["protocol"] = self._protocol
        if kind == "patch":
            options["chunkSize"] = len(data) // 2
        elif kind == "post":
            options["uploadDataDuringCreation"] = True
        elif kind == "parts":
            options["parallelUploads"] = 2
        file = self._directory / f"{name}.data"
        file.write_bytes(data)
        try:
            run = subprocess.run(
                ["node", "upload.mjs", json.dumps({"file": str(file), "source": "buffer", "options": options})],
                cwd=self._directory,
                env=os.environ | {"NODE_OPTIONS": ""},
                capture_output=True,
                text=True,
                timeout=120,
            )
        finally:
            file.unlink()
        if not run.stdout and not run.returncode:
            # Under Node it waits for the end of a reply whose connection ends after the head, and that never comes.
            return Belief(False, time.time(), None, SILENCE)
        assert run.stdout.startswith("{"), f"{name}: {run.returncode}, {run.stdout!r}, {run.stderr!r}"
        said = json.loads(run.stdout)
        return Belief(said["outcome"] == "success", said["at"] / 1000, said.get("url"), said.get("error", ""))
