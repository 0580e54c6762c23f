"""What an upload remembers of the request that created it, and the requests that its hand-over makes of that."""

from urllib.parse import quote

import pytest

from tests.support.ietf import PARTIAL
from tests.support.subjects import PATH, AsgiSubject, FilterSubject
from tests.support.wsgi import OCTETS, TUS, call
from tus import Options, Service
from tus.errors import OptionError
from tus.models import Origin, Outcome, Request, Upload
from tus.protocols.origins import Place, origin_of, place_of
from tus.protocols.routing import fill_path, is_under, path_values, route
from tus.server.service import Service as ServerService

FORM = "multipart/form-data; boundary=limit"
PARTS = b'--limit\r\nContent-Disposition: form-data; name="title"\r\n\r\nabc\r\n--limit--\r\n'


@pytest.fixture(params=[FilterSubject, AsgiSubject])
def subject(request, tmp_path):
    return request.param(tmp_file_dir=str(tmp_path))


def offered(subject):
    """What the application was called with last: scheme, host, mount, path, query, method, and its fields."""
    if isinstance(subject, AsgiSubject):
        scope = subject.scope
        fields = {name.decode().title(): value.decode() for name, value in scope["headers"]}
        path = scope["path"].removeprefix(scope["root_path"])
        query = scope["query_string"].decode()
        return scope["scheme"], fields["Host"], scope["root_path"], path, query, scope["method"], fields
    environ = subject.environ
    fields = {
        key.removeprefix("HTTP_").replace("_", "-").title(): value
        for key, value in environ.items()
        if key.startswith(("HTTP_", "CONTENT_"))
    }
    mount, path = (environ[key].encode("latin-1").decode() for key in ("SCRIPT_NAME", "PATH_INFO"))
    return (
        environ["wsgi.url_scheme"],
        fields["Host"],
        mount,
        path,
        environ["QUERY_STRING"],
        environ["REQUEST_METHOD"],
        fields,
    )


def fail_then_offer_alone(subject, url, headers=OCTETS | TUS | {"Upload-Offset": "0"}, **how):
    """The client's last bytes come while the application is down; it gets the file later without the client."""
    subject.fail = "503 Service Unavailable"
    assert call(subject.app, "PATCH", url, headers, b"data", **how).status == 503
    subject.fail = None
    assert [outcome for _, outcome in subject.app.backlog.run(everything=True)] == [Outcome.ACCEPTED]
    return offered(subject)


@pytest.mark.parametrize("mount", ["", "/ärchive"])
def test_an_offer_without_a_client_has_the_scheme_the_host_and_the_mount_of_the_creation(subject, mount):
    wire = {"SCRIPT_NAME": mount.encode().decode("latin-1")}
    subject = type(subject)(**subject.options, upload_path=f"{mount}{PATH}")
    proxied = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "example.org", "X-Forwarded-For": "192.0.2.1"}
    headers = TUS | {"Upload-Length": "4", "Cookie": "secret=1", "Authorization": "Basic x"} | proxied
    reply = call(subject.app, "POST", f"https://example.org:8443{PATH}", headers, environ=wire)
    assert reply["Location"].startswith(f"https://example.org:8443{quote(mount)}{PATH}/")
    upload_id = reply["Location"].rpartition("/")[2]
    # Another Host on the last request, as behind another proxy, changes nothing.
    found = fail_then_offer_alone(subject, f"http://other.example{PATH}/{upload_id}", environ=wire)
    assert found[:6] == ("https", "example.org:8443", mount, f"{PATH}/{upload_id}", "", "PATCH")
    assert (found[6]["X-Forwarded-Proto"], found[6]["X-Forwarded-Host"]) == ("https", "example.org")
    assert {"Cookie", "Authorization", "X-Forwarded-For"}.isdisjoint(found[6])


def test_without_a_known_origin_the_options_and_an_earlier_request_name_the_host(subject):
    upload = subject.app.service.create_upload(length=4)
    found = fail_then_offer_alone(subject, f"http://seen.example{PATH}/{upload.id}")
    assert found[:2] == ("http", "localhost" if isinstance(subject, AsgiSubject) else "seen.example")
    based = type(subject)(**subject.options, base_url="https://public.example/prefix", name="based")
    upload = based.app.service.create_upload(length=4)
    assert fail_then_offer_alone(based, f"{PATH}/{upload.id}")[:2] == ("https", "public.example")


