"""Arguments that the commands of the client share, and the client that they describe."""

from __future__ import annotations

import argparse
import netrc
import os
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from tus.cli.text import printable
from tus.converters import as_duration, as_size
from tus.errors import OptionError, TusException

if TYPE_CHECKING:
    from tus.client import Client, ClientError, Response, UploadResult

_T = TypeVar("_T")

DONE, FAILED, RESUMABLE, REFUSED = 0, 1, 3, 4
#: The exit statuses, for the help of the commands that move files.
STATUSES = """\
Exit status:
  0  every file has arrived
  1  some files failed, for different reasons or for good
  2  the command line is wrong
  3  stopped by Ctrl-C or by a lasting failure; the same command goes on from there
  4  the server refused (status 4xx)"""


def add_connection(parser: argparse.ArgumentParser) -> None:
    """Add the arguments about the server: credentials, certificates, and how long to try."""
    group = parser.add_argument_group("connection")
    group.add_argument(
        "-H", "--header", action="append", default=[], metavar="'NAME: VALUE'", help="a header field; may be repeated"
    )
    group.add_argument(
        "--bearer-env", metavar="VAR", help="send the token in this environment variable, which others cannot see"
    )
    group.add_argument("--netrc", action="store_true", help="take the user and the password from ~/.netrc")
    group.add_argument("--cacert", metavar="FILE", help="believe the certificates that these authorities have signed")
    group.add_argument("--cert", metavar="FILE", help="a client certificate, with its key unless --key has it")
    group.add_argument("--key", metavar="FILE", help="the key of the client certificate")
    group.add_argument("--insecure", action="store_true", help="believe any certificate")
    group.add_argument("--proxy", metavar="URL", help="a proxy (default: that of the environment)")
    group.add_argument(
        "--retries", type=int, default=10, metavar="N", help="failures in a row before giving up (default: %(default)s)"
    )
    group.add_argument(
        "--stall-timeout",
        default="30",
        metavar="DURATION",
        help="how long nothing may move before the client connects again (default: %(default)s)",
    )
    group.add_argument("--override-patch", action="store_true", help="send PATCH and DELETE as POST, for old proxies")
    parser.add_argument("-v", "--verbose", action="store_true", help="print each request to stderr")


def add_sending(parser: argparse.ArgumentParser) -> None:
    """Add the arguments about how files are sent."""
    group = parser.add_argument_group("sending")
    group.add_argument("-j", "--jobs", type=int, default=4, metavar="N", help="files at a time (default: %(default)s)")
    group.add_argument(
        "-p", "--parallel", type=int, default=1, metavar="N", help="parts of a file at a time (default: %(default)s)"
    )
    group.add_argument(
        "--chunk-size",
        default="auto",
        metavar="SIZE",
        help="the most bytes of a request, such as 8M (default: the whole file, or what the server takes)",
    )
    group.add_argument("--max-rate", metavar="SIZE", help="the most bytes a second, such as 5M, over all files")
    group.add_argument(
        "--checksum",
        default="none",
        metavar="NAME",
        help="let the server verify each request: auto, or an algorithm such as sha256 (default: %(default)s)",
    )
    group.add_argument(
        "--verify",
        action="store_true",
        help="read each file first and send its SHA-256; afterwards ask the server whether it has every byte",
    )
    group.add_argument(
        "--protocol", choices=("auto", "tus", "ietf"), default="auto", help="default: what the server speaks"
    )
    add_state(group)


def add_state(parser: Any) -> None:
    """Add the place of the records of unfinished uploads."""
    parser.add_argument("--state", metavar="PATH", help="another database of unfinished uploads than your own")


def add_display(parser: argparse.ArgumentParser) -> None:
    """Add the arguments about the output."""
    group = parser.add_argument_group("output")
    group.add_argument(
        "--progress",
        choices=("auto", "bar", "plain", "none"),
        default="auto",
        help="bars, or a line for each change (default: bars on a terminal)",
    )
    group.add_argument("--json", action="store_true", help="print an event a line to stdout, each a JSON object")
    group.add_argument("-q", "--quiet", action="store_true", help="print only URLs and errors")


