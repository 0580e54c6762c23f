"""``tus import`` on directories that tuswsgi 0.5.5, plone.restapi 10.0.4 and tusd have written (``foreign/``)."""

from __future__ import annotations

import base64
import errno
import fcntl
import json
import os
import shutil
import stat
import time
from pathlib import Path

import pytest

from tests.support.importing import run_import
from tests.support.users import SERVER, needs_root, own_directory, public  # noqa: F401
from tests.support.wsgi import OCTETS, TUS, call
from tus.cli import import_ as importing
from tus.errors import UploadNotFound
from tus.filter import Filter
from tus.models import State
from tus.stores.directory.store import DirectoryStore

FOREIGN = Path(__file__).parent / "foreign"
BODY = b"resumable uploads"
HALF = 9
NAME = "naïve ½ файл.bin"
METADATA = f"filename {base64.b64encode(NAME.encode()).decode()},type YmluYXJ5"
FORMATS = ("tuswsgi", "plone", "tusd")
TAKEN = {
    "tuswsgi": {"half", "new", "deferred", "half_part", "whole_part"},
    "plone": {"half", "new"},
    "tusd": {"half", "new", "deferred", "half_part", "whole_part"},
}


class Site:
    """A directory of another program, and where its uploads are to go."""

    def __init__(self, program: str, base: Path):
        self.program = program
        self.ids = json.loads((FOREIGN / f"{program}.json").read_text())
        self.directory = base / "uploads"
        shutil.copytree(FOREIGN / program, self.directory)

    def run(self, *arguments):
        return run_import(self.directory, "--from", self.program, *arguments)

    def data(self, role: str) -> Path:
        prefix = "tus_upload_" if self.program == "plone" else ""
        return self.directory / f"{prefix}{self.ids[role]}"

    def record(self, role: str) -> Path:
        data = self.data(role)
        return data.with_name(data.name + (".json" if self.program == "plone" else ".info"))

    def change(self, role: str, **fields):
        record = self.record(role)
        record.write_text(json.dumps(json.loads(record.read_text()) | fields))


@pytest.fixture(params=FORMATS)
def site(request, tmp_path):
    return Site(request.param, tmp_path)


@pytest.fixture
def tusd(tmp_path):
    return Site("tusd", tmp_path)


def contents(directory: Path) -> dict[str, bytes]:
    """Every regular file, by its name, except what this package has for itself."""
    files = (path for path in sorted(directory.rglob("*")) if path.is_file() and not path.is_symlink())
    return {str(path.relative_to(directory)): path.read_bytes() for path in files if not path.name.startswith(".tus-")}


def no_links(monkeypatch, error=errno.EXDEV):
    """Data cannot be linked, as on another file system."""
    link = os.link

    def refuse(source, target, **how):
        if not Path(source).name.startswith(".tus-"):
            raise OSError(error, os.strerror(error))
        link(source, target, **how)

    monkeypatch.setattr(os, "link", refuse)


class Taking:
    def __init__(self):
        self.taken = {}

    def __call__(self, environ, start_response):
        body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
        self.taken[environ["tus.upload"].id] = Path(os.fsdecode(body)).read_bytes()
        start_response("200 OK", [("Content-Type", "text/plain")])
        return []


def patch(app, upload_id, body, offset, **headers):
    return call(app, "PATCH", f"/files/{upload_id}", TUS | OCTETS | {"Upload-Offset": str(offset)} | headers, body)


