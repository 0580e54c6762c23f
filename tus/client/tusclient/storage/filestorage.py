"""A storage of URLs in a file, with the content that tuspy writes there by TinyDB."""

from __future__ import annotations

import json
import os
import tempfile
import threading
from typing import Any

from tus.client.tusclient.storage import interface


class FileStorage(interface.Storage):
    """A storage in a JSON file. Threads can share it; of two processes that write at once, one wins.

    Args:
        fp: the path. The file is made if there is none.
    """

    def __init__(self, fp: str | os.PathLike[str]) -> None:
        self._path = os.path.abspath(fp)
        self._lock = threading.Lock()
        with open(self._path, "a", opener=lambda path, flags: os.open(path, flags, 0o600)):
            pass

    def get_item(self, key: str) -> str | None:
        with self._lock:
            return next((item.get("url") for item in self._read()[1].values() if item.get("key") == key), None)

    def set_item(self, key: str, value: str) -> None:
        self._change(key, value)

    def remove_item(self, key: str) -> None:
        self._change(key, None)

    def close(self) -> None:
        """Do nothing: the file is open only while it is read or written."""

    def _read(self) -> tuple[dict[str, Any], dict[str, dict[str, str]]]:
        """Return the whole content, and the part of it that is about URLs."""
        with open(self._path, encoding="utf-8") as file:
            text = file.read()
        content = json.loads(text) if text else {}
        return content, content.setdefault("_default", {})

    def _change(self, key: str, url: str | None) -> None:
        with self._lock:
            content, items = self._read()
            number = next((number for number, item in items.items() if item.get("key") == key), None)
            if url is not None:
                items[number or str(max(map(int, items), default=0) + 1)] = {"key": key, "url": url}
            elif number is not None:
                del items[number]
            self._write(content)

    def _write(self, content: dict[str, Any]) -> None:
        """Replace the file, so that a process that is killed leaves the old one or the new one."""
        fd, path = tempfile.mkstemp(dir=os.path.dirname(self._path), prefix=f".{os.path.basename(self._path)}-")
        try:
            with open(fd, "w", encoding="utf-8") as file:
                json.dump(content, file)
            os.replace(path, self._path)
        except BaseException:
            os.unlink(path)
            raise
