"""Hooks over HTTP: tusd's JSON, signed according to Standard Webhooks (https://www.standardwebhooks.com/)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import json
import logging
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import closing
from functools import partial
from typing import Final, TypeVar
from urllib.parse import urlsplit

from tus.converters import key_of
from tus.errors import HookUnavailable, OptionError, TusException
from tus.filesystem.ownership import Ownership
from tus.hooks import tusd
from tus.hooks.bounded import BoundedCalls, Busy, Deadline
from tus.hooks.outbox import WORKERS, Event, Outbox
from tus.models import HookEvent, HookReply, HookType, State
from tus.version import __version__

log = logging.getLogger(__name__)

TIMEOUT: Final = 15.0  # seconds, the default of the option webhook_timeout
THREADS: Final = 8  # the default of the option webhook_threads
POST_RECEIVE_TIMEOUT: Final = 5.0  # seconds; receiving bytes waits meanwhile
POST_RECEIVE_REST: Final = 30.0  # seconds without a post-receive after one that had no response in time
TRIES: Final = 3  # for a hook that a client waits for
QUIET: Final = 10.0  # seconds between two lines in the log about refused requests
PAUSE: Final = 1.0  # seconds between two tries
LONGEST_REPLY: Final = 5 << 10  # bytes, as in tusd

#: Header fields that describe the transfer of one request, so those of the client's request must not be forwarded.
_OF_THE_REQUEST = frozenset({"connection", "content-length", "expect", "host", "te", "transfer-encoding", "upgrade"})

_T = TypeVar("_T")

_DURABLE = frozenset({HookType.POST_CREATE, HookType.POST_FINISH, HookType.POST_TERMINATE})


class WebhookError(TusException):
    """A failure to reach an endpoint, or an unexpected response of it.

    Attributes:
        may_pass: whether the same request may succeed a little later.
    """

    def __init__(self, message: str, may_pass: bool = True) -> None:
        super().__init__(message)
        self.may_pass = may_pass


class WebhookTimeout(WebhookError):
    """An endpoint that has not responded in time."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the endpoint did not respond within {seconds:g} seconds")