def assert_taken(store: DirectoryStore, site: Site) -> None:
    """Everything that is unfinished is there, with all that a client knows of it."""
    assert {upload.id for upload in store.list()} == {site.ids[role] for role in TAKEN[site.program]}
    extra = ",mode Y3JlYXRl" if site.program == "plone" else ""
    half, new = store.load(site.ids["half"]), store.load(site.ids["new"])
    assert (half.offset, half.length, half.state) == (HALF, len(BODY), State.RECEIVING)
    assert (half.raw_metadata, half.concat, half.parts) == (METADATA + extra, None, ())
    assert half.filename == NAME
    assert Path(half.path).read_bytes() == BODY[:HALF]
    assert (new.offset, new.length, new.raw_metadata) == (0, len(BODY), "filename YS5iaW4=" + extra)
    assert Path(new.path).read_bytes() == b""
    if site.program != "plone":
        deferred, part, whole = (store.load(site.ids[role]) for role in ("deferred", "half_part", "whole_part"))
        assert (deferred.offset, deferred.length, deferred.concat) == (HALF, None, None)
        assert (part.offset, part.length, part.concat) == (HALF, len(BODY), "partial")
        assert (whole.offset, whole.state, whole.concat) == (len(BODY), State.COMPLETE, "partial")


# -- What is taken ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["in place", "moved", "copied"])
def test_uploads_go_on(site, tmp_path, where, monkeypatch):
    store = site.directory if where == "in place" else tmp_path / "store"
    if where == "copied":
        no_links(monkeypatch)
    before = contents(site.directory)
    status, output, errors = site.run(*(["--into", store] if where != "in place" else []))
    assert (status, errors) == (0, "")
    left = len(site.ids) - len(TAKEN[site.program])
    size = 2 * HALF + HALF + len(BODY) if site.program != "plone" else HALF
    assert output.splitlines()[-1] == f"{len(TAKEN[site.program])} imported ({size} bytes), {left} left, 0 failed"
    assert_taken(DirectoryStore(str(store)), site)
    for role in TAKEN[site.program]:
        assert not site.record(role).exists()
        assert site.record(role).with_name(site.record(role).name + ".imported").exists()
    if where == "copied":
        after = contents(site.directory)
        assert {name.removesuffix(".imported"): data for name, data in after.items()} == before

    app = Filter(taking := Taking(), upload_path="/files", tmp_file_dir=str(store))
    assert patch(app, site.ids["half"], BODY[HALF:], HALF).status == 204
    assert patch(app, site.ids["new"], BODY, 0).status == 204
    expected = {site.ids["half"]: BODY, site.ids["new"]: BODY}
    if site.program != "plone":
        length = {"Upload-Length": str(len(BODY))}
        assert patch(app, site.ids["deferred"], BODY[HALF:], HALF, **length).status == 204
        parts = " ".join(f"/files/{site.ids[role]}" for role in ("whole_part", "half_part"))
        reply = call(app, "POST", "/files", TUS | {"Upload-Concat": f"final;{parts}"})
        assert patch(app, site.ids["half_part"], BODY[HALF:], HALF).status == 204
        expected |= {site.ids["deferred"]: BODY, reply["Location"].rpartition("/")[2]: BODY + BODY}
    assert taking.taken == expected


def test_only_what_is_unfinished_is_touched(site):
    before = contents(site.directory)
    _, output, _ = site.run()
    after = contents(site.directory)
    for role in site.ids.keys() - TAKEN[site.program]:
        assert f"left: {site.ids[role]}: it is finished" in output
        for path in (site.data(role), site.record(role)):
            assert after[path.name] == before[path.name]
    assert sum(name.endswith(".tus") for name in after) == len(TAKEN[site.program])


def test_twice_is_harmless(site):
    site.run()
    before = contents(site.directory)
    status, output, errors = site.run()
    assert (status, errors) == (0, "")
    assert output.splitlines()[-1].startswith("0 imported (0 bytes)")
    assert contents(site.directory) == before


def test_again_after_the_client_went_on(site):
    records = {role: site.record(role).read_bytes() for role in TAKEN[site.program]}
    site.run()
    app = Filter(Taking(), upload_path="/files", tmp_file_dir=str(site.directory))
    patch(app, site.ids["half"], BODY[HALF:-1], HALF)
    patch(app, site.ids["new"], BODY, 0)
    for role, record in records.items():
        site.record(role).write_bytes(record)  # as if it had died before it could rename them
    status, output, _ = site.run()
    assert status == 0
    for role in records:
        assert f"left: {site.ids[role]}: it was imported before" in output
    store = DirectoryStore(str(site.directory))
    assert store.load(site.ids["half"]).offset == len(BODY) - 1
    assert store.load(site.ids["new"]).state == State.ACCEPTED


