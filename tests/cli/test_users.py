"""Commands that root runs in a directory of another user: they act as that user, and leave no files of root."""

import os
import time
from pathlib import Path

import pytest

from tests.support.users import SERVER, STRANGER, as_user, needs_root, own_directory, public  # noqa: F401
from tus.cli import main as cli
from tus.cli import users
from tus.models import Upload
from tus.stores.directory.store import DirectoryStore

pytestmark = [needs_root, pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")]


@pytest.fixture
def store(public):  # noqa: F811
    """A directory of the server's user with an expired upload and two finished ones."""
    directory = own_directory(f"{public}/store", SERVER)

    def fill():
        long_ago = DirectoryStore(directory, lifetime=1, clock=lambda: time.time() - 10**6)
        now = DirectoryStore(directory)
        old = long_ago.create(Upload(length=5))
        finished = [now.append(now.create(Upload(length=3)), 0, b"abc") for _ in range(2)]
        return [old.id, *(upload.id for upload in finished)]

    return directory, as_user(SERVER, fill)


COMMANDS = [
    ["ls", "{dir}"],
    ["show", "--dir", "{dir}", "{id}"],
    ["clean", "--dry-run", "{dir}"],
    ["clean", "{dir}"],
    ["rm", "--dir", "{dir}", "{id}"],
    ["fsck", "{dir}"],
    ["fsck", "--repair", "{dir}"],
    ["handover", "{dir}", "--all", "--on-finished", "tests.cli.test_users:take"],
]
taken_by = []


def take(upload):
    """Note the user for whom the upload is taken."""
    taken_by.append(os.geteuid())


@pytest.mark.parametrize("arguments", COMMANDS, ids=lambda arguments: " ".join(arguments[:2]))
def test_a_command_acts_as_the_owner(store, arguments, capsys):
    directory, (_, _, upload_id) = store
    del taken_by[:]
    before = (os.geteuid(), os.getegid(), sorted(os.getgroups()))
    assert cli.main([argument.format(dir=directory, id=upload_id) for argument in arguments]) == 0, capsys.readouterr()
    assert {path.stat().st_uid for path in Path(directory).iterdir()} == {SERVER}
    assert (os.geteuid(), os.getegid(), sorted(os.getgroups())) == before
    assert taken_by == ([SERVER] * 2 if "handover" in arguments else [])


@pytest.mark.parametrize("arguments", COMMANDS, ids=lambda arguments: " ".join(arguments[:2]))
def test_root_that_may_become_no_other_user_is_refused(store, arguments, monkeypatch, capsys):
    directory, (_, _, upload_id) = store

    def refuse(uid):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(users.os, "seteuid", refuse)
    before = sorted(os.listdir(directory))
    assert cli.main([argument.format(dir=directory, id=upload_id) for argument in arguments]) == 1
    assert f"cannot act as user {SERVER}" in capsys.readouterr().err
    assert sorted(os.listdir(directory)) == before


def test_a_server_of_root_is_refused_there(store):
    directory, _ = store
    with pytest.raises(ValueError, match=r"belongs to user daemon.* runs as user root"):
        from tus import Service

        Service(tmp_file_dir=directory)


def test_a_repair_by_root_touches_nothing_that_a_local_user_has_planted(public, capsys):  # noqa: F811
    """In a directory that all share, links and files whose modes a repair would change."""
    directory = own_directory(f"{public}/store", 0, 0o1777)
    victim = Path(public, "victim")
    victim.write_text("secret of root")
    victim.chmod(0o600)

    def plant():
        store = DirectoryStore(directory)
        for number in range(20):
            upload = store.create(Upload(length=5))
            os.chmod(upload.path, 0o177)
            os.chmod(upload.path + ".tus", 0o666)
            if number % 2:
                os.rename(upload.path, upload.path + ".old")
                os.symlink(victim, upload.path)

    as_user(STRANGER, plant)
    before = {path: path.lstat().st_mode for path in Path(directory).iterdir()}
    assert cli.main(["fsck", "--repair", directory]) == 1
    assert ".: directory-shared" in capsys.readouterr().out
    os.chmod(directory, 0o755)
    assert cli.main(["fsck", "--repair", directory]) == 1
    assert "owners-differ" in capsys.readouterr().out
    assert {path: path.lstat().st_mode for path in before} == before
    assert victim.stat().st_mode & 0o777 == 0o600
