"""Header fields, value by value."""

import time
from base64 import b64encode

import pytest

from tus.errors import BadRequest
from tus.http import conditions, disposition, structured
from tus.http.disposition import parse_filename
from tus.http.filenames import add_suffix, safe_filename
from tus.http.headers import (
    http_date,
    media_type,
    number_in,
    parse_checksum,
    parse_concat,
    parse_integer,
    parse_metadata,
)


@pytest.mark.parametrize(
    ("value", "number"), [("0", 0), ("7", 7), ("007", 7), ("9223372036854775807", 2**63 - 1), ("0" * 19, 0)]
)
def test_integers(value, number):
    assert parse_integer("X", value) == number


@pytest.mark.parametrize(
    "value",
    [
        "",
        " ",
        "-1",
        "+1",
        "1 ",
        " 1",
        "1.0",
        "0x1",
        "1,1",
        "1, 2",
        "1e3",
        "1_0",
        "\u0661",
        "\u00b2",
        "9223372036854775808",
    ]
    + ["9" * 20, "9" * 10_000, "abc", "1\n", "1\0", "None", "inf"],
)
def test_what_is_no_integer(value):
    with pytest.raises(BadRequest, match=r"^X must be"):
        parse_integer("X", value)


@pytest.mark.parametrize(
    ("value", "metadata"),
    [
        ("", {}),
        ("  ", {}),
        ("a", {"a": b""}),
        ("a ", {"a": b""}),
        ("a YQ==", {"a": b"a"}),
        ("a YQ==,b", {"a": b"a", "b": b""}),
        ("b,a YQ==", {"b": b"", "a": b"a"}),
        ("a YQ== , b Yg==", {"a": b"a", "b": b"b"}),
        ("x //79", {"x": b"\xff\xfe\xfd"}),
        ("k\xe4y YQ==", {"k\xe4y": b"a"}),
        ("!#$%&'()*+-./:;<=>?@[]^_`{|}~ YQ==", {"!#$%&'()*+-./:;<=>?@[]^_`{|}~": b"a"}),
        ("n AA0KAA==", {"n": b"\0\r\n\0"}),
    ],
)
def test_metadata(value, metadata):
    assert parse_metadata(value) == metadata
    assert list(parse_metadata(value)) == list(metadata)


@pytest.mark.parametrize(
    "value",
    [",", "a,", ",a", "a,,b", "a a,a b", "a,a", "a YQ", "a Y", "a Y===", "a YQ==x", "a YQ==YQ==", "a Y Q==", "a -_-_"]
    + ["a YWJj=", "a YWJj==", "a =", "a ====", "a YR==", "a YWK=", "a YWJj\n", "a YQ=a", "a YQ.=="],
)
def test_bad_metadata(value):
    with pytest.raises(BadRequest, match="Upload-Metadata"):
        parse_metadata(value)


def test_checksums():
    sizes = {"sha1": 20, "crc32": 4}
    digest = bytes(range(20))
    assert parse_checksum("sha1 " + b64encode(digest).decode(), sizes) == ("sha1", digest)
    assert parse_checksum("crc32 AAAAAA==", sizes) == ("crc32", bytes(4))


@pytest.mark.parametrize(
    "value",
    [
        "",
        "sha1",
        "sha1 ",
        " sha1 YQ==",
        "sha1 YQ==",
        "SHA1 " + "A" * 27 + "=",
        "md5 YQ==",
        "sha1 " + "A" * 28,
        "crc32 AAAAAA",
        "crc32 AAAAAB==",
        "crc32 AAAAAA===",
        "crc32 AAAA AA==",
        "crc96 AAAAAAAAAAAAAAAA=",
    ],
)
def test_bad_checksums(value):
    with pytest.raises(BadRequest, match="Upload-Checksum"):
        parse_checksum(value, {"sha1": 20, "crc32": 4, "crc96": 12})


def test_concatenations():
    assert parse_concat("partial") is None
    assert parse_concat("final;/a /b") == ("/a", "/b")
    assert parse_concat("final;  /a   http://x/b ") == ("/a", "http://x/b")


@pytest.mark.parametrize(
    "value", ["", "final", "final;", "final; ", "Partial", "partial ", "partial;", "FINAL;/a", "x;/a"]
)
def test_bad_concatenations(value):
    with pytest.raises(BadRequest, match="Upload-Concat"):
        parse_concat(value)


