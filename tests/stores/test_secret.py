"""The secret of a directory, and one key that several processes use at the same time."""

import multiprocessing
import os
import shutil
import stat
from unittest import mock

import pytest

from tests.support.waiting import GUARD
from tests.support.wsgi import OCTETS, TUS, call
from tus import Filter
from tus.errors import StorageUnavailable
from tus.filesystem.ownership import Ownership
from tus.models import Upload
from tus.stores.directory.secret import NAME, read_secret
from tus.stores.directory.store import DirectoryStore

KEY = {"Idempotency-Key": '"8e03978e-40d5-43e8-bc93-6894a57f9324"'}
FORK = multiprocessing.get_context("fork")


def test_the_secret_is_kept_and_private(tmp_path):
    secret = read_secret(str(tmp_path), Ownership())
    assert len(secret) == 32
    assert read_secret(str(tmp_path), Ownership()) == secret
    status = (tmp_path / NAME).stat()
    assert stat.S_IMODE(status.st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


def test_each_directory_has_its_own_secret(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    assert read_secret(str(tmp_path / "one"), Ownership()) != read_secret(str(tmp_path / "two"), Ownership())
    stores = [DirectoryStore(str(tmp_path / name)) for name in ("one", "one", "two")]
    one, again, two = (store.id_for("text") for store in stores)
    assert one == again != two


def test_a_directory_that_is_made_again_has_another_secret(tmp_path):
    """Each process must learn that, else one key would make two uploads."""
    directory = tmp_path / "store"
    directory.mkdir(0o700)
    store, other = (DirectoryStore(str(directory)) for _ in range(2))
    before = store.id_for("text")
    shutil.rmtree(directory)
    assert store.id_for("text") == other.id_for("text") != before


@pytest.mark.parametrize("content", [b"", bytes(64), b"x" * 31, b"x" * 64], ids=["empty", "zeros", "short", "other"])
def test_a_secret_that_a_crash_has_damaged_is_replaced(tmp_path, content):
    (tmp_path / NAME).write_bytes(content)
    (tmp_path / NAME).chmod(0o600)
    secret = read_secret(str(tmp_path), Ownership())
    assert read_secret(str(tmp_path), Ownership()) == secret
    assert secret not in (content[:32], bytes(32))


def test_a_secret_is_on_the_disk_before_it_is_used(tmp_path):
    failing = mock.patch("tus.stores.directory.secret.sync", side_effect=OSError(5, "Input/output error"))
    with failing, pytest.raises(OSError, match="Input"):
        read_secret(str(tmp_path), Ownership())


def link(path):
    (path.parent / "other").write_bytes(b"")
    path.symlink_to(path.parent / "other")


def hard_link(path):
    (path.parent / "other").write_bytes(b"")
    (path.parent / "other").chmod(0o600)
    os.link(path.parent / "other", path)


def readable(path):
    path.write_bytes(b"")
    path.chmod(0o644)


def pipe(path):
    os.mkfifo(path, 0o600)


@pytest.mark.parametrize("plant", [link, hard_link, readable, pipe, lambda path: path.mkdir()])
def test_a_planted_secret_is_not_believed(tmp_path, plant):
    plant(tmp_path / NAME)
    with pytest.raises((StorageUnavailable, OSError)):
        read_secret(str(tmp_path), Ownership())


def test_fsck_knows_the_secret(tmp_path):
    from tus.stores.directory.fsck.strays import _OWN

    assert _OWN.fullmatch(NAME)


def test_a_key_is_found_while_the_limit_of_uploads_is_reached(tmp_path):
    from tus.stores.interface import Limits

    store = DirectoryStore(str(tmp_path), limits=Limits(uploads=1))
    draft = Upload(id=store.id_for("a"), length=3)
    assert store.create_once(draft) is not None
    assert store.create_once(draft) is None
    store.remove(draft.id)
    assert store.create_once(draft) is not None


def in_processes(count, function):
    """Call a function in several processes at the same time, and return its results."""
    barrier, results = FORK.Barrier(count), FORK.Queue()

    def run():
        barrier.wait(GUARD)
        results.put(function())

    processes = [FORK.Process(target=run) for _ in range(count)]
    for process in processes:
        process.start()
    found = [results.get(timeout=GUARD) for _ in processes]
    for process in processes:
        process.join(GUARD)
    return found


def test_processes_agree_on_a_secret(tmp_path):
    for number in range(20):
        directory = tmp_path / str(number)
        directory.mkdir()
        secrets = in_processes(3, lambda path=str(directory): read_secret(path, Ownership()).hex())
        assert len(set(secrets)) == 1


def test_one_key_of_several_processes_creates_one_upload(tmp_path):
    calls = FORK.Value("i", 0)

    class Hooks:
        def post_create(self, event):
            with calls.get_lock():
                calls.value += 1

    def application(environ, start_response):
        start_response("204 No Content", [])
        return [b""]

    def create():
        app = Filter(application, upload_path="/files", tmp_file_dir=str(directory), hooks=Hooks(), threads=False)
        reply = call(app, "POST", "/files", TUS | KEY | OCTETS | {"Upload-Length": "9"}, b"abc")
        return reply.status, reply.get("Location")

    for number in range(20):
        directory = tmp_path / str(number)
        directory.mkdir()
        found = in_processes(3, create)
        assert {status for status, _ in found} <= {201, 409}  # 409 if another request has taken the body over
        assert len({location for status, location in found if status == 201}) == 1
        (upload,) = DirectoryStore(str(directory)).list()
        assert upload.offset == 3
        assert calls.value == number + 1
