"""The ways in which an application uses the package, as WSGI applications that one suite can drive."""

from __future__ import annotations

import anyio
from webob import Request, Response

from tests.support.wsgi import OCTETS, TUS, call
from tus import Filter, Options, Service, Tus, WebobAdapter, open_store
from tus.asgi import TusMiddleware

PATH = "/files"

#: The field by which an application rejects a file for good.
REJECTS = ("Tus-Outcome", "rejected")


class Subject:
    """An application and what it was handed.

    Attributes:
        app: the WSGI application.
        landed: the files that it got, as tuples of the upload and the data.
        fail: an exception for the application to raise, or a status for it to answer, instead of accepting.
        answer: the body of what an application answers that is called with the file; a view has no such answer.
        fields: header fields of that answer.
    """

    def __init__(self, **options):
        self.options = {"threads": False} | options
        self.landed = []
        self.fail = None
        self.answer = b"the application's answer"
        self.fields = [("Content-Type", "text/plain"), ("X-App", "was here")]
        self.app = self.make()

    def make(self):
        raise NotImplementedError

    def stored(self):
        """The store as another process opens it."""
        if "store" in self.options:
            return self.options["store"]
        options = {name: value for name, value in self.options.items() if name != "principal"}
        return open_store(str(options["tmp_file_dir"]), Options.build_async(**options))

    def record(self, url):
        """How an upload stands, from the disk."""
        return self.stored().load(url.rpartition("/")[2])

    def land(self, upload, data):
        if isinstance(self.fail, BaseException):
            raise self.fail
        if self.fail is None:
            self.landed.append((upload, data))

    # -- Requests --

    def send(self, method, url=PATH, headers=(), body=b"", **how):
        return call(self.app, method, url, TUS | dict(headers), body, **how)

    def create(self, size=None, headers=(), body=b"", **how):
        settled = {"Upload-Defer-Length": "1"} if size is None else {"Upload-Length": str(size)}
        typed = OCTETS if body or how else {}
        return self.send("POST", PATH, settled | typed | dict(headers), body, **how)

    def url(self, *arguments, **how):
        reply = self.create(*arguments, **how)
        assert reply.status == 201, reply
        return reply["Location"]

    def patch(self, url, offset, body=b"", headers=(), **how):
        return self.send("PATCH", url, OCTETS | {"Upload-Offset": str(offset)} | dict(headers), body, **how)

    def head(self, url, headers=()):
        return self.send("HEAD", url, headers)

    def offset(self, url):
        reply = self.head(url)
        assert reply.status == 200, reply
        return int(reply["Upload-Offset"])


class FilterSubject(Subject):
    """A ``Filter`` around an application."""

    def make(self):
        def application(environ, start_response):
            upload = environ.get("tus.upload")
            if upload is None:
                start_response("200 OK", [("Content-Type", "text/plain")])
                return [b"the application's own page"]
            self.environ = environ
            self.land(upload, environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
            start_response(self.fail or "200 OK", list(self.fields))
            return [self.answer]

        return Filter(application, **{"upload_path": PATH, "send_file": True} | self.options)


class ViewSubject(Subject):
    """A view that makes a ``Tus`` for each request, over one service."""

    def make(self):
        options = dict(self.options)
        principal = options.pop("principal", None)
        service = Service(**options)

        def view(environ, start_response):
            adapter = WebobAdapter(Request(environ))
            tus = Tus(adapter, service=service, principal=principal)
            if not tus.valid:
                return Response(b"the application's own page")(environ, start_response)
            tus.handle()
            response = adapter.resp
            if tus.upload_finished:
                with open(tus.get_filepath(), "rb") as file:
                    self.land(tus.upload, file.read())
                if self.fail is None:
                    tus.cleanup_file()
                else:
                    response = Response(b"no", status=self.fail)
            return response(environ, start_response)

        return view


class OnLoop:
    """An ASGI application, and the event loop that it is called on.

    Attributes:
        backend: asyncio or trio.
    """

    def __init__(self, app, backend):
        self.app = app
        self.backend = backend

    def __call__(self, *arguments):
        return self.app(*arguments)

    @property
    def service(self):
        return self.app.service

    @property
    def backlog(self):
        return self.app.backlog


class AsgiSubject(Subject):
    """A ``TusMiddleware`` around an application."""

    backend = "asyncio"

    def make(self):
        async def application(scope, receive, send):
            upload = scope.get("tus.upload")
            text = b"the application's own page"
            headers = [(b"content-type", b"text/plain")]
            status = 200
            if upload is not None:
                self.scope = scope
                await anyio.to_thread.run_sync(self.land, upload, await self.read(receive))
                status = int((self.fail or "200")[:3])
                headers = [(name.lower().encode(), value.encode()) for name, value in self.fields]
                text = self.answer
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": text})

        app = TusMiddleware(application, **{"upload_path": PATH, "send_file": True} | self.options)
        return OnLoop(app, self.backend)

    @property
    def environ(self):
        """What the application was called with, as WSGI has it."""
        fields = [(name.decode().upper().replace("-", "_"), value.decode()) for name, value in self.scope["headers"]]
        return self.scope | {f"HTTP_{name}": value for name, value in fields}

    @staticmethod
    async def read(receive):
        data, more = b"", True
        while more:
            message = await receive()
            assert message["type"] == "http.request"
            data, more = data + message["body"], message["more_body"]
        return data


class TrioSubject(AsgiSubject):
    """The same under trio."""

    backend = "trio"


#: The same for every way in, and then for both kinds of event loop.
SUBJECTS = (FilterSubject, ViewSubject, AsgiSubject)
ASYNC_SUBJECTS = (AsgiSubject, TrioSubject)