def test_a_dry_run_changes_nothing(site, tmp_path):
    before = contents(tmp_path)
    status, output, _ = site.run("--dry-run", "--into", tmp_path / "store")
    assert status == 0
    assert contents(tmp_path) == before
    assert not (tmp_path / "store").exists()
    assert f"would be imported: {site.ids['half']}: {HALF} of {len(BODY)} bytes\n" in output
    assert f"\n{len(TAKEN[site.program])} would be imported (" in output


def test_the_directory_of_tus_serve(site, tmp_path):
    (tmp_path / "served" / ".tus").mkdir(parents=True)
    site.run("--into", tmp_path / "served")
    assert_taken(DirectoryStore(str(tmp_path / "served" / ".tus")), site)


def test_how_long_they_live(site):
    before = time.time()
    site.run("--valid", "2h")
    half = DirectoryStore(str(site.directory)).load(site.ids["half"])
    assert before + 7200 <= half.expires_at <= time.time() + 7200
    assert half.created_at <= time.time()


def test_for_ever(site):
    site.run("--valid", "0")
    assert DirectoryStore(str(site.directory)).load(site.ids["half"]).expires_at is None


def test_files_of_other_programs(tmp_path):
    site = Site("tuswsgi", tmp_path)
    others = {"notes.info": b"x", "0123.info": b"{}", "data.json": b"[", "core": b"y", ".hidden.info": b""}
    for name, data in others.items():
        (site.directory / name).write_bytes(data)
    status, output, errors = site.run()
    assert (status, errors) == (0, "")
    after = contents(site.directory)
    for name, data in others.items():
        assert after[name] == data
        assert name not in output


@needs_root
@pytest.mark.parametrize("exists", [True, False])
def test_root_imports_as_the_owner_of_the_directory(public, exists):  # noqa: F811
    home = Path(own_directory(f"{public}/home", SERVER))
    site, store = Site("tuswsgi", home), home / "store"
    if exists:
        own_directory(str(store), SERVER)
    for path in (site.directory, *site.directory.iterdir()):
        os.chown(path, SERVER, SERVER)
    status, _, errors = site.run("--into", store)
    assert (status, errors) == (0, "")
    assert {path.stat().st_uid for path in (store, *store.iterdir())} == {SERVER}
    assert len(list(store.iterdir())) > 4
    assert os.geteuid() == 0


@needs_root
def test_root_does_not_import_from_one_user_to_another(public):  # noqa: F811
    """A user could make root give another user's file away."""
    site, store = Site("tuswsgi", Path(public)), own_directory(f"{public}/store", SERVER)
    status, _, errors = site.run("--into", store)
    assert (status, os.listdir(store)) == (1, [])
    assert f"chown -R {SERVER} {site.directory}" in errors


@needs_root
def test_a_record_of_another_user(site):
    os.chown(site.record("half"), 65534, -1)
    status, output, _ = site.run()
    assert status == 1
    assert f"FAILED: {site.ids['half']}: its record is not a regular file of the user who imports it" in output


def test_data_that_others_can_write_is_taken_away_from_them(site):
    site.data("half").chmod(0o666)
    assert site.run()[0] == 0
    assert (site.directory / site.ids["half"]).stat().st_mode & 0o777 == 0o600
    assert DirectoryStore(str(site.directory)).load(site.ids["half"]).offset == HALF


def test_data_with_other_names(site, tmp_path):
    for name in ("one", "two"):
        os.link(site.data("half"), tmp_path / name)
    status, output, _ = site.run()
    assert status == 1
    assert f"FAILED: {site.ids['half']}: its data has other names" in output


# -- What is not --------------------------------------------------------------------------------------------------


def cut(site, role):
    site.record(role).write_bytes(site.record(role).read_bytes()[:20])


def empty(site, role):
    site.record(role).write_bytes(b"")


