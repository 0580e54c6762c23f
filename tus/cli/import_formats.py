"""Readers for the records of other programs. Each format has a reader, a generator that changes nothing."""

from __future__ import annotations

import base64
import json
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from tus.errors import BadRequest, TusException
from tus.filesystem.ownership import NotOurs, Ownership
from tus.http.headers import MAX_INTEGER, parse_metadata
from tus.models import is_upload_id

_LARGEST_RECORD = 2**20  # bytes


class Unreadable(TusException):
    """A record that does not have the expected format; the text says what is wrong."""


class Left(TusException):
    """An upload that must not be imported; the text says why."""


@dataclass(frozen=True, slots=True)
class Found:
    """An upload of another program, or a record that cannot be imported.

    Attributes:
        id: the last segment of its URL.
        record: the path of the file that describes it.
        data: the path of its data, None if no byte has arrived.
        offset: bytes in that file.
        length: bytes announced, or None.
        raw_metadata: its ``Upload-Metadata``, as far as the record has it.
        is_partial: whether it is a part for a later concatenation.
        changed_at: the time when the record was written, in seconds since 1970.
        problem: the reason why it cannot or must not be imported, or None.
        warnings: texts for the operator.
    """

    id: str
    record: str
    data: str | None = None
    offset: int = 0
    length: int | None = None
    raw_metadata: str = ""
    is_partial: bool = False
    changed_at: float = 0.0
    problem: TusException | None = None
    warnings: tuple[str, ...] = ()


# -- Readers ------------------------------------------------------------------------------------------------------


def read_tuswsgi(directory: str) -> Iterator[Found]:
    """Read the ``tmp_dir`` of tuswsgi or its predecessor tusfilter: ``<id>``, and ``<id>.info``.

    Other programs may share the directory, so only records with the name of an upload are read.
    """
    for name in names(directory, ".info"):
        if is_upload_id(name):
            yield _read_upload(name, os.path.join(directory, name + ".info"), _from_tuswsgi)


def _from_tuswsgi(upload_id: str, path: str, record: dict[str, Any]) -> Found:
    length = _get(record, "upload_length", int)
    metadata = _pairs(record.get("upload_metadata"))
    if record.get("parts") or length == -2:
        raise Left("it is a concatenation, which tuswsgi makes at once; its client must request it again")
    data = path.removesuffix(".info")
    return Found(
        upload_id,
        path,
        data,
        _size(data),
        None if length == -1 else _length(length),
        _raw_metadata(metadata),  # its keys are from WSGI, one character for each byte
        _get(record, "partial", bool),
    )


def read_plone(directory: str) -> Iterator[Found]:
    """Read the ``TUS_TMP_FILE_DIR`` of plone.restapi: ``tus_upload_<id>.json``, and the data after the first byte.

    Beside the client's metadata a record has ``mode``, ``create`` or ``replace``, which is kept as metadata.
    """
    for name in names(directory, ".json"):
        prefix, _, upload_id = name.rpartition("_")
        if prefix == "tus_upload":
            yield _read_upload(upload_id, os.path.join(directory, name + ".json"), _from_plone)


def _from_plone(upload_id: str, path: str, record: dict[str, Any]) -> Found:
    length = _length(_get(record, "length", int))
    metadata = _pairs({key: value for key, value in record.items() if key != "length"})
    data = path.removesuffix(".json")
    exists = os.path.lexists(data)
    return Found(
        upload_id,
        path,
        data if exists else None,
        _size(data) if exists else 0,
        length,
        _raw_metadata(metadata),
    )


def read_tusd(directory: str) -> Iterator[Found]:
    """Read the ``-upload-dir`` of tusd's file store: ``<id>.info``, and ``<id>`` or the path that a hook has set."""
    for folder, folders, _ in os.walk(directory):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in names(folder, ".info"):
            path = os.path.join(folder, name + ".info")
            upload_id = os.path.relpath(path, directory).removesuffix(".info")
            yield _read_upload(upload_id, path, _from_tusd)


def _from_tusd(upload_id: str, path: str, record: dict[str, Any]) -> Found:
    if _get(record, "ID", str) != upload_id:
        raise Unreadable("its record describes another upload than its name")
    if "+" in upload_id:
        raise Unreadable("its id is that of an upload in S3, whose data is not in this directory")
    size = _get(record, "Size", int)
    metadata = _pairs(record.get("MetaData"))
    data = _tusd_data(upload_id, path, record.get("Storage"))
    offset = _size(data)
    if record.get("IsFinal"):
        done = offset == size
        raise Left(
            "it is finished" if done else "tusd crashed during this concatenation; its client must request it again"
        )
    lossy = any("\N{REPLACEMENT CHARACTER}" in value for value in metadata.values())
    return Found(
        upload_id,
        path,
        data,
        offset,
        None if record.get("SizeIsDeferred") else _length(size),
        _raw_metadata({key.encode("utf-8", "replace").decode("latin-1"): value for key, value in metadata.items()}),
        _get(record, "IsPartial", bool),
        warnings=("its metadata was not UTF-8, and tusd has not kept those bytes",) if lossy else (),
    )