def test_place_of():
    origin = Origin("https://a.example/x%20y/files/", mount="/x y", headers=(("X-Forwarded-Proto", "https"),))
    known = place_of(Upload(origin=origin), "/files", "http://b.example/")
    assert known == Place("https", "a.example", "/x y/files/", "/x y", origin.headers)
    assert place_of(Upload(), "/files", "http://b.example/p") == Place("http", "b.example", "/files", None)
    assert place_of(Upload(), "/files", "") == Place("", "", "/files", None)
    malformed = place_of(Upload(origin=Origin("http://[::1/files")), "/files", "")
    assert (malformed.host, malformed.path) == ("[::1", "/files")


def test_an_origin_keeps_no_secret_and_not_too_much():
    fields = {"Cookie": "a", "Authorization": "b", "X-Forwarded-Proto": "https", "Content-Type": "image/png"}
    request = Request("PUT", "http://a.example/files", fields, query="token=1", mount="/m")
    assert origin_of(request) == Origin("http://a.example/files", "POST", "/m", (("X-Forwarded-Proto", "https"),))
    original = origin_of(request, is_original=True)
    assert (original.url, original.method) == ("http://a.example/files?token=1", "PUT")
    assert original.headers == (("X-Forwarded-Proto", "https"), ("Content-Type", "image/png"))


def test_a_creation_with_too_long_a_description_is_refused(subject):
    fields = {"Upload-Complete": "?0", "Upload-Draft-Interop-Version": "9", "Content-Location": "/" + "a" * (17 << 10)}
    assert call(subject.app, "POST", PATH, fields, b"ab").status == 431


# -- The original request -----------------------------------------------------------------------------------------


def test_a_form_that_was_interrupted_parses_as_a_form(subject):
    ietf = {"Upload-Draft-Interop-Version": "9"}
    creation = ietf | {"Upload-Complete": "?1", "Content-Type": FORM, "Upload-Length": str(len(PARTS))}
    subject = type(subject)(**subject.options, send_file=False)
    cut = call(subject.app, "POST", f"{PATH}?a=1", creation, PARTS[:30], length=len(PARTS))
    location = cut.get("Location")
    if location is None:  # the ASGI server tells that the client has gone, so nothing was answered
        location = f"{PATH}/{next(iter(subject.stored().list())).id}"
    rest = ietf | {"Upload-Complete": "?1", "Content-Type": PARTIAL, "Upload-Offset": "30"}
    reply = call(subject.app, "PATCH", location, rest, PARTS[30:])
    assert reply.status == 200
    _, _, _, path, query, method, fields = offered(subject)
    assert (path, query, method) == (PATH, "a=1", "POST")
    assert (fields["Content-Type"], fields["Content-Length"]) == (FORM, str(len(PARTS)))
    assert not [name for name in fields if name.startswith("Upload-")]
    assert subject.landed[-1][1] == PARTS, "the file itself, whatever send_file says"


def test_the_original_request_is_offered_without_a_client_too(subject):
    ietf = {"Upload-Draft-Interop-Version": "9"}
    creation = ietf | {"Upload-Complete": "?0", "Content-Type": FORM, "Content-Disposition": "attachment"}
    reply = call(subject.app, "PUT", f"http://example.org{PATH}?a=1", creation, b"")
    assert reply.status == 201
    last = ietf | {"Upload-Complete": "?1", "Content-Type": PARTIAL, "Upload-Offset": "0"}
    scheme, host, _, path, query, method, fields = fail_then_offer_alone(subject, reply["Location"], last)
    assert (scheme, host, path, query, method) == ("http", "example.org", PATH, "a=1", "PUT")
    assert (fields["Content-Type"], fields["Content-Disposition"], fields["Content-Length"]) == (
        FORM,
        "attachment",
        "4",
    )


