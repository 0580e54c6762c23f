"""A site in memory that gets heads, and what its replies must be."""

from __future__ import annotations

import io
import logging
import re
import time
from dataclasses import dataclass

from tests.fuzz.heads import NEVER, UPLOADS, Head
from tests.support.asgi import call_asgi
from tus import Filter, HookReply
from tus.asgi import TusMiddleware
from tus.models import Response
from tus.stores.memory import MemoryStore

#: Seconds of CPU that a head may take, on a machine that does other work as well.
LONGEST = 2.0


class Hooks:
    """Hooks that change what clients have sent."""

    def pre_create(self, event):
        return HookReply(name="named.txt", response=Response(200, "OK", [("X-Hook", "was here")]))

    def pre_finish(self, event):
        return HookReply(reject=bool(event.upload.length and event.upload.length % 2 == 0))

    def pre_terminate(self, event):
        return HookReply(reject=event.upload.length == 9)


#: What differs between the sites that heads are sent to.
VARIANTS: tuple[dict[str, object], ...] = (
    {"download": True, "keep_finished": True, "cors_allow_origin": "https://*.example.org", "digest": "sha-256"},
    {"protocols": "tus", "max_size": 1000, "cors_allow_origin": "*", "max_metadata_size": 0},
    {"protocols": "ietf", "max_size": 1000, "max_append_size": 100, "min_append_size": 2, "download": True},
    {
        "trusted_proxies": "10.0.0.0/8 unix",
        "cors_allow_origin": lambda origin: "evil" not in origin,
        "interim": "always",
    },
)
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_TOLD = (b"Traceback", b'File "', b"/tmp/", b"site-packages", b"Error(")
_MARKS = {"tus-resumable", "upload-complete", "upload-incomplete", "upload-draft-interop-version", "accept-patch"}
_ONCE = {"content-length", "content-type", "upload-offset", "upload-length", "location", "tus-resumable", "etag"}
_PAGE = b"the application's own page"


class Finding(AssertionError):
    """A head that a site does not bear."""