def _tusd_data(upload_id: str, path: str, storage: object) -> str:
    """Return the path of the data; the record has it relative to tusd's directory, and from before any move."""
    here = os.path.dirname(path)
    default = os.path.join(here, upload_id)
    if not isinstance(storage, dict) or not isinstance(storage.get("Path"), str):
        return default
    seen = str(storage["Path"])
    info = storage.get("InfoPath")
    inside = os.path.relpath(seen, os.path.dirname(info) if isinstance(info, str) else os.path.dirname(seen))
    if not inside.startswith(".."):
        default = os.path.join(here, inside)
    return seen if os.path.isabs(seen) and not os.path.lexists(default) else default


READERS: dict[str, Callable[[str], Iterator[Found]]] = {
    "tuswsgi": read_tuswsgi,
    "plone": read_plone,
    "tusd": read_tusd,
}


def names(directory: str, extension: str) -> list[str]:
    """Return the names in a directory that have an extension, without it."""
    with os.scandir(directory) as entries:
        names = [entry.name.removesuffix(extension) for entry in entries if entry.name.endswith(extension)]
    return sorted(name for name in names if name)


def _read_upload(upload_id: str, path: str, reader: Callable[[str, str, dict[str, Any]], Found]) -> Found:
    """Read a record, and check whether its upload can be imported."""
    try:
        record, changed_at = _read_record(path)
        found = reader(upload_id, path, record)
        _check(found)
    except (Unreadable, Left) as problem:
        return Found(upload_id, path, problem=problem)
    except (OSError, ValueError):  # an invalid path, or a file that was removed meanwhile
        return Found(upload_id, path, problem=Unreadable("its data cannot be found"))
    return replace(found, changed_at=changed_at)


def _read_record(path: str) -> tuple[dict[str, Any], float]:
    try:
        with open(Ownership().open_data(path, os.O_RDONLY), "rb") as file:
            status = os.fstat(file.fileno())
            data = file.read(_LARGEST_RECORD + 1)
        record = json.loads(data) if len(data) <= _LARGEST_RECORD else None
    except NotOurs:
        raise Unreadable("its record is not a regular file of the user who imports it") from None
    except OSError as error:
        raise Unreadable(f"its record cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise Unreadable("its record is not JSON, or is incomplete") from None
    if not isinstance(record, dict):
        raise Unreadable("its record does not describe an upload")
    return record, status.st_mtime


def _check(found: Found) -> None:
    if not is_upload_id(found.id):
        raise Unreadable("its id is not 32 hexadecimal digits in lower case, so it cannot keep its URL here")
    if found.data is not None and not Ownership().believes(os.lstat(found.data), is_offered=True):
        raise Unreadable("its data belongs to another user than its record")
    if found.length is not None and found.offset > found.length:
        raise Unreadable(
            f"it has {found.offset} bytes, more than its length of {found.length}, so its data cannot be trusted"
        )
    if found.offset == found.length and not found.is_partial:
        raise Left("it is finished, and was handed over when its last byte arrived")


def _get(record: Mapping[str, Any], key: str, kind: type) -> Any:
    value = record.get(key)
    if type(value) is not kind:
        raise Unreadable(f"its record has no {key!r}, or one of the wrong type")
    return value


def _length(length: int) -> int:
    if not 0 <= length <= MAX_INTEGER:
        raise Unreadable(f"its length cannot be {length}")
    return length


def _pairs(metadata: object) -> dict[str, str]:
    if metadata is None:
        return {}
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise Unreadable("its metadata must be pairs of texts")
    return metadata


def _raw_metadata(metadata: Mapping[str, str]) -> str:
    """Return the ``Upload-Metadata`` field, one character for each byte."""
    values = {key: value.encode("utf-8", "replace") for key, value in metadata.items()}
    pairs = (f"{key} {base64.b64encode(value).decode()}".rstrip(" ") for key, value in values.items())
    field = ",".join(pairs)
    try:
        field.encode("latin-1")
        parsed = parse_metadata(field)
    except (BadRequest, UnicodeEncodeError):
        parsed = None
    if parsed != values:
        raise Unreadable("its metadata cannot have been a header field")
    return field


def _size(path: str) -> int:
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        # Each of these programs leaves its record behind when the application moves a finished file away.
        raise Left("its data is gone; usually the application has moved it away") from None
    except OSError as error:
        raise Unreadable(f"its data cannot be read: {error.strerror}") from None
    if not stat.S_ISREG(status.st_mode):
        raise Unreadable("its data is not a regular file")
    return status.st_size
