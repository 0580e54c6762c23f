"""Heads of requests: made from a seed, and written as text."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, field

#: The uploads that a site has before the first head. A path or a field names one of them in braces.
UPLOADS = ("empty", "half", "deferred", "done", "part", "whole part", "final", "ietf", "ietf half", "ietf done", "gone")

OCTETS, PARTIAL = "application/offset+octet-stream", "application/partial-upload"
#: Characters that no server passes on within a field (RFC 9110 section 5.5).
NEVER = "\0\r\n"


@dataclass
class Head:
    """One request; its ``Content-Length`` is that of the body unless the fields have another."""

    method: str = "POST"
    path: str = "/files"
    fields: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    def __str__(self) -> str:
        method = _escaped(self.method).replace(" ", "\\x20")
        lines = [f"{method} {_escaped(self.path)}"]
        lines += [f"{_escaped(name)}: {_escaped(value)}" for name, value in self.fields.items()]
        return "\n".join([*lines, "", _escaped(self.body.decode("latin-1"))]) + "\n"

    @classmethod
    def parse(cls, text: str) -> Head:
        """Return the head that :meth:`__str__` has written."""
        first, *lines = text.splitlines()
        method, _, path = first.partition(" ")
        fields = {}
        while lines and (line := lines.pop(0)):
            name, _, value = line.partition(": ")
            fields[_plain(name)] = _plain(value)
        return cls(_plain(method), _plain(path), fields, _plain("".join(lines[:1])).encode("latin-1"))


def _escaped(text: str) -> str:
    """Escape what is not printable ASCII, and write long repetitions as ``{text*number}``."""
    short = re.sub(
        r"([^{}\0]{1,4}?)\1{63,}",
        lambda found: f"\0{found[1]}\1{len(found[0]) // len(found[1])}\2",
        text,
        flags=re.DOTALL,
    )
    escaped = short.encode("unicode_escape").decode()
    return re.sub(r"\\x00(.*?)\\x01(\d+)\\x02", r"{\1*\2}", escaped)


def _plain(text: str) -> str:
    repeated = re.sub(r"\{([^{}]+?)\*(\d+)\}", lambda found: found[1] * int(found[2]), text)
    return repeated.encode("latin-1").decode("unicode_escape")


NUMBERS = (
    "0", "1", "2", "3", "5", "9", "10", "-1", "+1", "-0", "00000000000000000005", "1.5", "1e3", "0x10", "1_0", " 5",
    "5 ",
    "5;a=1", "999999999999999", "1000000000000000", "9223372036854775807", "9223372036854775808",
    "18446744073709551616", "9" * 4300, "9" * 4301, "9" * 9000, "0" * 5000, "\xb2", "\xd9\xa1", "1,1", "nan", "inf",
    "?1", "(1)", '"1"', "@1", "", "\x01",
)  # fmt: skip
DATES = (
    "Mon, 01 Jan 2001 00:00:00 GMT", "Fri, 01 Jan 2100 00:00:00 GMT", "Mon, 01 Jan 99999 00:00:00 GMT",
    "Mon, 01 Jan 10000 00:00:00 GMT", "Thu, 01 Jan 1970 00:00:00 GMT", "Mon, 01 Jan 0001 00:00:00 -9999",
    "Mon, 01 Jan 0001 00:00:00 +9999", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994", "Mon",
    "31 Feb 2001 25:61:61 GMT", "1 Jan " + "9" * 4301 + " 0:0:0 GMT", "Mon, 01 Jan 2001 00:00:00 +99999999999999999999",
)  # fmt: skip
TAGS = ("*", '"{done}"', 'W/"{done}"', '"a", "{done}"', '"' * 40, 'W/"', '"a' * 99, "", ",", '"\\""')
RANGES = (
    "bytes=0-", "bytes=0-1,3-4", "bytes=-1", "bytes=-0", "bytes=5-", "bytes=1-0", "bytes=" + "9" * 4301 + "-",
    "bytes=-" + "9" * 4301, "bytes=0-" + "9" * 4301, "bytes=" + "0-0," * 40, "bytes=" + "," * 999, "bytes", "=",
    "bytes=-",
    "bytes=0-0,", "BYTES = 0 - 1", "bytes=\xb2-", "lines=0-",
)  # fmt: skip
BOOLEANS = ("?1", "?0", "?2", "1", "0", "?1;a", "?1;a=?0;b=1", "?1, ?0", "true", "", " ?1 ", "?", "(?1)", ":YQ==:")
DIGESTS = (
    "sha-256=:ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=:", "sha-256=:YWJj:", "sha-512=:YQ==:, sha-256=:YQ==:",
    "sha-256=1", "sha-256", "sha-256=:!:", "md5=:YQ==:", "unixsum=1", "a=(1 2 3)", "a=" + "(" * 200, "sha-256=:", "=",
    "sha-256=5, sha-512=0", "sha-256=10;q=1",
)  # fmt: skip
CHECKSUMS = (
    "sha1 qvTGHdzF6KLavt4PO0gs2a6pQ00=", "sha1 YQ==", "md5 XUFAKrxLKna5cZ2REBfFkg==", "crc32 AAAAAA==", "sha1", "sha1 ",
    " sha1", "SHA1 YQ==", "sha3 YQ==", "sha1  YQ==", "sha1 \xff", "sha1 YQ==,sha1 YQ==",
)  # fmt: skip
METADATA = (
    "filename YS50eHQ=", "filename YS50eHQ=,filetype aW1hZ2UvcG5n", "filename Li4vLi4vZXRjL3Bhc3N3ZA==", "a", "a,a",
    "a ",
    ",", " ", "a !", "a YQ=", "a YQ==,", "filename gICA", "filename AAECAw==", "a " + "YWFh" * 1000, "\xe9 YQ==",
    "filetype dGV4dC9odG1sDQpTZXQtQ29va2llOiBhPWI=", "filename " + "4oCu" * 99, "filetype 4oCu",
    "filename Y29uLnR4dA==",
)  # fmt: skip
CONCATS = (
    "partial", "final;{part}", "final;{whole part}", "final;{whole part} {whole part}", "final;/files/{part}", "final;",
    "final", "final; ", "final;http://[::1/files/{part}", "final;" + "{part} " * 50, "final;../{part}",
    "final;//{part}",
    "final;http://other/files/{part}", "final;/files/{part}?a=1", "final;/files/{done}", "final;" + "a " * 1001,
    "Final;{part}", "partial;", "final;/files/" + "0" * 32, "final;\xff\x7f",
)  # fmt: skip
DISPOSITIONS = (
    'attachment; filename="a.txt"', "attachment; filename*=utf-8''%e2%82%ac", "attachment; filename*=utf-7''%2B2AA-",
    "a; filename*=utf-16''a", "a; filename*=rot13''a", "a; filename*=iso-8859-1'en'%A3",
    "a; filename*0=a; filename*1=b",
    ";" * 8000, ";" * 60_000, 'a; filename="' + "\\" * 5001, 'a; filename="', "a; filename*=''",
    "a; filename*=utf-8''%",
    "a; filename=", "=;=" * 99, 'a; filename="../../x"', "a; filename*=utf-8''%00%0d%0a", "a;filename=\xe9",
    "a; filename*=utf-8''" + "%ff" * 99, "a; filename=" + "y" * 5000,
)  # fmt: skip
TYPES = (
    OCTETS, PARTIAL, "text/plain", "", ";", "application/offset+octet-stream;a=b", "APPLICATION/PARTIAL-UPLOAD",
    "a" * 5000,
    "multipart/form-data; boundary=x", "\xff/\xff", "text/html\x01",
)  # fmt: skip
HOSTS = (
    "localhost", "localhost:80", "[::1]", "[::1", "a:b:c", "", "ex ample", "\xe9", "a" * 300, "a:99999999999", "a@b",
    "a/b",
    "a?b", "a#b", "%00", "[v1.a]", "\x01", "::",
)  # fmt: skip
ORIGINS = ("https://a.example.org", "https://evil.org", "null", "*", "https://*.example.org", "a" * 5000, "", "\xff")
FORWARDED = (
    'for=10.0.0.1;host=a;proto=https', 'host="a b"', 'host="' + "\\" * 999, "for=[::1]:1, for=10.0.0.1", '"' * 1500,
    "a, 10.0.0.1", "https", "https, http", "/prefix", "/../x", "//x", "a\x01", ",".join(["10.0.0.1"] * 900), "[::1", "",
    "\xe9", "/" + "%" * 99,
)  # fmt: skip
KEYS = (
    '"' + "k" * 20 + '"',
    "k" * 20,
    "k" * 300,
    '"',
    "",
    '"a',
    "a",
    '"\\"' + "x" * 20 + '"',
    "\xff" * 20,
    "a,b" * 9,
    "?1",
)
VERSIONS = ("1.0.0", "0.2.2", "", "1.0.0, 1.0.0", "\x01", "1" * 5000)
METHODS = ("POST", "PATCH", "HEAD", "GET", "DELETE", "OPTIONS", "PUT", "TRACE", "patch", "\xe9", "P" * 300, "M-SEARCH")
INTEROP = ("3", "4", "5", "6", "7", "8", "9", "10", "0", "11", "999999999999999", "-1", "3.0", "?1", "", "(", "9" * 99)

#: The fields that this package reads, with values to try.
FIELDS: dict[str, tuple[str, ...]] = {
    "Tus-Resumable": VERSIONS, "Upload-Offset": NUMBERS, "Upload-Length": NUMBERS, "Upload-Defer-Length": NUMBERS,
    "Upload-Metadata": METADATA, "Upload-Concat": CONCATS, "Upload-Checksum": CHECKSUMS, "Upload-Complete": BOOLEANS,
    "Upload-Incomplete": BOOLEANS, "Upload-Draft-Interop-Version": INTEROP, "Upload-Limit": NUMBERS,
    "Content-Length": NUMBERS, "Content-Type": TYPES, "Content-Disposition": DISPOSITIONS, "Content-Digest": DIGESTS,
    "Repr-Digest": DIGESTS, "Want-Repr-Digest": DIGESTS, "Idempotency-Key": KEYS, "X-HTTP-Method-Override": METHODS,
    "Range": RANGES, "If-Range": DATES + TAGS, "If-Match": TAGS, "If-None-Match": TAGS, "If-Modified-Since": DATES,
    "If-Unmodified-Since": DATES, "Host": HOSTS, "Origin": ORIGINS, "Access-Control-Request-Method": METHODS,
    "Access-Control-Request-Headers": ("a, b", "", "\xff"), "Forwarded": FORWARDED, "X-Forwarded-For": FORWARDED,
    "X-Forwarded-Host": FORWARDED, "X-Forwarded-Proto": FORWARDED, "X-Forwarded-Prefix": FORWARDED,
    "X-Forwarded-Port": NUMBERS, "Transfer-Encoding": ("chunked", "", "gzip", "chunked, chunked"),
    "Expect": ("100-continue", "\x01"), "Content-Encoding": ("gzip", "\xff"), "Content-Language": ("en", "\xff"),
    "Content-Location": ("/a", "\xff"), "Via": ("1.1 a", ""), "Cookie": ("a=b", "\xff"), "X-Other": ("", "\xff",
    "a" * 9000),
}  # fmt: skip
NAMES = tuple(FIELDS)

_TUS = {"Tus-Resumable": "1.0.0"}
_IETF = {"Upload-Draft-Interop-Version": "8"}
#: Heads that are right, from which the others are made.
SOUND = (
    Head("POST", "/files", _TUS | {"Upload-Length": "9"}),
    Head("POST", "/files", _TUS | {"Upload-Length": "3", "Content-Type": OCTETS}, b"abc"),
    Head("POST", "/files", _TUS | {"Upload-Defer-Length": "1", "Upload-Metadata": "filename YS50eHQ="}),
    Head("POST", "/files", _TUS | {"Upload-Length": "9", "Upload-Concat": "partial"}),
    Head("POST", "/files", _TUS | {"Upload-Concat": "final;/files/{whole part} /files/{whole part}"}),
    Head("POST", "/files", _TUS | {"Upload-Concat": "final;/files/{part}"}),
    Head("PATCH", "/files/{empty}", _TUS | {"Upload-Offset": "0", "Content-Type": OCTETS}, b"abc"),
    Head("PATCH", "/files/{half}", _TUS | {"Upload-Offset": "3", "Content-Type": OCTETS}, b"def"),
    Head("PATCH", "/files/{deferred}", _TUS | {"Upload-Offset": "3", "Content-Type": OCTETS, "Upload-Length": "6"},
        b"def"),
    Head("PATCH", "/files/{part}", _TUS | {"Upload-Offset": "3", "Content-Type": OCTETS}, b"def"),
    Head("PATCH", "/files/{done}", _TUS | {"Upload-Offset": "3", "Content-Type": OCTETS}),
    Head("HEAD", "/files/{half}", _TUS),
    Head("HEAD", "/files/{done}"),
    Head("GET", "/files/{done}", {"Range": "bytes=0-1", "If-Range": '"{done}"'}),
    Head("GET", "/files/{done}", {"If-None-Match": '"{done}"', "If-Modified-Since": DATES[0]}),
    Head("GET", "/files/{ietf done}", {"If-Match": '"{ietf done}"', "If-Unmodified-Since": DATES[1]}),
    Head("GET", "/files/{final}"),
    Head("DELETE", "/files/{gone}", _TUS),
    Head("DELETE", "/files/{half}", _TUS),
    Head("OPTIONS", "/files", {"Origin": ORIGINS[0], "Access-Control-Request-Method": "PATCH"}),
    Head("POST", "/files", _IETF | {"Upload-Complete": "?1", "Content-Disposition": DISPOSITIONS[0]}, b"abc"),
    Head("POST", "/files", _IETF | {"Upload-Complete": "?0", "Upload-Length": "9", "Repr-Digest": DIGESTS[0]}, b"abc"),
    Head("PATCH", "/files/{ietf}", _IETF | {"Upload-Complete": "?0", "Upload-Offset": "0", "Content-Type": PARTIAL},
        b"abc"),
    Head("PATCH", "/files/{ietf half}", _IETF | {"Upload-Complete": "?1", "Upload-Offset": "3",
        "Content-Type": PARTIAL}, b"d"),
    Head("PATCH", "/files/{ietf done}", _IETF | {"Upload-Complete": "?1", "Upload-Offset": "3",
        "Content-Type": PARTIAL}),
    Head("HEAD", "/files/{ietf half}", _IETF),
    Head("GET", "/files/{ietf half}"),
    Head("DELETE", "/files/{ietf}", _IETF),
    Head("PUT", "/files", _IETF | {"Upload-Complete": "?0", "Content-Digest": DIGESTS[0]}, b"abc"),
)  # fmt: skip
PATHS = (
    "/files", "/files/", "/files//", "/files/" + "0" * 32, "/files/" + "G" * 32, "/files/../x", "/files/\xff",
    "/files/%2e%2e",
    "/files/a/b", "/files/{done}/", "/files/{done}/x", "/files/{done}.tus", "/files/.tus", "/files/" + "a" * 9000,
    "/files/\xc3\xa9", "/files/\x01", "/files?", "//files", "/files;a",
)  # fmt: skip


class Maker:
    """Makes heads from a seed, the same ones each time."""

    def __init__(self, seed: int | str) -> None:
        self.random = random.Random(seed)

    def head(self) -> Head:
        """Return a head that is right but for a few changes, and seldom one that is nothing but changes."""
        pick = self.random.random
        sound = self.random.choice(SOUND)
        head = Head(sound.method, sound.path, dict(sound.fields), sound.body)
        for _ in range(self.random.randrange(4) if pick() < 0.9 else self.random.randrange(12)):
            self._change(head)
        return head

    def _change(self, head: Head) -> None:
        choose, pick = self.random.choice, self.random.random()
        if pick < 0.45:
            name = choose(NAMES)
            head.fields[name] = choose(FIELDS[name])
        elif pick < 0.55 and head.fields:
            name = choose(list(head.fields))
            head.fields[name] = choose(FIELDS[name])
        elif pick < 0.72 and head.fields:
            name = choose(list(head.fields))
            head.fields[name] = self.bytes_changed(head.fields[name])
        elif pick < 0.79 and head.fields:
            del head.fields[choose(list(head.fields))]
        elif pick < 0.83:
            head.method = choose(METHODS)
        elif pick < 0.89:
            head.path = f"/files/{{{choose(UPLOADS)}}}"
        elif pick < 0.92:
            head.path = choose(PATHS)
        elif pick < 0.95:
            name, other = choose(NAMES), choose(NAMES)
            head.fields[name] = choose(FIELDS[other])
        elif pick < 0.97:
            head.body = choose((b"", b"a", b"abc", b"abcdef", bytes(70), b"a" * 300))
        elif pick < 0.985:
            head.body = self.random.randbytes(self.random.randrange(20))
        else:
            head.path = self.bytes_changed(head.path)

    def bytes_changed(self, text: str) -> str:
        """Return a text with a few changes of its characters."""
        for _ in range(self.random.randrange(1, 4)):
            place = self.random.randrange(len(text) + 1)
            end = min(place + self.random.randrange(1, 5), len(text))
            match self.random.randrange(7):
                case 0:
                    text = text[:place] + text[end:]
                case 1:
                    text = text[:place] + chr(self.random.randrange(256)) + text[place:]
                case 2:
                    text = text[:place] + chr(self.random.randrange(256)) + text[place + 1 :]
                case 3:
                    text = text[:place] + text[place:end] * self.random.choice((2, 3, 40, 2000)) + text[end:]
                case 4:
                    text = text[:place] + self.random.choice(_TOKENS) + text[place:]
                case 5:
                    text = text[:place]
                case 6:
                    text = text[:place] + text[place:].encode("latin-1").swapcase().decode("latin-1")
            text = text[:70_000]
        return text


_TOKENS = (
    '"',
    "'",
    ";",
    ",",
    "=",
    " ",
    "\t",
    "?",
    ":",
    "(",
    ")",
    "*",
    "\\",
    "%",
    "%00",
    "..",
    "/",
    "{",
    "}",
    "\x7f",
    "\xff",
)