def open_client(options: argparse.Namespace, endpoint: str, **more: Any) -> Client:
    """Return the client that the arguments describe.

    Args:
        options: the parsed arguments.
        endpoint: the URL that creates uploads; for the other commands any URL of the server.
        more: further arguments of the client.

    Raises:
        OptionError: an argument has a bad value.
        TusException: a package is missing.
    """
    check_url(endpoint)
    try:
        from tus.client import Client, Retry
        from tus.client.transports import httpx as transport  # noqa: F401 - so that a missing package is noticed here
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("tus"):
            raise
        raise TusException(
            f"this command needs the package {error.name}; run: pip install httpx2 platformdirs"
        ) from None
    stall_timeout = convert("--stall-timeout", as_duration, options.stall_timeout)
    for name, value, least in (("--retries", options.retries, 0), ("--stall-timeout", stall_timeout, 1)):
        if value < least:
            raise OptionError(name, f"must be at least {least}")
    retry = Retry(attempts=options.retries, stall_timeout=stall_timeout)
    if options.insecure:
        print("warning: --insecure: anyone on the way can read and change what is sent.", file=sys.stderr)
    if options.key and not options.cert:
        raise OptionError("--key", "needs --cert")
    for name in ("cacert", "cert", "key"):
        if (path := getattr(options, name)) and not os.path.exists(path):
            raise OptionError(f"--{name}", f"there is no file {path!r}")
    try:
        return Client(
            endpoint,
            headers=_headers(options),
            auth=_netrc(endpoint) if options.netrc else None,
            retry=retry,
            verify=False if options.insecure else options.cacert or True,
            cert=(options.cert, options.key) if options.key else options.cert,
            proxy=options.proxy,
            override_patch=options.override_patch,
            on_response=_print_response if options.verbose else None,
            **{"records": None, **more},
        )
    except ValueError as error:
        raise OptionError("URL", str(error)) from None


def sending_options(options: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments of the client for :func:`add_sending`.

    Raises:
        OptionError: one has a bad value.
    """
    for name in ("jobs", "parallel"):
        if getattr(options, name) < 1:
            raise OptionError(f"--{name}", "must be at least 1")
    chunk = None if options.chunk_size == "auto" else _positive("--chunk-size", options.chunk_size)
    return {
        "protocol": options.protocol,
        "chunk_size": chunk,
        "checksum": None if options.checksum == "none" else options.checksum,
        "digest": "sha-256" if options.verify else None,
        "max_rate": None if options.max_rate is None else _positive("--max-rate", options.max_rate),
        "records": options.state or "default",
    }


def check_url(url: str) -> None:
    """Check that an argument is a URL.

    Raises:
        OptionError: it is something else, such as a file.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise OptionError("URL", f"must begin with http:// or https://; it is {url!r}")


def convert(option: str, converter: Callable[[object], _T], value: object) -> _T:
    """Return the value of an option in its type.

    Raises:
        OptionError: it has a bad value.
    """
    try:
        return converter(value)
    except ValueError as error:
        raise OptionError(option, f"{error}; it is {value!r}") from None


def status_of(error: Exception) -> int:
    """Return the exit status for an upload or a download that failed."""
    from tus.client import Refused

    if isinstance(error, Refused):
        return REFUSED
    if getattr(error, "resumable", False):
        return RESUMABLE
    status = getattr(error, "status", None)
    return REFUSED if status is not None and 400 <= status < 500 else FAILED


def message_of(error: Exception) -> str:
    """Return an error as one printable sentence; a part of it can be the server's."""
    if isinstance(error, OSError) and error.strerror:
        return printable(error.strerror)
    return printable(" ".join(str(error).split()))


def url_of(result: UploadResult) -> str:
    """Return the URL of an upload, as the result that is printed."""
    return printable(result.url)


def print_error(error: ClientError) -> int:
    """Print why a request failed, and return the exit status."""
    print(f"tus: {message_of(error)}", file=sys.stderr)
    return status_of(error)


def _positive(option: str, value: str) -> int:
    size = convert(option, as_size, value)
    if size < 1:
        raise OptionError(option, "must be at least 1")
    return size


def _headers(options: argparse.Namespace) -> Mapping[str, str]:
    headers = {}
    for field in options.header:
        name, colon, value = field.partition(":")
        if not colon or not name.strip() or any(c in field for c in "\r\n\0"):
            raise OptionError("--header", f"must be 'NAME: VALUE'; it is {field!r}")
        headers[name.strip()] = value.strip()
    if options.bearer_env is not None:
        token = os.environ.get(options.bearer_env, "").strip()
        if not token:
            raise OptionError("--bearer-env", f"there is no environment variable {options.bearer_env}")
        headers["Authorization"] = f"Bearer {token}"
    return headers


def _netrc(url: str) -> tuple[str, str] | None:
    """Return the user and the password for a host, if the file has them."""
    try:
        found = netrc.netrc().authenticators(urlsplit(url).hostname or "")
    except (OSError, netrc.NetrcParseError) as error:
        raise OptionError("--netrc", f"the file cannot be read: {error}") from None
    return None if found is None else (found[0], found[2] or "")


def _print_response(request: Any, response: Response) -> None:
    print(f"{request.method} {printable(request.url)}: {response.status}", file=sys.stderr)
