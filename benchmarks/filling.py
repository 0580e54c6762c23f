"""``python -m benchmarks.filling uploads|names DIRECTORY NUMBER``: what a directory of ``tus serve`` holds already."""

from __future__ import annotations

import os
import secrets
import sys


def fill_uploads(directory: str, number: int) -> None:
    """Create unfinished uploads."""
    from tus import Options
    from tus.models import Upload
    from tus.stores import open_store

    unfinished = os.path.join(directory, ".tus")
    store = open_store(unfinished, Options.build(tmp_file_dir=unfinished))
    for _ in range(number):
        store.create(Upload(length=4096, service="/files"))


def fill_names(directory: str, number: int) -> None:
    """Make files that all wanted to be ``image.jpg``."""
    from tus.http.filenames import add_suffix

    names = ["image.jpg", *(add_suffix("image.jpg", f"-{secrets.token_hex(3)}", 255) for _ in range(number - 1))]
    for name in names:
        os.close(os.open(os.path.join(directory, name), os.O_WRONLY | os.O_CREAT, 0o600))


if __name__ == "__main__":
    {"uploads": fill_uploads, "names": fill_names}[sys.argv[1]](sys.argv[2], int(sys.argv[3]))