@dataclass
class Seen:
    """The reply to a head."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    seconds: float = 0.0


class Site:
    """A ``Filter`` over a store in memory, with one upload in every state.

    Args:
        variant: the number of one of the :data:`VARIANTS`.
    """

    def __init__(self, variant: int = 0) -> None:
        self.options = VARIANTS[variant]
        self.store = MemoryStore(keep_finished=bool(self.options.get("keep_finished")))
        self.app = self.make({"upload_path": "/files", "threads": False, "send_file": True, "store": self.store})
        self.ids = dict.fromkeys(UPLOADS, "0" * 32)
        self._prepare()

    def make(self, options):
        def application(environ, start_response):
            upload = environ.get("tus.upload")
            if upload is not None:
                environ["wsgi.input"].read(64)
            start_response("200 OK", [("Content-Type", "text/plain"), ("X-Page", "1")])
            return [_PAGE]

        return Filter(application, **options, **self.options)

    def _prepare(self) -> None:
        tus, ietf = {"Tus-Resumable": "1.0.0"}, {"Upload-Draft-Interop-Version": "8"}
        octets = {"Content-Type": "application/offset+octet-stream"}
        spoken = self.options.get("protocols", "")
        if spoken != "ietf":
            for name, fields, body in (
                ("empty", {"Upload-Length": "9"}, b""),
                ("half", {"Upload-Length": "9"} | octets, b"abc"),
                ("deferred", {"Upload-Defer-Length": "1"} | octets, b"abc"),
                ("done", {"Upload-Length": "3"} | octets, b"abc"),
                ("part", {"Upload-Length": "9", "Upload-Concat": "partial"} | octets, b"abc"),
                ("whole part", {"Upload-Length": "3", "Upload-Concat": "partial"} | octets, b"abc"),
                ("final", {"Upload-Concat": "final;/files/{whole part}"}, b""),
                ("gone", {"Upload-Length": "9"}, b""),
            ):
                self._create(name, Head("POST", "/files", tus | fields, body))
            self.send(Head("DELETE", "/files/{gone}", tus))
        if spoken != "tus":
            for name, fields, body in (
                ("ietf", {"Upload-Complete": "?0", "Upload-Length": "9"}, b""),
                ("ietf half", {"Upload-Complete": "?0"}, b"abc"),
                ("ietf done", {"Upload-Complete": "?1"}, b"abc"),
            ):
                self._create(name, Head("POST", "/files", ietf | fields, body))

    def _create(self, name: str, head: Head) -> None:
        headers = {key.lower(): value for key, value in self.send(head).headers}
        self.ids[name] = headers["location"].rpartition("/")[2]

    def send(self, head: Head) -> Seen:
        """Send a head, and return the reply."""
        environ = self.environ_of(head)
        began = time.thread_time()
        seen = self.answer(environ, head.body)
        seen.seconds = time.thread_time() - began
        return seen

    def environ_of(self, head: Head) -> dict[str, object]:
        environ: dict[str, object] = {
            "REQUEST_METHOD": self._filled(head.method),
            "SCRIPT_NAME": "",
            "PATH_INFO": self._filled(head.path).partition("?")[0],
            "QUERY_STRING": head.path.partition("?")[2],
            "SERVER_NAME": "localhost",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "HTTP_HOST": "localhost",
            "REMOTE_ADDR": "10.0.0.1",
            "CONTENT_LENGTH": str(len(head.body)),
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(head.body),
            "wsgi.multithread": False,
        }
        for name, value in head.fields.items():
            key = name.upper().replace("-", "_")
            environ[key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"] = self._filled(value)
        if "HTTP_TRANSFER_ENCODING" in environ:
            environ["wsgi.input_terminated"] = True
        return environ

    def _filled(self, text: str) -> str:
        if "{" in text:
            for name, upload_id in self.ids.items():
                text = text.replace(f"{{{name}}}", upload_id)
        return text.translate(dict.fromkeys(map(ord, NEVER)))

    def answer(self, environ, body: bytes) -> Seen:
        started = []

        def start_response(status, headers, exc_info=None):
            started[:] = [status, headers]
            return lambda block: None

        blocks = self.app(environ, start_response)
        try:
            content = b"".join(blocks)
        finally:
            if hasattr(blocks, "close"):
                blocks.close()
        return Seen(int(started[0][:3]), started[1], content)

    def check(self, head: Head) -> Seen:
        """Send a head, and check the reply.

        Raises:
            Finding: it is not what a client of any kind must get.
        """
        with _Errors() as errors:
            try:
                seen = self.send(head)
            except Exception as error:
                raise Finding(f"an exception escapes: {error!r}\n{head}") from error
        problem = errors.first or self._problem(head, seen)
        if problem:
            raise Finding(f"{problem}\n{head}\n{seen.status} {seen.headers}\n{seen.body[:300]!r}")
        return seen

    def _problem(self, head: Head, seen: Seen) -> str:
        if seen.status == 500 or not 200 <= seen.status < 600:
            return f"the status is {seen.status}"
        names = [name.lower() for name, _ in seen.headers]
        for name, value in seen.headers:
            if not _TOKEN.fullmatch(name) or _CONTROL.search(value):
                return f"the field {name!r} is malformed: {value!r}"
            value.encode("latin-1")
        for name in _ONCE:
            if names.count(name) > 1:
                return f"the field {name} is there twice"
        fields = {name.lower(): value for name, value in seen.headers}
        if any(told in seen.body for told in _TOLD):
            return "the body tells too much"
        is_bodiless = seen.status in (204, 304) or head.method == "HEAD"
        is_page = "x-page" in fields
        if is_bodiless and seen.body and not is_page:
            return "there is a body where none may be"
        if seen.status in (204, 304) and "content-length" in fields and fields["content-length"] != "0":
            return "there is a length where no body may be"
        if not is_bodiless and fields.get("content-length", str(len(seen.body))) != str(len(seen.body)):
            return "Content-Length is not that of the body"
        is_cancelled = seen.status == 204 and head.method == "DELETE"  # of a client that names no version
        if not is_page and not is_cancelled and not _MARKS & fields.keys():
            return "no field shows a protocol"
        if "upload-offset" in fields and not 0 <= int(fields["upload-offset"]) < 2**63:
            return "the offset is none"
        if seen.seconds > LONGEST:
            return f"it took {seen.seconds:.1f} seconds of CPU"
        return ""


class AsyncSite(Site):
    """A ``TusMiddleware`` over a store in memory."""

    def make(self, options):
        async def application(scope, receive, send):
            more = "tus.upload" in scope
            while more:
                more = (await receive()).get("more_body", False)
            await send({"type": "http.response.start", "status": 200, "headers": [(b"x-page", b"1")]})
            await send({"type": "http.response.body", "body": _PAGE})

        return TusMiddleware(application, **options, **self.options)

    def answer(self, environ, body: bytes) -> Seen:
        return Seen(*call_asgi(self.app, environ, body, cut=True, error=None, backend="asyncio"))


class _Errors(logging.Handler):
    """The first error that the package logs while this is in use: an exception that became a 503 is one as well."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.first = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.first = self.first or f"an error is logged: {logging.Formatter().format(record)}"

    def __enter__(self):
        logging.getLogger("tus").addHandler(self)
        return self

    def __exit__(self, *exception):
        logging.getLogger("tus").removeHandler(self)
