"""What a browser's pages may read and send."""

import pytest

from tests.support.subjects import REJECTS, SUBJECTS, FilterSubject
from tests.support.wsgi import call
from tus.errors import OptionError
from tus.http.origins import matches, parse
from tus.options import Options
from tus.protocols import cors

PAGE = {"Origin": "https://page.example"}
PREFLIGHT = PAGE | {"Access-Control-Request-Method": "PATCH", "Access-Control-Request-Headers": "upload-offset"}


@pytest.fixture(params=SUBJECTS)
def make(request, tmp_path):
    return lambda **options: request.param(tmp_file_dir=str(tmp_path), **options)


def test_nothing_is_allowed_unless_asked_for(make):
    subject = make()
    for reply in (subject.create(4, PAGE), call(subject.app, "OPTIONS", "/files", PREFLIGHT)):
        assert not [name for name in reply.headers if name.startswith("access-control") or name == "vary"]


@pytest.mark.parametrize("allowed", ["*", "https://page.example", "https://other.example, https://page.example"])
def test_a_preflight_is_answered_without_being_asked_who_it_is(make, allowed):
    reply = call(make(cors_allow_origin=allowed).app, "OPTIONS", "/files", PREFLIGHT)
    assert reply.status == 200
    assert reply["Access-Control-Allow-Origin"] == ("*" if allowed == "*" else "https://page.example")
    assert {"POST", "PATCH", "HEAD", "DELETE"} <= set(reply["Access-Control-Allow-Methods"].split(", "))
    assert reply["Access-Control-Max-Age"] == "86400"
    headers = set(reply["Access-Control-Allow-Headers"].lower().split(", "))
    assert {"upload-length", "upload-offset", "tus-resumable", "upload-metadata", "upload-defer-length"} <= headers
    assert {"upload-concat", "upload-checksum", "content-type", "authorization", "x-http-method-override"} <= headers
    assert {"x-request-id", "x-requested-with", "upload-complete", "content-disposition", "repr-digest"} <= headers


def test_every_reply_can_be_read_errors_too(make):
    subject = make(cors_allow_origin="https://page.example")
    url = subject.url(4)
    replies = [
        subject.create(4, PAGE),
        subject.create(-4, PAGE),
        subject.head(url, PAGE),
        subject.patch(url, 9, b"x", PAGE),
        subject.patch(url, 0, b"abcdef", PAGE),
        subject.send("POST", headers=PAGE | {"Tus-Resumable": "9"}),
        subject.head("/files/" + "0" * 32, PAGE),
        subject.patch(url, 0, b"abcd", PAGE),
        subject.send("DELETE", url, PAGE),
        subject.send("PUT", url, PAGE),
    ]
    assert [reply.status for reply in replies] == [201, 400, 200, 409, 413, 412, 404, 204, 204, 405]
    for reply in replies:
        assert reply["Access-Control-Allow-Origin"] == "https://page.example"
        assert reply["Vary"] == "Origin"
        assert {"Upload-Offset", "Location", "Tus-Resumable", "Upload-Expires", "Upload-Metadata"} <= set(
            reply["Access-Control-Expose-Headers"].split(", ")
        )


def test_other_origins_get_nothing_and_caches_keep_them_apart(make):
    subject = make(cors_allow_origin="https://page.example")
    for headers in ({"Origin": "https://evil.example"}, {"Origin": "https://page.example.evil"}, {}):
        reply = subject.create(4, headers)
        assert reply.get("Access-Control-Allow-Origin") is None
        assert reply["Vary"] == "Origin"


def test_credentials_only_when_asked_for(make):
    assert make(cors_allow_origin="*").create(4, PAGE).get("Access-Control-Allow-Credentials") is None
    subject = make(cors_allow_origin="https://page.example", cors_allow_credentials=True)
    assert subject.create(4, PAGE)["Access-Control-Allow-Credentials"] == "true"
    assert subject.create(4, {"Origin": "https://x.example"}).get("Access-Control-Allow-Credentials") is None


def test_an_application_that_cares_itself_is_left_alone(tmp_path):
    subject = SUBJECTS[0](tmp_file_dir=str(tmp_path), cors_allow_origin="*")

    def application(environ, start_response):
        start_response(
            "403 Forbidden", [("Content-Type", "text/plain"), ("Access-Control-Allow-Origin", "https://mine")]
        )
        return [b"no"]

    subject.app._app = application
    reply = subject.create(0, PAGE)
    assert (reply.status, reply["Access-Control-Allow-Origin"]) == (403, "https://mine")

    def careless(environ, start_response):
        start_response("403 Forbidden", [("Content-Type", "text/plain")])
        return [b"no"]

    subject.app._app = careless
    reply = subject.create(0, PAGE)
    assert (reply.status, reply["Access-Control-Allow-Origin"]) == (403, "*")