def test_media_types_and_dates():
    assert media_type("Application/X; charset=y") == "application/x"
    assert media_type("") == ""
    assert http_date(784111777) == "Sun, 06 Nov 1994 08:49:37 GMT"


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("a.txt", "a.txt"),
        ("Ünï cödé 文.txt", "Ünï cödé 文.txt"),
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\x\\a.doc", "a.doc"),
        ("/abs/olute/", "olute"),
        ("a/..", "default"),
        ("..", "default"),
        (".", "default"),
        ("", "default"),
        ("...", "default"),
        (".tus", "tus"),
        (".bashrc", "bashrc"),
        (" a ", "a"),
        ("a.txt.", "a.txt"),
        ("a\r\nb\0c\x7f.txt", "abc.txt"),
        ("a\u202etxt.exe", "atxt.exe"),
        ("a\u200bb", "ab"),
        ('a<b>c:d"e|f?g*h', "abcdefgh"),
        ("CON", "_CON"),
        ("nul.txt", "_nul.txt"),
        ("con.tar.gz", "_con.tar.gz"),
        ("console.txt", "console.txt"),
        ("e\u0301.txt", "é.txt"),
        ("\ud800bad", "bad"),
    ],
)
def test_file_names(name, safe):
    assert safe_filename(name, default="default") == safe


@pytest.mark.parametrize(
    "name", ["x" * 1000 + ".tar", "文" * 500 + ".txt", "a." + "x" * 1000, "." * 1000 + "y" * 300, "😀" * 99]
)
def test_long_file_names_are_cut_and_keep_their_extension(name):
    safe = safe_filename(name, default="default")
    assert 1 <= len(safe.encode()) <= 200
    assert "\ufffd" not in safe
    if name.endswith((".tar", ".txt")):
        assert safe.endswith(name[-4:])


@pytest.mark.parametrize(
    ("name", "size", "suffixed"),
    [
        ("film.mp4", 255, "film-3f2a9c.mp4"),
        ("film", 255, "film-3f2a9c"),
        ("film.of a very long extension", 255, "film.of a very long extension-3f2a9c"),
        ("n" * 99 + ".mp4", 64, "n" * 53 + "-3f2a9c.mp4"),
        ("\u00fc" * 60 + ".mp4", 64, "\u00fc" * 26 + "-3f2a9c.mp4"),
    ],
)
def test_a_suffix_is_added_before_the_extension(name, size, suffixed):
    assert add_suffix(name, "-3f2a9c", size) == suffixed
    assert len(suffixed.encode()) <= size


@pytest.mark.parametrize("timestamp", [253402300799, 253402300800.5, 1e300, 10**40])
def test_the_last_year_of_a_date(timestamp):
    assert http_date(timestamp) == "Fri, 31 Dec 9999 23:59:59 GMT"


@pytest.mark.parametrize(
    "text", [None, "", "-1", "1 ", "9" * 20, "9" * 4301, "\u0661", "\u00b2", "9223372036854775808"]
)
def test_what_holds_no_number(text):
    assert number_in(text) is None


def test_a_number():
    assert (number_in("0"), number_in("9223372036854775807")) == (0, 2**63 - 1)


@pytest.mark.parametrize(
    "field",
    [
        "attachment; filename*=utf-7''%2B2AA-",
        "attachment; filename*=utf-16''a",
        "attachment; filename*=idna''a",
        "attachment; filename*=unicode_escape''%5cud800",
        "attachment; filename*=rot13''a",
        "attachment; filename*=hex''a",
        "attachment; filename*=zlib''a",
        "attachment; filename*=utf-8''%ff%fe",
        "attachment; filename*=utf-8''\xe9",
        "attachment; filename*=utf-8",
        "attachment; filename*=''a",
    ],
)
def test_other_character_sets_and_bad_bytes_are_no_name(field):
    assert parse_filename(field) == ""
    assert parse_filename(field + "; filename=plain.txt") == "plain.txt"


def test_a_disposition_is_read_in_one_pass():
    began = time.process_time()
    for field in (";" * 60_000, "a" + ";a" * 30_000, 'a;b="' + "\\\\" * 30_000, "a; " + " " * 60_000, "=;=" * 20_000):
        assert parse_filename(field) == ""
        assert disposition._parameters(field) is not None, "the bound is not what makes it fast"
    assert time.process_time() - began < 5


def test_a_disposition_has_a_longest_form():
    assert parse_filename("a;" + " " * disposition.LONGEST + "filename=b") == ""
    assert parse_filename('a; x="' + "y" * 7000 + '"; filename=b') == "b"


@pytest.mark.parametrize(
    "field", ["9" * 16, "9" * 4301, "-1", "1.5", "?1", "", "\u20ac", "(" * 9000, '"' + "a" * 9000 + '"']
)
def test_what_is_no_count_in_a_structured_field(field):
    assert structured.parse_count(field) is None


def test_a_parser_of_others_may_raise_anything(monkeypatch):
    def fail(*arguments, **others):
        raise RecursionError

    monkeypatch.setattr(structured.http_sf, "parse", fail)
    assert structured.parse_boolean("?1") is None
    monkeypatch.setattr(conditions, "parsedate_to_datetime", fail)
    assert conditions.parse_date("Mon, 01 Jan 2001 00:00:00 GMT") is None
