"""The adapter for WebOb, and with it for Pyramid and other frameworks that use WebOb's request."""

from __future__ import annotations

import json as json_module
from collections.abc import Callable
from typing import Any

from webob import Request as WebobRequest
from webob import Response as WebobResponse

from tus.adapters.wsgi import WsgiAdapter, close_empty
from tus.models import Response

_BODY: Any = WebobResponse.body
_JSON: Any = WebobResponse.json


class ViewResponse(WebobResponse):
    """The response of a view, to which the view can give a body, such as ``resp.json_body = {"id": 17}``.

    A 204 with a body would break the connection: its client takes the body for the next response. So it becomes a 200,
    which clients take for success too. A body gets a type that suits it, unless the view has chosen one.
    """

    def _set_body(self, value: bytes) -> None:
        _BODY.fset(self, value)
        if value and self.status_code == 204:
            self.status = 200
            if self.content_type is None:
                self.headers["Content-Type"] = "text/plain; charset=utf-8"

    def _set_json(self, value: object) -> None:
        if self.content_type in (None, "text/plain"):
            self.headers["Content-Type"] = "application/json"
        self.body = json_module.dumps(value, separators=(",", ":")).encode()

    body: Any = property(_BODY.fget, _set_body, _BODY.fdel)
    json: Any = property(_JSON.fget, _set_json, _JSON.fdel)
    json_body: Any = json


class WebobAdapter(WsgiAdapter):
    """One WebOb request.

    It reads ``wsgi.input`` itself: WebOb's ``body_file`` discards its buffer at a disconnect, and its ``body`` copies
    everything first.

    Attributes:
        resp: the :class:`webob.Response` that the view returns.
    """

    def __init__(self, request: WebobRequest) -> None:
        super().__init__(request.environ)
        self._webob_request = request
        self.resp = ViewResponse(status=204)

    def at_request_end(self, callback: Callable[[], None]) -> bool:
        """Register a function that is called when the request has ended, under Pyramid; return whether it will be."""
        add = getattr(self._webob_request, "add_finished_callback", None)
        if add is None:
            return False
        add(lambda request: callback())
        return True

    def respond(self, response: Response) -> None:
        super().respond(response)
        assert self.response is not None
        # Always the same object: a view may have read it before it accepted the file.
        self.resp.status = f"{response.status} {response.reason}"
        body = self.response.body
        self.resp.app_iter = body or close_empty(body)  # this removes Content-Length, so headerlist is set after it
        self.resp.headerlist = list(response.headers)