def test_the_lists_name_no_header_twice():
    for names in (cors.REQUEST_HEADERS.split(", "), cors.EXPOSED_HEADERS.split(", ")):
        assert len(names) == len(set(names))


# -- Origins ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("allowed", "origin"),
    [
        ("https://example.org", "https://example.org"),
        ("https://Example.org:443/", "https://example.org"),
        ("http://localhost:3000", "http://localhost:3000"),
        ("http://[::1]:3000", "http://[::1]:3000"),
        ("https://*.example.org", "https://a.example.org"),
        ("https://*.example.org", "https://a.b.example.org"),
        ("https://*.example.org:8443", "https://a.example.org:8443"),
        ("https://*.example.org:443", "https://a.example.org"),
        ("https://app.*.example.org", "https://app.pr-7.example.org"),
        ("http://*.localhost:3000", "http://shop.localhost:3000"),
        ("capacitor://localhost", "capacitor://localhost"),
        ("null", "null"),
    ],
)
def test_an_origin_matches(allowed, origin):
    assert matches(origin, (parse(allowed),))


@pytest.mark.parametrize(
    ("allowed", "origin"),
    [
        ("https://example.org", "http://example.org"),
        ("https://example.org", "https://example.org:8443"),
        ("https://example.org", "https://example.org.evil.example"),
        ("https://example.org", "https://exampleXorg"),
        ("https://*.example.org", "https://example.org"),
        ("https://*.example.org", "https://evilexample.org"),
        ("https://*.example.org", "https://.example.org"),
        ("https://*.example.org", "https://a..example.org"),
        ("https://*.example.org", "https://a.exampleXorg"),
        ("https://*.example.org", "https://a.example.org.evil.example"),
        ("https://*.example.org", "http://a.example.org"),
        ("https://*.example.org", "https://a.example.org:8443"),
        ("https://*.example.org:8443", "https://a.example.org"),
        ("https://*.example.org", "https://evil.example/.example.org"),
        ("https://*.example.org", "https://evil.example#.example.org"),
        ("https://*.example.org", "https://evil.example\n.example.org"),
        ("https://*.example.org", "https://user@a.example.org"),
        ("https://*.example.org", "https://*.example.org"),
        ("https://*.example.org", "https://a.example.org, https://evil.example"),
        ("https://app.*.example.org", "https://app.a.b.example.org"),
        ("https://app.*.example.org", "https://app.example.org"),
        ("https://app.*.example.org", "https://x.app.a.example.org"),
        ("https://example.org", "null"),
        ("https://example.org", "*"),
    ],
)
def test_an_origin_does_not_match(allowed, origin):
    assert not matches(origin, (parse(allowed),))


@pytest.mark.parametrize(
    "text",
    [
        *("https://*", "https://a.*", "https://*example.org", "https://a*.example.org", "https://*.*.example.org"),
        *("https://example.org:*", "*://example.org", "https://*.example.org/path", "http*://a.example.org", "**"),
    ],
)
def test_what_is_no_origin(text):
    with pytest.raises(OptionError, match="cors_allow_origin"):
        Options.build(tmp_file_dir="x", cors_allow_origin=text)


def test_a_pattern_allows_an_origin(make):
    subject = make(cors_allow_origin="https://*.example https://x.example.org")
    reply = subject.create(4, PAGE)
    assert (reply["Access-Control-Allow-Origin"], reply["Vary"]) == ("https://page.example", "Origin")
    refused = subject.create(4, {"Origin": "https://pageXexample"})
    assert (refused.get("Access-Control-Allow-Origin"), refused["Vary"]) == (None, "Origin")


def test_a_function_decides(make):
    asked = []

    def allows(origin):
        asked.append(origin)
        return origin == "https://page.example"

    subject = make(cors_allow_origin=allows, cors_allow_credentials=True)
    reply = subject.create(4, PAGE)
    assert (reply["Access-Control-Allow-Origin"], reply["Vary"]) == ("https://page.example", "Origin")
    assert call(subject.app, "OPTIONS", "/files", PREFLIGHT)["Access-Control-Allow-Credentials"] == "true"
    refused = subject.create(4, {"Origin": "https://evil.example"})
    assert (refused.get("Access-Control-Allow-Origin"), refused["Vary"]) == (None, "Origin")
    subject.create(4)
    subject.create(4, {"Origin": "https://a, https://b"})
    assert asked == ["https://page.example", "https://page.example", "https://evil.example"]


