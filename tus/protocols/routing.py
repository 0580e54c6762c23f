"""The upload that a URL names. Pure.

An ``upload_path`` decides. In a view the framework has routed the request already: the last segment is an upload id if
it has the form of one, and a method that cannot create needs an upload.
"""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import unquote, urljoin, urlsplit

from tus.models import Request, is_upload_id
from tus.options import Options
from tus.protocols.forwarded import public_url


class Target(NamedTuple):
    """The target of a request.

    Attributes:
        creation_url: the URL that creates uploads, without a slash at its end. An upload's URL adds ``/`` and its id.
        upload_id: the id; None if the URL creates uploads, and empty if no upload can have this URL.
    """

    creation_url: str
    upload_id: str | None


def target_of(request: Request, method: str, options: Options) -> Target:
    """Return the target of a request, with the URL that its client knows.

    Args:
        request: the head.
        method: the effective method.
        options: the operator's choices.
    """
    target = route(request.url, method, options.upload_path)
    creation_url = public_url(target.creation_url, request, options)
    return target if creation_url is target.creation_url else target._replace(creation_url=creation_url)


def route(url: str, method: str, upload_path: str | None) -> Target:
    """Return the target of a URL.

    Args:
        url: absolute, percent-encoded, without a query.
        method: the effective method.
        upload_path: decoded, or None in a view.
    """
    url = url.rstrip("/")
    head, _, tail = url.rpartition("/")
    exists = is_upload_id(tail)
    if upload_path is None:
        creates = not exists and method in ("POST", "PUT", "OPTIONS", "GET")
    else:
        path = "/" + url.partition("://")[2].partition("/")[2]  # not urlsplit(), which fails on a malformed Host
        if "%" in path:
            path = unquote(path)
        creates = path == upload_path
        exists = exists and path == f"{upload_path}/{tail}"
    if creates:
        return Target(url, None)
    return Target(head, tail if exists else "")


def is_under(path: str, upload_path: str) -> bool:
    """Return whether a decoded path is the upload path or is below it."""
    return path == upload_path or path.startswith(upload_path + "/")


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


def target(request: Request, options: Options) -> Target:
    """Return the target of a request of tus."""
    return target_of(request, request.effective_method, options)


def upload_url(creation_url: str, upload_id: str) -> str:
    """Return the URL of an upload."""
    return f"{creation_url}/{upload_id}"