def test_the_raw_target_of_a_server_is_that_of_the_original_request(tmp_path):
    subject = FilterSubject(tmp_file_dir=str(tmp_path))
    ietf = {"Upload-Draft-Interop-Version": "9"}
    reply = call(subject.app, "POST", f"{PATH}?a=1", ietf | {"Upload-Complete": "?0"}, b"")
    last = ietf | {"Upload-Complete": "?1", "Content-Type": PARTIAL, "Upload-Offset": "0"}
    raw = {"RAW_URI": "/files/x?b=2", "REQUEST_URI": "/files/x?b=2"}
    assert call(subject.app, "PATCH", reply["Location"], last, b"data", environ=raw).status == 200
    assert (subject.environ["RAW_URI"], subject.environ["REQUEST_URI"]) == ("/files?a=1",) * 2


# -- Names in the upload path -------------------------------------------------------------------------------------

PATTERN = "/users/{user}/photos"


@pytest.mark.parametrize(
    ("path", "is_match"),
    [
        ("/users/7/photos", True),
        ("/users/a b/photos", True),
        ("/users//photos", False),
        ("/users/7/8/photos", False),
        ("/users/7/photo", False),
        ("/x/users/7/photos", False),
        ("/users/7/photos/more", False),
    ],
)
def test_a_name_matches_one_segment(path, is_match):
    url = f"http://localhost{quote(path)}"
    assert (route(url, "POST", PATTERN).upload_id is None) == is_match
    assert (route(f"{url}/{'a' * 32}", "PATCH", PATTERN).upload_id == "a" * 32) == is_match
    assert is_under(path, PATTERN) == (is_match or path.endswith("more"))


def test_values():
    assert path_values("/users/7/photos/" + "a" * 32, PATTERN) == {"user": "7"}
    assert path_values("/files", "/files") == {}
    assert fill_path(PATTERN, {"user": "7"}) == "/users/7/photos"
    for wrong in ({}, {"user": ""}, {"user": "a/b"}, {"user": "7", "more": "8"}):
        with pytest.raises(ValueError, match="path_values"):
            fill_path(PATTERN, wrong)


@pytest.mark.parametrize("path", ["/users/x{user}", "/{a}/{a}", "/{}", "/{1a}", "/users/{user", "/users/user}"])
def test_a_bad_pattern_is_refused_at_start(path):
    with pytest.raises(OptionError, match="names in braces"):
        Options.build(tmp_file_dir="x", upload_path=path)


def test_the_values_reach_authorize_and_the_application(tmp_path, subject):
    asked = []

    def authorize(request, intent, upload):
        asked.append((str(intent), dict(request.path_values)))

    subject = type(subject)(tmp_file_dir=str(tmp_path), upload_path=PATTERN, authorize=authorize)
    reply = call(subject.app, "POST", "/users/7/photos", TUS | {"Upload-Length": "4"})
    url = reply["Location"]
    assert url.startswith("http://localhost/users/7/photos/")
    fields = OCTETS | TUS | {"Upload-Offset": "0"}
    foreign = url.replace("/users/7/", "/users/8/")
    assert call(subject.app, "PATCH", foreign, fields, b"data").status == 404
    assert call(subject.app, "HEAD", foreign, TUS).status == 404
    assert asked == [("create", {"user": "7"}), ("append", {"user": "8"}), ("head", {"user": "8"})]
    assert call(subject.app, "PATCH", url, fields, b"data").status == 204
    assert asked[3:] == [("append", {"user": "7"})]
    seen = subject.scope if isinstance(subject, AsgiSubject) else subject.environ
    assert seen["tus.path_values"] == {"user": "7"}
    assert subject.landed[0][0].origin.path_values == {"user": "7"}
    assert call(subject.app, "POST", "/users/7/other", {}, b"x").body == b"the application's own page"
    assert subject.record(url).service == PATTERN


def test_code_of_the_site_creates_and_finds_such_uploads(tmp_path):
    service = Service(tmp_file_dir=str(tmp_path), upload_path=PATTERN, base_url="https://a.example", threads=False)
    assert isinstance(service, ServerService)
    upload = service.create_upload(length=4, path_values={"user": 7})
    url = service.url_of(upload)
    assert url == f"https://a.example/users/7/photos/{upload.id}"
    assert service.find(url).id == upload.id
    assert service.find(f"https://a.example/photos/{upload.id}") is None
    with pytest.raises(ValueError, match="path_values"):
        service.create_upload(length=4)
    service.close()
