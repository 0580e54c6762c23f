"""The adapter for WebOb, and with it for Pyramid and other frameworks that use WebOb's request."""

from __future__ import annotations

from collections.abc import Callable

from webob import Request as WebobRequest
from webob import Response as WebobResponse

from tus.adapters.wsgi import WsgiAdapter, close_empty
from tus.models import Response


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
        self.resp = WebobResponse(status=204)

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
