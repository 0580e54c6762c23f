"""The limits that ``tus serve`` sets by default, because every client that can reach it can upload."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

from tus.options import Options

#: The largest header field, in bytes: Upload-Concat with 1 000 parts, whose URLs may have 130 characters each.
LARGEST_FIELD: Final = 128 << 10
MOST_FIELDS: Final = 64  # the worker class limits the whole head to 256 KiB
MOST_UPLOADS: Final = 10_000  # unfinished; each takes two files and, without a byte, at most 8 KiB
_FREE_SHARE: Final = 20  # keep_free is 5 % of the disk
_MOST_FREE: Final = 5 << 30


def defaults_for(directory: str, others: Mapping[str, str]) -> dict[str, str]:
    """Return the limits for a directory that exists, except the given ones.

    A file of any size that the disk can hold is accepted: the largest upload is the whole disk without ``keep_free``,
    and ``keep_free`` refuses at its creation what does not fit now.
    """
    limits = {"max_uploads": str(MOST_UPLOADS)}
    if "store" not in others:
        status = os.statvfs(directory)
        disk = status.f_blocks * status.f_frsize
        keep_free = min(disk // _FREE_SHARE, _MOST_FREE)
        if disk:  # some file systems of networks do not tell their size
            limits |= {"keep_free": str(keep_free), "max_size": str(disk - keep_free)}
    return {name: value for name, value in limits.items() if name not in others}


def describe_defaults() -> str:
    """Return the limits with their values, for ``tus serve --help``."""
    return "\n".join(
        (
            "Limits, each with its default and how to lift it:",
            "  -o max_size=...       the size of the disk without keep_free; lift it with -o max_size=0",
            f"  -o max_uploads=...    {MOST_UPLOADS} unfinished uploads; lift it with -o max_uploads=0",
            f"  -o keep_free=...      5 % of the disk, at most {_MOST_FREE >> 30} GiB; lift it with -o keep_free=0",
            f"  -o min_rate=...       {_default_of('min_rate')} bytes per second; lift it with -o min_rate=0",
            f"  -o stall_timeout=...  {_default_of('stall_timeout')} seconds; lift it with -o stall_timeout=0",
            f"  heads of requests     {MOST_FIELDS} fields, {LARGEST_FIELD >> 10} KiB in one, 256 KiB in all; fixed",
            "                        in this command, other servers have their own",
            "With CONFIG.ini, max_size, max_uploads and keep_free have no limit unless the file sets one.",
        )
    )


def _default_of(name: str) -> object:
    return Options.__dataclass_fields__[name].default
