"""The upload that a URL names. Pure.

An ``upload_path`` decides. In a view the framework has routed the request already: the last segment is an upload id if
it has the form of one, and a method that cannot create needs an upload.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple
from urllib.parse import unquote, urljoin, urlsplit

from tus.models import is_upload_id

MALFORMED_HOST: Final = "Host must be the name or the address of a host; a URL with these characters cannot be sent."


class Target(NamedTuple):
    """The target of a request.

    Attributes:
        creation_url: the URL that creates uploads, as the server sees it, without a slash at its end. An upload's URL
            adds ``/`` and its id.
        upload_id: the id; None if the URL creates uploads, and empty if no upload can have this URL.
    """

    creation_url: str
    upload_id: str | None


def route(url: str, method: str, upload_path: str | None) -> Target:
    """Return the target of a URL.

    Args:
        url: absolute, percent-encoded, without a query.
        method: the effective method.
        upload_path: decoded, or None in a view.
    """
    url = url.rstrip("/")
    head, _, tail = url.rpartition("/")
    exists = is_upload_id(tail) is not None
    if upload_path is None:
        creates = not exists and method in ("POST", "PUT", "OPTIONS", "GET")
    else:
        path = path_of(url)
        if "{" in upload_path:
            creates = _values(path, upload_path) is not None
            exists = exists and _values(path.rpartition("/")[0], upload_path) is not None
        else:
            creates = path == upload_path
            exists = exists and path == f"{upload_path}/{tail}"
    if creates:
        return Target(url, None)
    return Target(head, tail if exists else "")


def path_of(url: str) -> str:
    """Return the decoded path of an absolute URL without a query."""
    path = "/" + url.partition("://")[2].partition("/")[2]  # not urlsplit(), which fails on a malformed Host
    return unquote(path) if "%" in path else path


def is_creation_path(path: str, upload_path: str) -> bool:
    """Return whether a decoded path is the upload path."""
    return path == upload_path if "{" not in upload_path else _values(path, upload_path) is not None


def is_under(path: str, upload_path: str) -> bool:
    """Return whether a decoded path is the upload path or is below it."""
    if "{" in upload_path:
        return _values(_beginning(path, upload_path), upload_path) is not None
    return path == upload_path or path.startswith(upload_path + "/")


def path_values(path: str, upload_path: str) -> dict[str, str]:
    """Return the values of the names in the upload path, from a decoded path that is under it; empty without names."""
    return _values(_beginning(path, upload_path), upload_path) or {}


def fill_path(upload_path: str, values: Mapping[str, str]) -> str:
    """Return the upload path with these values in the place of its names.

    Raises:
        ValueError: a value is missing, is not a whole segment, or has no name in the path.
    """
    segments = upload_path.split("/")
    names = [segment[1:-1] for segment in segments if segment.startswith("{")]
    if sorted(names) != sorted(values) or any(not value or "/" in value for value in values.values()):
        raise ValueError(f"path_values must have a value for each name in {upload_path!r}, and no other")
    return "/".join(values[segment[1:-1]] if segment.startswith("{") else segment for segment in segments)


def _beginning(path: str, upload_path: str) -> str:
    """Return as many segments of a path as the upload path has."""
    return "/".join(path.split("/")[: upload_path.count("/") + 1])


def _values(path: str, upload_path: str) -> dict[str, str] | None:
    """Return the values of the names, or None if the path is not the upload path."""
    expected, found = upload_path.split("/"), path.split("/")
    if len(expected) != len(found):
        return None
    values = {}
    for segment, value in zip(expected, found, strict=True):
        if segment.startswith("{") and value:
            values[segment[1:-1]] = value
        elif segment != value:
            return None
    return values


def upload_id_of(part_url: str, creation_url: str) -> str | None:
    """Return the id in the URL of a part, absolute or relative; None for a URL of another server.

    The host must match. The scheme need not, because a proxy may have changed it.
    """
    try:
        ours = urlsplit(creation_url)
        theirs = urlsplit(urljoin(creation_url + "/", part_url))
    except ValueError:
        return None
    head, _, tail = theirs.path.partition("?")[0].rstrip("/").rpartition("/")
    if theirs.netloc.lower() != ours.netloc.lower() or unquote(head) != unquote(ours.path) or theirs.query:
        return None
    return tail if is_upload_id(tail) else None


def upload_url(creation_url: str, upload_id: str) -> str:
    """Return the URL of an upload."""
    return f"{creation_url}/{upload_id}"