def _raise(origin):
    raise RuntimeError("the database is away")


@pytest.mark.parametrize("allows", [_raise, lambda origin: "yes", lambda origin: None, lambda origin: 1])
def test_in_doubt_a_function_refuses(make, allows, caplog):
    """The request itself succeeds, because it may be done already."""
    reply = make(cors_allow_origin=allows).create(4, PAGE)
    assert (reply.status, reply.get("Access-Control-Allow-Origin")) == (201, None)
    assert "cors_allow_origin" in caplog.text


def test_a_function_cannot_be_async():
    async def allows(origin):
        return True

    for build in (Options.build, Options.build_async):
        with pytest.raises(OptionError, match="async"):
            build(tmp_file_dir="x", cors_allow_origin=allows)


def test_null_is_refused_with_credentials(make, caplog):
    """Pages of any site can have this origin."""
    null = {"Origin": "null"}
    assert make(cors_allow_origin="null").create(4, null)["Access-Control-Allow-Origin"] == "null"
    with pytest.raises(OptionError, match="null"):
        Options.build(tmp_file_dir="x", cors_allow_origin="https://a.example null", cors_allow_credentials=True)
    subject = make(cors_allow_origin=lambda origin: True, cors_allow_credentials=True)
    assert subject.create(4, null).get("Access-Control-Allow-Origin") is None
    assert "null" in caplog.text
    assert subject.create(4, PAGE)["Access-Control-Allow-Origin"] == "https://page.example"


# -- Names --------------------------------------------------------------------------------------------------------


def test_names_of_the_site_are_added(make):
    options = {"cors_allow_headers": "X-CSRFToken, upload-offset", "cors_expose_headers": "X-Cost location"}
    subject = make(cors_allow_origin="*", cors_max_age="10m", **options)
    preflight = call(subject.app, "OPTIONS", "/files", PREFLIGHT)
    assert preflight["Access-Control-Allow-Headers"] == cors.REQUEST_HEADERS + ", X-CSRFToken"
    assert preflight["Access-Control-Max-Age"] == "600"
    for reply in (subject.create(4, PAGE), subject.create(-4, PAGE)):
        assert reply["Access-Control-Expose-Headers"] == cors.EXPOSED_HEADERS + ", X-Cost"


def test_names_that_an_application_exposes_are_kept(tmp_path):
    subject = FilterSubject(tmp_file_dir=str(tmp_path), cors_allow_origin="*", cors_expose_headers="X-Cost")
    subject.fields = [
        *[("Content-Type", "text/plain"), ("X-File-Id", "17"), ("Access-Control-Allow-Origin", "https://mine")],
        *[("Access-Control-Expose-Headers", "X-File-Id, location, not a name,"), ("Vary", "Accept, origin")],
    ]
    reply = subject.create(2, PAGE, b"hi")
    assert (reply.status, reply["X-File-Id"], reply["Access-Control-Allow-Origin"]) == (201, "17", "*")
    assert reply["Access-Control-Expose-Headers"] == cors.EXPOSED_HEADERS + ", X-Cost, X-File-Id"
    assert subject.patch(reply["Location"], 2, b"", PAGE)["Access-Control-Expose-Headers"].endswith("X-File-Id")
    subject.fail = "403 Forbidden"
    subject.fields[2:3] = [REJECTS]
    reply = subject.create(2, PAGE, b"hi")
    assert reply["Access-Control-Expose-Headers"].endswith("X-Cost, X-File-Id")


def test_vary_is_not_repeated(tmp_path):
    subject = FilterSubject(tmp_file_dir=str(tmp_path), cors_allow_origin="https://page.example")
    subject.fields += [("Vary", "Accept, origin")]
    assert subject.create(2, PAGE, b"hi")["Vary"] == "Accept, origin"


@pytest.mark.parametrize("name", ["cors_allow_headers", "cors_expose_headers"])
def test_browsers_ignore_a_star_with_credentials(name):
    options = {"tmp_file_dir": "x", "cors_allow_origin": "https://a.example", name: "*"}
    Options.build(**options)
    with pytest.raises(OptionError, match=name):
        Options.build(**options, cors_allow_credentials=True)


def test_the_names_for_middleware_of_frameworks():
    import tus.cors

    assert ", ".join(tus.cors.METHODS) == cors.METHODS
    assert ", ".join(tus.cors.REQUEST_HEADERS) == cors.REQUEST_HEADERS
    assert ", ".join(tus.cors.EXPOSED_HEADERS) == cors.EXPOSED_HEADERS