def a_list(site, role):
    site.record(role).write_bytes(b"[1, 2]")


def nested(site, role):
    site.record(role).write_bytes(b"[" * 100_000)


def huge(site, role):
    site.record(role).write_bytes(b'{"a": "' + b"a" * 2**20 + b'"}')


def not_text(site, role):
    site.record(role).write_bytes(b'{"a": "\xff"}')


def no_fields(site, role):
    site.record(role).write_bytes(b'{"a": 1}')


def a_link_for_a_record(site, role):
    site.record(role).rename(site.record(role).with_suffix(".elsewhere"))
    site.record(role).symlink_to(site.record(role).with_suffix(".elsewhere"))


def a_directory_for_a_record(site, role):
    site.record(role).unlink()
    site.record(role).mkdir()


def length_field(site):
    return {"tuswsgi": "upload_length", "plone": "length", "tusd": "Size"}[site.program]


def length_true(site, role):
    site.change(role, **{length_field(site): True})


def length_negative(site, role):
    site.change(role, **{length_field(site): -3})


def length_enormous(site, role):
    site.change(role, **{length_field(site): 2**63})


def more_bytes_than_announced(site, role):
    site.data(role).write_bytes(BODY + b"!")


def change_metadata(site, role, pairs):
    if site.program == "plone":
        site.change(role, **pairs)
    else:
        site.change(role, **{{"tuswsgi": "upload_metadata", "tusd": "MetaData"}[site.program]: pairs})


def a_key_with_a_blank(site, role):
    change_metadata(site, role, {"file name": "x"})


def a_key_with_a_comma(site, role):
    change_metadata(site, role, {"a,b": "x"})


def a_key_with_a_line_break(site, role):
    change_metadata(site, role, {"a\r\nSet-Cookie:": "x"})


def an_empty_key(site, role):
    change_metadata(site, role, {"": "x"})


def a_value_that_is_a_number(site, role):
    change_metadata(site, role, {"a": 1})


def a_link_for_data(site, role):
    site.data(role).rename(site.data(role).with_suffix(".elsewhere"))
    site.data(role).symlink_to(site.data(role).with_suffix(".elsewhere"))


def a_pipe_for_data(site, role):
    site.data(role).unlink()
    os.mkfifo(site.data(role))


NOT_JSON = "its record is not JSON, or is incomplete"
PROBLEMS = {
    cut: NOT_JSON,
    empty: NOT_JSON,
    nested: NOT_JSON,
    not_text: NOT_JSON,
    a_list: "its record does not describe an upload",
    huge: "its record does not describe an upload",
    no_fields: "its record has no '",
    a_link_for_a_record: "its record is not a regular file",
    a_directory_for_a_record: "its record is not a regular file",
    length_true: "or one of the wrong type",
    length_negative: "its length cannot be -3",
    length_enormous: f"its length cannot be {2**63}",
    more_bytes_than_announced: "it has 18 bytes, more than its length of 17",
    a_key_with_a_blank: "its metadata cannot have been a header field",
    a_key_with_a_comma: "its metadata cannot have been a header field",
    a_key_with_a_line_break: "its metadata cannot have been a header field",
    an_empty_key: "its metadata cannot have been a header field",
    a_value_that_is_a_number: "its metadata must be pairs of texts",
    a_link_for_data: "its data is not a regular file",
    a_pipe_for_data: "its data is not a regular file",
}