class Webhook:
    """Hooks that post the events of uploads to an endpoint.

    The hooks that a client waits for (``pre-create``, ``pre-finish``, ``pre-terminate``) are posted at once, up to
    three times; ``post-receive`` once. The others go through an outbox: at least once, in their order for each upload.

    No thread waits for the endpoint longer than ``timeout``, whatever the endpoint or its name server does. At most
    ``threads`` threads do, and for a second as many others; a further request gets 503.

    Args:
        url: http or https.
        secret: the key of the signatures; empty for no signature.
        events: the hooks that are posted.
        forward_headers: header fields of the client that are forwarded although they may contain a secret, in the JSON
            and as header fields.
        directory: the outbox; created with the first event.
        has_happened: see :class:`~tus.hooks.outbox.Outbox`; called with the hook, and the upload's id and key.
        timeout: seconds for a hook with all its tries, and for the delivery of one event.
        threads: the most threads of a process that wait for the endpoint for clients.
        ownership: whose files in the outbox are believed.
    """

    def __init__(
        self,
        url: str,
        *,
        secret: str = "",
        events: Collection[HookType],
        forward_headers: Collection[str] = (),
        directory: str,
        has_happened: Callable[[HookType, str, str], bool | None] = lambda kind, upload_id, key: True,
        timeout: float = TIMEOUT,
        threads: int = THREADS,
        ownership: Ownership | None = None,
    ) -> None:
        self._url = urlsplit(url)
        self._key = signing_key(secret) if secret else None
        self._events = frozenset(events)
        self._forward_headers = tuple(forward_headers)
        self._timeout = timeout
        self._asking = BoundedCalls(threads)
        self._delivering = BoundedCalls(WORKERS)  # apart, so that no client waits for the outbox
        self._rests_until = self._quiet_until = 0.0
        self.outbox = Outbox(
            directory,
            self._post_event,
            lambda event: has_happened(HookType(event.type), event.upload, event.id.removesuffix(f"-{event.type}")),
            ownership=ownership,
        )

    # -- Hooks that a client waits for --

    def pre_create(self, event: HookEvent) -> HookReply | None:
        return self._ask(event)

    def pre_finish(self, event: HookEvent) -> HookReply | None:
        return self._ask(event)

    def pre_terminate(self, event: HookEvent) -> HookReply | None:
        return self._ask(event)

    def post_receive(self, event: HookEvent) -> HookReply | None:
        """Post the offset of an upload. A failure is only logged, because the next post reports the offset as well."""
        if time.monotonic() < self._rests_until:
            return None
        try:
            return self._ask(event, 1, min(POST_RECEIVE_TIMEOUT, self._timeout))
        except (WebhookError, HookUnavailable, ValueError) as error:
            if isinstance(error, WebhookTimeout):  # else each of these posts would hold up the bytes of every upload
                self._rests_until = time.monotonic() + POST_RECEIVE_REST
            log.warning("cannot deliver post-receive of upload %s: %s", event.upload.id, error)
            return None

    def _ask(self, event: HookEvent, tries: int = TRIES, timeout: float | None = None) -> HookReply | None:
        """Post an event that a client waits for, and return the reply of the endpoint.

        Raises:
            HookUnavailable: as many threads as may do that wait for the endpoint already.
            WebhookError: the endpoint did not respond in time, or not as expected.
            ValueError: its reply makes no sense.
        """
        if event.type not in self._events:
            return None
        ask = partial(self._ask_within, event, self._payload(event), tries)
        try:
            return _run(self._asking, ask, self._timeout if timeout is None else timeout)
        except Busy:
            if time.monotonic() >= self._quiet_until:
                self._quiet_until = time.monotonic() + QUIET
                log.warning("further hooks are refused, because webhook_threads requests wait for the webhook already")
            raise HookUnavailable() from None

    def _ask_within(self, event: HookEvent, payload: bytes, tries: int, deadline: Deadline) -> HookReply:
        while True:
            tries -= 1
            try:
                body = self._post_within(payload, event.id, deadline)
                if len(body) > LONGEST_REPLY:
                    raise WebhookError(f"the endpoint's response is longer than {LONGEST_REPLY} bytes", may_pass=False)
                return tusd.decode(body, event.type)
            except WebhookError as error:
                if not error.may_pass or not tries or deadline.remaining <= PAUSE:
                    raise
            time.sleep(PAUSE)

    # -- Events that are delivered from the outbox --

    def queue(self, event: HookEvent) -> None:
        """Record an event before its change happens."""
        if event.type in self._events & _DURABLE:
            upload, voids = event.upload, ""
            if event.type == HookType.POST_TERMINATE and upload.state != State.ACCEPTED:
                # A process that crashed while the application had the file may have left this event. Once the upload
                # is gone, nothing else shows that the file was not accepted.
                voids = f"{upload.key}-{HookType.POST_FINISH}"
            payload = self._payload(event).decode()
            self.outbox.put(upload.key, Event(event.id, str(event.type), upload.id, payload, voids))

    def unqueue(self, event: HookEvent) -> None:
        """Remove a recorded event, because its change does not happen."""
        if event.type in self._events & _DURABLE:
            self.outbox.drop(event.upload.key, event.id)

    def deliver(self, event: HookEvent) -> None:
        """Deliver a recorded event, whose change has happened, in threads of this process."""
        self.outbox.start()
        self.outbox.wake()

    def start(self) -> None:
        """Start the delivery in threads of this process, unless it has begun."""
        self.outbox.start()

    def stop(self) -> None:
        """End the delivery in threads of this process; the events stay."""
        self.outbox.stop()

    def flush(self, retry_aside: bool = False) -> int:
        """Deliver the events that are due now, and return the number of events that are left."""
        if retry_aside:
            self.outbox.retry_aside()
        while self.outbox.flush() == 0:
            pass
        return self.outbox.counts()["pending"]

    def _post_event(self, event: Event) -> None:
        self.post(event.payload.encode(), event.id)

    # -- HTTP --

    def _payload(self, event: HookEvent) -> bytes:
        return json.dumps(tusd.encode(event, self._forward_headers)).encode()

    def post(self, payload: bytes, event_id: str, timeout: float | None = None) -> bytes:
        """Post JSON, and return the body of a 2xx response, or its beginning if it is longer than is allowed.

        Args:
            payload: from :func:`tus.hooks.tusd.encode`.
            event_id: the same for every attempt.
            timeout: seconds for the whole exchange; the option by default.

        Raises:
            WebhookError: the endpoint did not respond, or not with a 2xx.
        """
        post = partial(self._post_within, payload, event_id)
        try:
            return _run(self._delivering, post, self._timeout if timeout is None else timeout)
        except Busy:  # by posts whose callers have left them
            raise WebhookError("earlier posts still wait for the endpoint or for the address of its name") from None

    def _post_within(self, payload: bytes, event_id: str, deadline: Deadline) -> bytes:
        now = int(time.time())
        headers = {"User-Agent": f"tus/{__version__}"} | self._forwarded_headers(payload)
        headers |= {"Content-Type": "application/json", "Webhook-Id": event_id, "Webhook-Timestamp": str(now)}
        if self._key is not None:
            headers["Webhook-Signature"] = f"v1,{signature(self._key, event_id, now, payload)}"
        is_https = self._url.scheme.lower() == "https"
        connect = http.client.HTTPSConnection if is_https else http.client.HTTPConnection
        target = (self._url.path or "/") + (f"?{self._url.query}" if self._url.query else "")
        try:
            # 0 would mean that the socket does not block.
            timeout = max(deadline.remaining, 0.001)
            with closing(connect(str(self._url.hostname), self._url.port, timeout=timeout)) as connection:
                connection.connect()
                deadline.watch(connection.sock)
                connection.request("POST", target, payload, headers)
                with connection.getresponse() as response:
                    body = response.read(LONGEST_REPLY + 1)
            if not deadline.remaining:  # a body without a length ends where the socket was shut
                raise TimeoutError
        except Exception as error:  # http.client parses a stranger's bytes
            if not deadline.remaining:
                raise WebhookTimeout(deadline.seconds) from None
            raise WebhookError(f"the endpoint cannot be reached: {error or type(error).__name__}") from None
        if not 200 <= response.status < 300:
            may_pass = response.status >= 500 or response.status in (408, 425, 429)
            raise WebhookError(f"the endpoint responded with {response.status}; a 2xx was expected", may_pass)
        announced = response.getheader("Content-Length", "")
        if announced.isdecimal() and len(body) < min(int(announced[:19]), LONGEST_REPLY):
            raise WebhookError("the endpoint's response was cut off")
        return body

    def _forwarded_headers(self, payload: bytes) -> dict[str, str]:
        """Return the client's header fields to forward, from the JSON, because an event may be posted much later."""
        if not self._forward_headers:
            return {}
        found = json.loads(payload)["Event"]["HTTPRequest"]["Header"]
        names = [name.title() for name in self._forward_headers if name.lower() not in _OF_THE_REQUEST]
        return {name: found[name][0] for name in names if name in found}


