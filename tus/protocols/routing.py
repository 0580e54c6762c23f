"""Which upload does a URL name? Pure.

Where the operator gave an ``upload_path``, it decides. In a view the framework has routed the request already: the
last segment is an upload's id if it has the form of one, and every other method than POST is about an upload.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from urllib.parse import unquote, urljoin, urlsplit

from tus.models import Request, is_upload_id
from tus.options import Options
from tus.protocols.forwarded import public_url


@dataclass(frozen=True, slots=True)
class Target:
    """What a URL is about.

    Attributes:
        creation_url: where uploads are created, without a slash at its end; an upload's URL is this, ``/``, its id.
        upload_id: the id, None where the URL creates uploads, and empty where it names nothing that can exist.
    """

    creation_url: str
    upload_id: str | None


def target_of(request: Request, method: str, options: Options) -> Target:
    """Which upload a request is about, in terms of the URLs that its client knows.

    Args:
        request: the head.
        method: the effective method.
        options: the operator's choices.
    """
    target = route(request.url, method, options.upload_path)
    creation_url = public_url(target.creation_url, request, options)
    return target if creation_url is target.creation_url else replace(target, creation_url=creation_url)


def route(url: str, method: str, upload_path: str | None) -> Target:
    """Find out what a request is about.

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
        path = "/" + unquote(url.partition("://")[2].partition("/")[2])  # a Host may be anything, urlsplit() minds
        creates = path == upload_path
        exists = exists and path == f"{upload_path}/{tail}"
    if creates:
        return Target(url, None)
    return Target(head, tail if exists else "")


def is_under(path: str, upload_path: str) -> bool:
    """Whether a decoded path is the upload path or lies below it."""
    return path == upload_path or path.startswith(upload_path + "/")


def upload_id_of(part_url: str, creation_url: str) -> str | None:
    """The id in the URL of a part, absolute or relative, or None where it is not one of ours.

    The scheme does not count, because a proxy may have changed it; the host does.
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
    """Which upload the request is about."""
    return target_of(request, request.effective_method, options)


def upload_url(creation_url: str, upload_id: str) -> str:
    """Where an upload is."""
    return f"{creation_url}/{upload_id}"