@pytest.mark.parametrize("damage", PROBLEMS, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("dry", [False, True], ids=["", "dry"])
def test_what_cannot_be_taken_is_told_and_the_rest_goes_on(site, damage, dry):
    damage(site, "half")
    before = contents(site.directory)
    status, output, errors = site.run(*["--dry-run"] * dry)
    assert status == 1
    assert errors == "1 of the uploads could not be imported\n"
    line = next(line for line in output.splitlines() if site.ids["half"] in line)
    assert line.startswith(f"FAILED: {site.ids['half']}: ")
    assert PROBLEMS[damage] in line
    word = "would be imported" if dry else "imported"
    assert f"\n{len(TAKEN[site.program]) - 1} {word} (" in output
    after = contents(site.directory)
    for path in (site.data("half"), site.record("half")):
        assert after.get(path.name) == before.get(path.name)
    with pytest.raises(UploadNotFound):
        DirectoryStore(str(site.directory)).load(site.ids["half"])


@pytest.mark.parametrize("program", ["tuswsgi", "tusd"])
def test_missing_data_was_taken_by_the_application(tmp_path, program):
    site = Site(program, tmp_path)
    site.data("half").unlink()
    status, output, _ = site.run()
    assert status == 0
    assert f"left: {site.ids['half']}: its data is gone; usually the application has moved it away" in output
    assert site.record("half").exists()


@pytest.mark.parametrize("into", [False, True], ids=["in place", "into"])
def test_a_file_in_the_way_is_not_touched(site, tmp_path, into):
    if not into:
        (tmp_path / "plone").mkdir()
        site = Site("plone", tmp_path / "plone")  # the others have the data itself there
    store = tmp_path / "store" if into else site.directory
    store.mkdir(exist_ok=True)
    way = store / site.ids["half"]
    way.write_bytes(b"someone's")
    status, output, _ = site.run(*["--into", store] * into)
    assert status == 1
    assert f"FAILED: {site.ids['half']}: another file already has the name that its data needs" in output
    assert way.read_bytes() == b"someone's"
    assert site.data("half").read_bytes() == BODY[:HALF]


def test_data_of_another_user(site, monkeypatch):
    real = os.lstat

    def lstat(path):
        status = real(path)
        if path == str(site.data("half")):
            return os.stat_result([*status[:4], status.st_uid + 1, *status[5:10]])
        return status

    monkeypatch.setattr(os, "lstat", lstat)
    status, output, _ = site.run()
    assert status == 1
    assert f"FAILED: {site.ids['half']}: its data belongs to another user than its record" in output


@pytest.mark.parametrize(
    ("upload_id", "words"),
    [
        ("0123456789abcdef0123456789abcdef+xyz", "its id is that of an upload in S3"),
        ("my-upload", "its id is not 32 hexadecimal digits in lower case"),
        ("0123456789ABCDEF0123456789ABCDEF", "its id is not 32 hexadecimal digits in lower case"),
        ("a\x1b[31mb", "its id is not 32 hexadecimal digits in lower case"),
        ("folder/0123456789abcdef0123456789abcdef", "its id is not 32 hexadecimal digits in lower case"),
    ],
)
def test_other_ids_of_tusd(tusd, upload_id, words):
    (tusd.directory / upload_id).parent.mkdir(exist_ok=True)
    record = json.loads(tusd.record("half").read_text()) | {"ID": upload_id, "Storage": None}
    (tusd.directory / f"{upload_id}.info").write_text(json.dumps(record))
    (tusd.directory / upload_id).write_bytes(b"12345")
    if "/" in upload_id:
        record["Storage"] = {"Path": f"/srv/{upload_id}", "InfoPath": f"/srv/{upload_id}.info"}
        (tusd.directory / f"{upload_id}.info").write_text(json.dumps(record))
    status, output, _ = tusd.run()
    assert status == 1
    line = next(line for line in output.splitlines() if line.startswith("FAILED"))
    assert words in line
    assert line.isprintable()
    assert (tusd.directory / upload_id).read_bytes() == b"12345"


def test_a_record_of_another_upload(tusd):
    shutil.copy(tusd.record("half"), tusd.record("new"))
    status, output, _ = tusd.run()
    assert status == 1
    assert f"FAILED: {tusd.ids['new']}: its record describes another upload" in output


# -- tusd's own matters -------------------------------------------------------------------------------------------


def storage(seen_data, seen_directory="/srv/uploads"):
    def change(site):
        upload_id = site.ids["half"]
        paths = {"Path": seen_data.format(id=upload_id, here=site.directory)}
        if seen_directory is not None:
            paths["InfoPath"] = f"{seen_directory}/{upload_id}.info"
        site.change("half", Storage=paths)

    return change


@pytest.mark.parametrize(
    ("change", "lies"),
    [
        (storage("data/{id}", "data"), "uploads/{id}"),
        (storage("./data/{id}", "./data"), "uploads/{id}"),
        (storage("/srv/uploads/{id}"), "uploads/{id}"),
        (storage("/srv/uploads/{id}", None), "uploads/{id}"),
        (storage("/srv/uploads/for/somebody.bin"), "uploads/for/somebody.bin"),
        (storage("{here}/../elsewhere.bin"), "elsewhere.bin"),
        (lambda site: site.change("half", Storage=None), "uploads/{id}"),
        (lambda site: site.change("half", Storage={}), "uploads/{id}"),
    ],
)
def test_where_tusd_has_the_data(tusd, tmp_path, change, lies):
    change(tusd)
    data = tmp_path / lies.format(id=tusd.ids["half"])
    data.parent.mkdir(exist_ok=True)
    tusd.data("half").rename(data)
    status, output, _ = tusd.run()
    assert (status, output.count("FAILED")) == (0, 0)
    assert_taken(DirectoryStore(str(tusd.directory)), tusd)
    assert data.exists() == (data == tusd.data("half"))


@pytest.mark.parametrize("path", ["/no\0where", "../outside", "/nowhere", "\ud800"])
def test_a_path_that_leads_nowhere(tusd, path):
    tusd.change("half", Storage={"Path": path, "InfoPath": "/srv/uploads/x.info"})
    tusd.data("half").rename(tusd.data("half").with_suffix(".saved"))
    status, output, _ = tusd.run()
    line = next(line for line in output.splitlines() if tusd.ids["half"] in line)
    assert "its data" in line
    assert f"{len(TAKEN['tusd']) - 1} imported" in output
    assert status == line.startswith("FAILED")


def test_metadata_that_tusd_could_not_write_down(tusd):
    tusd.change("half", MetaData={"filename": "Gr\N{REPLACEMENT CHARACTER}n", "Größe": "XL"})
    status, _, errors = tusd.run()
    assert status == 0
    assert errors == f"warning: {tusd.ids['half']}: its metadata was not UTF-8, and tusd has not kept those bytes\n"
    raw = DirectoryStore(str(tusd.directory)).load(tusd.ids["half"]).raw_metadata
    assert "Größe WEw=" in raw.encode("latin-1").decode()


def test_a_concatenation_that_tusd_did_not_finish(tusd):
    tusd.data("final").write_bytes(BODY)
    status, output, _ = tusd.run()
    assert status == 0
    assert f"left: {tusd.ids['final']}: tusd crashed during this concatenation" in output
    assert tusd.data("final").read_bytes() == BODY


def test_locks_of_tusd(tusd):
    lock = tusd.directory / f"{tusd.ids['half']}.lock"
    lock.write_text("123\n")
    before = contents(tusd.directory)
    status, output, errors = tusd.run()
    assert (status, output) == (1, "")
    assert f"tusd has 1 of these uploads locked (the first is {lock.name})" in errors
    assert "--force" in errors
    assert contents(tusd.directory) == before
    assert tusd.run("--force")[0] == 0
    assert_taken(DirectoryStore(str(tusd.directory)), tusd)


def test_a_concatenation_of_tuswsgi(tmp_path):
    site = Site("tuswsgi", tmp_path)
    site.change("done", parts=[site.ids["whole_part"]])
    status, output, _ = site.run()
    assert status == 0
    assert f"left: {site.ids['done']}: it is a concatenation" in output


# -- Asked wrongly, at the same time, and dying in the middle -----------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--valid", "soon"], "--valid"),
        (["--into", "/no/such/directory/store"], "tmp_file_dir"),
        (["--into", "/no/such/directory/store", "--dry-run"], "--into"),
    ],
)
def test_asked_wrongly(site, arguments, words):
    before = contents(site.directory)
    status, _, errors = site.run(*arguments)
    assert status == 2
    assert words in errors
    assert contents(site.directory) == before


