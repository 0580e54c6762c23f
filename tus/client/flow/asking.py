"""One request and its final response: redirects, credentials, and the attempts after failures."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

from tus.client.commands import Flow, OnInterim, Progress, Report, Send, Wait
from tus.client.errors import (
    ClientError,
    ConnectionFailed,
    ForeignOrigin,
    GaveUp,
    NotAuthorized,
    Refused,
)
from tus.client.flow.context import Context, origin_of
from tus.client.messages import Request, Response
from tus.client.retry import Verdict, judge, retry_after

_REDIRECTS: Final = frozenset({301, 302, 307, 308})
_MOST_REDIRECTS: Final = 5
_LONGEST_TEXT: Final = 300


def ask(
    context: Context,
    request: Request,
    on_interim: OnInterim | None = None,
    sink: Callable[[Any, bytes], None] | None = None,
) -> Flow[Response]:
    """Send a request, follow redirects, and ask for credentials once more after a 401.

    Raises:
        ConnectionFailed: there is no response.
        ForeignOrigin: a redirect leaves https for http, or there are too many.
    """
    may_renew = context.settings.can_renew
    for _ in range(_MOST_REDIRECTS + 2):
        response: Response = yield Send(request, context.trusts(request.url), sink, on_interim)
        if response.status == 401 and may_renew and context.trusts(request.url):
            may_renew = False
            continue
        location = response.headers.get("Location")
        if response.status not in _REDIRECTS or not location:
            return response
        if response.status in (301, 302) and request.method not in ("GET", "HEAD", "OPTIONS"):
            return response  # clients turn such a request into GET
        request = replace(request, url=resolve(context, request.url, location))
    raise ForeignOrigin("The server redirects again and again.", url=request.url)


def resolve(context: Context, base: str, location: str) -> str:
    """Return the absolute URL of a ``Location``.

    A server behind a proxy often does not know that its clients come by https. So a URL with http on the same host
    gets https.

    Raises:
        ForeignOrigin: the URL leaves https for http on another host, or is not of HTTP.
    """
    url = urljoin(base, location)
    here, there = urlsplit(base), urlsplit(url)
    if there.scheme == "http" and here.scheme == "https":
        if here.hostname != there.hostname:
            raise ForeignOrigin(
                f"The server sent this client from https to {origin_of(url)}, where anyone could read the file.",
                url=base,
            )
        port = "" if there.port in (None, 80, here.port) else f":{there.port}"
        own = f":{here.port}" if here.port else ""
        url = there._replace(scheme="https", netloc=(there.hostname or "") + (port or own)).geturl()
    elif there.scheme not in ("http", "https"):
        raise ForeignOrigin(f"The server sent this client to a URL that is not of HTTP: {there.scheme}.", url=base)
    return url


class Attempts:
    """The failures of one upload or download, and the waits between them.

    Attributes:
        number: 1, and one more for each interruption.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._failures = 0
        self.number = 1

    def progress(self) -> None:
        """Begin the count anew, because the server has accepted a byte."""
        self._failures = 0

    def wait(self, problem: ClientError | Response, progress: Progress) -> Flow[None]:
        """Wait before the next attempt.

        Args:
            problem: the failure.
            progress: what is known about the upload.

        Raises:
            GaveUp: there were too many failures, or the server asks for a longer wait than the policy allows.
        """
        if isinstance(problem, ConnectionFailed) and not problem.resumable:
            raise problem
        self.number += 1
        if getattr(problem, "was_paused", False):
            return
        self._failures += 1
        retry = self._context.settings.retry
        reason = f"{problem.status}" if isinstance(problem, Response) else str(problem).rstrip(".")
        seconds = None
        if isinstance(problem, Response):
            seconds = retry_after(problem.headers, self._context.now())
        if self._failures > retry.attempts:
            times = "once" if self._failures == 1 else f"{self._failures} times in a row"
            raise _gave_up(f"Without success {times}; the last problem: {describe(problem)}", problem, progress)
        if seconds is not None:
            if seconds > retry.longest_wait:
                message = f"The server asks to come back after {seconds:.0f} seconds, which is longer than allowed."
                raise _gave_up(message, problem, progress)
            reason = f"{reason}, the server asks for {seconds:.0f} s"
            seconds += self._context.chance() if retry.jitter and seconds else 0.0
        else:
            seconds = retry.delay(self._failures, self._context.chance())
        waiting = replace(progress, kind="waiting", reason=reason, wait=seconds, attempt=self.number)
        yield Report(waiting)
        yield Wait(seconds)


def insist(
    context: Context,
    request: Request,
    progress: Progress | None = None,
    sink: Callable[[Any, bytes], None] | None = None,
) -> Flow[Response]:
    """Send a request that can be repeated, until there is an answer that another attempt does not change.

    Raises:
        GaveUp: there were too many failures.
    """
    attempts = Attempts(context)
    progress = progress or Progress("waiting", request.url)
    while True:
        try:
            response = yield from ask(context, request, sink=sink)
        except ConnectionFailed as error:
            yield from attempts.wait(error, progress)
            continue
        verdict = judge(response.status)
        if verdict is Verdict.RETRY or response.status == 423:
            yield from attempts.wait(response, progress)
            continue
        return response


def describe(problem: ClientError | Response) -> str:
    """Return a failure as a sentence."""
    if isinstance(problem, ClientError):
        return str(problem)
    text = " ".join(_words_of(problem).split())
    is_text = "html" not in problem.headers.get("Content-Type", "")
    said = f": {text[:_LONGEST_TEXT]}" if text and is_text and text.isprintable() else "."
    return f"the server answered {problem.status}{said}"


def _words_of(response: Response) -> str:
    """Return the text of a response, and of a problem in JSON (RFC 9457) its sentence."""
    if "problem+json" in response.headers.get("Content-Type", ""):
        with suppress(ValueError, RecursionError):
            said = json.loads(response.body)
            if isinstance(said, dict) and isinstance(text := said.get("detail", said.get("title")), str):
                return text
    return response.text


def refusal(response: Response, url: str, offset: int | None = None) -> ClientError:
    """Return the error for a response that another attempt does not change."""
    kind = NotAuthorized if judge(response.status) is Verdict.AUTHORIZE else Refused
    message = describe(response)
    return kind(message[0].upper() + message[1:], url=url, offset=offset, response=response)


def _gave_up(message: str, problem: ClientError | Response, progress: Progress) -> GaveUp:
    response = problem if isinstance(problem, Response) else problem.response
    error = GaveUp(message, url=progress.url, offset=progress.accepted, response=response)
    error.__cause__ = problem if isinstance(problem, ClientError) else None
    return error
