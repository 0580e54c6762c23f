"""When a request is tried again, and after how long. Pure: time and chance are arguments."""

from __future__ import annotations

from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from enum import Enum

from tus.client.messages import Headers


@dataclass(frozen=True, slots=True)
class Retry:
    """How long a client goes on after failures.

    Attributes:
        attempts: failures in a row, without progress between them, after which the client gives up. Each byte that
            the server accepts begins the count anew.
        base: seconds before the second attempt; each further wait is twice as long.
        cap: the longest of these waits, in seconds.
        jitter: whether the wait is a random part of that time, so that clients do not come back all at once.
        longest_wait: the longest ``Retry-After``, in seconds, that the client obeys; it gives up after a longer one.
        connect_timeout: seconds to connect.
        stall_timeout: seconds without any progress on a connection, after which the client connects anew.
        answer_timeout: seconds to wait for the response after the whole request was sent. A server may check and move
            the file before it responds.
    """

    attempts: int = 10
    base: float = 0.5
    cap: float = 60.0
    jitter: bool = True
    longest_wait: float = 300.0
    connect_timeout: float = 10.0
    stall_timeout: float = 30.0
    answer_timeout: float = 300.0

    def delay(self, failures: int, chance: float) -> float:
        """Return the seconds to wait after so many failures in a row.

        Args:
            failures: 1 or more.
            chance: at least 0 and less than 1.
        """
        longest = min(self.base * 2.0 ** min(failures - 1, 30), self.cap)
        return longest * (0.5 + chance / 2) if self.jitter else longest


#: For a caller that retries itself.
NO_RETRIES = Retry(attempts=0)


class Verdict(Enum):
    """What a status says about the next step."""

    SUCCESS = "2xx"
    LOOK = "the offset or the state differs: look, and go on from there"
    RETRY = "the same request may succeed later"
    SMALLER = "the request is too large"
    AUTHORIZE = "the credentials are not accepted"
    GONE = "there is no such upload"
    CORRUPT = "the bytes did not arrive as they were sent"
    REFUSED = "another try does not change the answer"


_VERDICTS = {
    401: Verdict.AUTHORIZE,
    403: Verdict.AUTHORIZE,
    404: Verdict.GONE,
    407: Verdict.AUTHORIZE,
    408: Verdict.RETRY,
    409: Verdict.LOOK,
    410: Verdict.GONE,
    413: Verdict.SMALLER,
    423: Verdict.LOOK,
    425: Verdict.RETRY,
    429: Verdict.RETRY,
    460: Verdict.CORRUPT,
    501: Verdict.REFUSED,
    505: Verdict.REFUSED,
}


def judge(status: int) -> Verdict:
    """Return what a final status says about the next step."""
    if 200 <= status < 300:
        return Verdict.SUCCESS
    return _VERDICTS.get(status, Verdict.RETRY if status >= 500 else Verdict.REFUSED)


def retry_after(headers: Headers, now: float) -> float | None:
    """Return the seconds of ``Retry-After`` (RFC 9110 section 10.2.3), or None without a valid one.

    Args:
        headers: of the response.
        now: seconds since 1970, for a field with a date.
    """
    value = headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        return max(parsedate_to_datetime(value).timestamp() - now, 0.0)
    except (ValueError, OverflowError):
        return None