def test_no_directory(tmp_path):
    status, _, errors = run_import(tmp_path / "missing", "--from", "tusd")
    assert (status, "there is no directory" in errors) == (2, True)


def test_one_at_a_time(site, tmp_path):
    fd = os.open(site.directory, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        status, output, errors = site.run()
        assert run_import(tmp_path, "--from", "tusd", "--into", site.directory)[0] == 1
    finally:
        os.close(fd)
    assert (status, output) == (1, "")
    assert "another tus import uses this directory" in errors
    assert site.run()[0] == 0


STEPS = ("link", "unlink", "rename", "fsync", "pwrite", "replace")


def dies_before(step: int, run) -> bool:
    """Run it in a child that is gone, without any clean-up, before its so manieth step; whether it came to the end."""
    child = os.fork()
    if child == 0:
        left = step

        def counting(real):
            def counted(*args, **how):
                nonlocal left
                if not left:
                    os._exit(9)
                left -= 1
                return real(*args, **how)

            return counted

        for name in STEPS:
            setattr(os, name, counting(getattr(os, name)))
        try:
            run()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.parametrize("where", ["in place", "moved", "copied"])
@pytest.mark.parametrize("program", ["plone", "tusd"])
def test_dying_at_any_step(tmp_path, where, program, monkeypatch):
    if where == "copied":
        no_links(monkeypatch)
    for step in range(1000):
        base = tmp_path / str(step)
        base.mkdir()
        site = Site(program, base)
        store = site.directory if where == "in place" else base / "store"
        arguments = ["--into", store] if where != "in place" else []
        received = sorted(
            data for name, data in contents(site.directory).items() if not name.endswith((".info", ".json"))
        )
        ended = dies_before(step, lambda site=site, arguments=arguments: site.run(*arguments))

        remaining = list(contents(base).values())
        assert all(data in remaining for data in received)
        if store.exists():
            for name in os.listdir(store):
                if name.endswith(".tus"):  # whatever is an upload by now is a whole one
                    upload = DirectoryStore(str(store)).load(name.removesuffix(".tus"))
                    assert Path(upload.path).stat().st_size == upload.offset
        status, output, errors = site.run(*arguments)
        assert (status, errors) == (0, ""), output
        assert_taken(DirectoryStore(str(store)), site)
        for path in store.iterdir():
            assert path.stat().st_nlink == 1, "the other program has it as well"
            assert not path.name.startswith(".tus-adopting")
        if ended:
            break
    assert step > 20


def test_data_that_changes_meanwhile(site, monkeypatch):
    """The other program runs, although it must not."""
    real = importing.adopt

    def adopt(directory, upload, data, ownership):
        if upload.id == site.ids["half"]:
            with site.data("half").open("ab") as file:
                file.write(b"!")
        return real(directory, upload, data, ownership)

    monkeypatch.setattr(importing, "adopt", adopt)
    status, output, _ = site.run()
    assert status == 1
    assert f"FAILED: {site.ids['half']}: its data has changed meanwhile, from 9 to 10 bytes" in output


@pytest.mark.parametrize("error", [errno.EACCES, errno.ENOSPC, errno.EIO])
def test_what_the_file_system_says(site, tmp_path, monkeypatch, error):
    no_links(monkeypatch, error)
    before = contents(site.directory)
    status, output, _ = site.run("--into", tmp_path / "store")
    assert status == 1
    assert f"FAILED: {site.ids['half']}: {os.strerror(error)}" in output
    after = contents(site.directory)
    assert {name.removesuffix(".imported"): data for name, data in after.items() if "new" not in name} == before


def test_the_sidecar_is_like_any_other(site):
    site.run()
    store = DirectoryStore(str(site.directory))
    made = store.create(store.load(site.ids["half"]).__class__(length=3))
    for path in (Path(made.path + ".tus"), site.directory / f"{site.ids['half']}.tus"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert path.stat().st_nlink == 1