def _run(calls: BoundedCalls, function: Callable[[Deadline], _T], seconds: float) -> _T:
    """Call a function that posts, and return its result.

    Raises:
        WebhookTimeout: it has not ended in time.
        Busy: there is no place for it.
    """
    try:
        return calls.run(function, seconds)
    except TimeoutError:
        raise WebhookTimeout(seconds) from None


# -- Signatures ---------------------------------------------------------------------------------------------------


def signing_key(secret: str) -> bytes:
    """Return the bytes of a secret.

    Raises:
        OptionError: the secret is malformed or too short.
    """
    try:
        return key_of(secret)
    except ValueError as error:
        raise OptionError("webhook_secret", str(error)) from None


def signature(key: bytes, event_id: str, timestamp: int, body: bytes) -> str:
    """Return the HMAC-SHA256 of the id, the time and the body, in Base64."""
    signed = f"{event_id}.{timestamp}.".encode() + body
    return base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


def verify(
    secret: str, headers: Mapping[str, str], body: bytes, now: float | None = None, tolerance: float = 300
) -> bool:
    """Return whether a request to an endpoint was signed with the secret, and is not a replay of an old one.

    Args:
        secret: as in the option ``webhook_secret``.
        headers: of the request; ``get("Webhook-Id")`` must work.
        body: as received.
        now: seconds since 1970; by default the current time.
        tolerance: seconds that the request's time may differ from ``now``.
    """
    event_id, timestamp = headers.get("Webhook-Id"), headers.get("Webhook-Timestamp")
    signatures = headers.get("Webhook-Signature")
    if not event_id or not timestamp or not signatures or not timestamp.isdecimal() or len(timestamp) > 12:
        return False
    if abs((time.time() if now is None else now) - int(timestamp)) > tolerance:
        return False
    expected = f"v1,{signature(signing_key(secret), event_id, int(timestamp), body)}".encode()
    return any(hmac.compare_digest(given.encode(), expected) for given in signatures.split())
