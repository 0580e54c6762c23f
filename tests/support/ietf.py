"""A client of Resumable Uploads for HTTP that speaks one interop version, over any of the subjects.

What it expects is written down here once more, from the drafts, and not taken from the package's own table.
"""

from __future__ import annotations

import io
import json
from base64 import b64encode
from hashlib import new

from tests.support.subjects import PATH
from tests.support.wsgi import call

VERSIONS = (3, 4, 5, 6, 7, 8, 9, 10)
NEWEST = VERSIONS[-1]
UNKNOWN = 99
#: Every version, one that nobody knows, and none.
ALL = (*VERSIONS, UNKNOWN, None)

PARTIAL = "application/partial-upload"
PROBLEM = "https://iana.org/assignments/http-problem-types#"


def digest(data, algorithm="sha-256"):
    return f"{algorithm}=:{b64encode(new(algorithm.replace('-', ''), data).digest()).decode()}:"


class Blocks(io.RawIOBase):
    """A ``wsgi.input`` of given blocks; a function among them is called when the block after it is read."""

    def __init__(self, *steps):
        self._steps = [*steps]

    def read(self, size=-1):
        while self._steps:
            step = self._steps.pop(0)
            if isinstance(step, bytes):
                return step
            step()
        return b""


class Client:
    """A client.

    Attributes:
        s: the subject.
        version: what it names, None for none.
        like: the version whose rules hold: the newest where it names none that is known.
    """

    def __init__(self, subject, version):
        self.s = subject
        self.version = version
        self.like = version if version in VERSIONS else NEWEST
        self.field = "Upload-Incomplete" if self.like == 3 else "Upload-Complete"

    @property
    def spoken(self):
        """What every one of its requests carries."""
        return {} if self.version is None else {"Upload-Draft-Interop-Version": str(self.version)}

    def mark(self, complete):
        """How it says that an upload is complete, or is not; None says nothing."""
        return {} if complete is None else {self.field: "?1" if complete != (self.like == 3) else "?0"}

    def send(self, method, url=PATH, headers=(), body=b"", **how):
        return call(self.s.app, method, url, self.spoken | dict(headers), body, **how)

    def create(self, body=b"", complete=False, headers=(), method="POST", **how):
        return self.send(method, PATH, self.mark(complete) | dict(headers), body, **how)

    def url(self, *arguments, **how):
        reply = self.create(*arguments, **how)
        assert reply.status == 201, reply
        assert self.told(reply) is False
        return reply["Location"]

    def append(self, url, offset, body=b"", complete=False, headers=(), **how):
        fields = {"Content-Type": PARTIAL, "Upload-Offset": str(offset)} | self.mark(complete)
        return self.send("PATCH", url, fields | dict(headers), body, **how)

    def head(self, url, headers=(), method="HEAD", **how):
        return self.send(method, url, headers, **how)

    def offset(self, url):
        """Where the upload stands, after looking at all that offset retrieval must tell."""
        reply = self.head(url)
        assert reply.status == 204, reply
        assert self.told(reply) is not None
        assert reply["Cache-Control"] == "no-store"
        return int(reply["Upload-Offset"])

    def told(self, reply):
        """What a reply says of completeness; None where it says nothing."""
        other = "Upload-Complete" if self.like == 3 else "Upload-Incomplete"
        assert reply.get(other) is None, reply
        value = reply.get(self.field)
        return None if value is None else {"?0": False, "?1": True}[value] != (self.like == 3)

    def is_gone(self, url):
        """Whether the upload exists no more, in the words of this version."""
        reply = self.head(url)
        if self.like <= 6:
            return reply.status == 404
        return reply.status in (404, 410)

    def problem(self, reply):
        """The name of the problem that a refusal describes; None in the versions that have no such names."""
        assert self.told(reply) is False, reply
        if self.like < 6:
            assert reply["Content-Type"] == "text/plain; charset=utf-8"
            return None
        assert reply["Content-Type"] == "application/problem+json"
        described = json.loads(reply.body)
        assert described["status"] == reply.status
        return described.get("type", PROBLEM).removeprefix(PROBLEM)
