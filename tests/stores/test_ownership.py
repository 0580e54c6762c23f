"""Only what is ours is believed: files and directories that other users have made, or could change."""

import errno
import grp
import itertools
import os
import pwd
import stat
import struct
import time
from pathlib import Path

import pytest

import tus
from tests.support.users import SERVER, STRANGER, as_user, needs_root, own_directory, public  # noqa: F401
from tus import Filter, Service
from tus.apps.files import Files
from tus.errors import OptionError, SweepIncomplete, UploadGone, UploadLocked, UploadNotFound
from tus.filesystem import acl
from tus.filesystem.ownership import NotOurs, Ownership
from tus.handover.spool import Spool, SpoolEmpty
from tus.models import State, Upload
from tus.stores.directory import record_format
from tus.stores.directory.preparation import prepare_directory
from tus.stores.directory.store import DirectoryStore
from tus.stores.interface import Limits
from tus.stores.slots import Slot

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")

ID = "0123456789abcdef" * 2


def share(path):
    path.chmod(0o606)


def share_with_group(path):
    path.chmod(0o620)


def link(path):
    path.rename(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))


def name_twice_more(path):
    os.link(path, path.with_name("second"))
    os.link(path, path.with_name("third"))


def pipe(path):
    path.unlink()
    os.mkfifo(path)


def directory(path):
    path.unlink()
    path.mkdir()


SPOILS = [share, share_with_group, link, name_twice_more, pipe, directory]


# -- The files of an upload --


@pytest.fixture
def store(tmp_path):
    return DirectoryStore(prepare_directory(str(tmp_path / "store")), lifetime=1)


def visible(store):
    return [upload.id for upload in store.list()]


@pytest.mark.parametrize("spoil", SPOILS)
def test_a_sidecar_that_is_not_ours_does_not_exist(store, spoil):
    upload = store.create(Upload(length=3))
    good = store.create(Upload(length=3))
    spoil(Path(upload.path + ".tus"))
    for use in (
        lambda: store.load(upload.id),
        lambda: store.append(upload, 0, b"abc"),
        lambda: store.open(upload, 0),
        lambda: store.fence(upload),
        lambda: store.claim(upload),
        lambda: store.remove(upload.id),
    ):
        with pytest.raises(UploadNotFound):
            use()
    assert visible(store) == [good.id]
    assert os.path.lexists(upload.path), "what belongs to it is left alone"


@pytest.mark.parametrize("spoil", SPOILS)
def test_data_that_is_not_ours_does_not_exist(store, spoil):
    upload = store.create(Upload(length=6))
    store.append(upload, 0, b"abc")
    spoil(Path(upload.path))
    with pytest.raises(UploadGone):
        store.load(upload.id)
    with pytest.raises(UploadGone):
        store.append(upload, 3, b"def")
    with pytest.raises(UploadGone):
        store.open(upload, 3)
    assert visible(store) == []


def test_an_application_may_name_a_file_and_give_it_a_mode(store):
    """Once it was offered, see ``save_to``."""
    upload = store.create(Upload(length=3))
    store.append(upload, 0, b"abc")
    claim = store.claim(upload)
    claim.begin()
    name_twice_more(Path(upload.path))
    Path(upload.path).chmod(0o664)
    claim.release()
    assert store.load(upload.id).state == State.COMPLETE
    claim = store.claim(upload)
    with claim.open() as file:
        assert file.read() == b"abc"
    claim.release()


def test_data_that_cannot_be_looked_at_is_not_missing(store, monkeypatch):
    """A finished file that waits longer than a day is removed only if its data is gone."""
    upload = store.append(store.create(Upload(length=3)), 0, b"abc")
    late = DirectoryStore(store.directory, clock=lambda: time.time() + 2 * 86400)
    lstat = os.lstat

    def fail(path, **words):
        if path == upload.path:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return lstat(path, **words)

    monkeypatch.setattr(os, "lstat", fail)
    with pytest.raises(SweepIncomplete):
        late.sweep()
    monkeypatch.undo()
    assert Path(upload.path).read_bytes() == b"abc"
    assert late.sweep() == 0


@pytest.mark.parametrize(
    ("members", "name", "is_safe"),
    [((), "ann", True), (("ann",), "ann", True), (("bob",), "ann", False), ((), "staff", False)],
)
def test_the_private_group_of_a_user_is_no_other_user(tmp_path, monkeypatch, members, name, is_safe):
    """On many systems the umask is 002, and each user has a group of that name."""
    tmp_path.chmod(0o775)
    user = pwd.struct_passwd(("ann", "x", os.geteuid(), os.getegid(), "", "/", "/bin/sh"))
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: user)
    monkeypatch.setattr(grp, "getgrgid", lambda gid: grp.struct_group((name, "x", gid, list(members))))
    assert (Ownership().problem_of(str(tmp_path)) is None) == is_safe


def test_a_sweep_goes_past_what_is_not_ours(store):
    spoiled = [store.create(Upload(length=3)) for _ in SPOILS]
    expired = store.create(Upload(length=3))
    for upload, spoil in zip(spoiled, SPOILS, strict=True):
        (folder := Path(upload.path).parent / spoil.__name__).mkdir()
        before = set(os.listdir(store.directory))
        spoil(Path(upload.path + ".tus"))
        for name in set(os.listdir(store.directory)) - before:
            (Path(store.directory) / name).rename(folder / name)
    late = DirectoryStore(store.directory, clock=lambda: time.time() + 60)
    assert late.sweep() == 1
    assert not os.path.lexists(expired.path)
    assert all(os.path.lexists(upload.path + ".tus") for upload in spoiled)


@pytest.mark.parametrize("name", [".tus-sweeper", ".tus-counts", ".tus-secret"])
@pytest.mark.parametrize("spoil", SPOILS)
def test_a_file_that_every_process_needs_is_ours_or_refused(tmp_path, name, spoil):
    (tmp_path / name).touch(0o600)
    spoil(tmp_path / name)
    with pytest.raises(OptionError, match=f"{name}.*not ours.*remove it"):
        prepare_directory(str(tmp_path))


def test_new_files_are_ours_alone_whatever_the_umask(tmp_path):
    before = os.umask(0)
    try:
        store = DirectoryStore(prepare_directory(str(tmp_path / "store")), limits=Limits(uploads=9))
        store.create(Upload(length=3))
        store.sweep()
        store.id_for("key")
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(store.directory).st_mode) == 0o700
    assert len(os.listdir(store.directory)) == 6
    assert {stat.S_IMODE(path.stat().st_mode) for path in Path(store.directory).iterdir()} == {0o600}


# -- Directories --


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o707, 0o770, 0o2775, 0o720])
def test_a_directory_that_others_can_write_is_refused(tmp_path, monkeypatch, mode):
    monkeypatch.setattr(grp, "getgrgid", lambda gid: grp.struct_group(("staff", "x", gid, ["bob"])))
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(mode)
    with pytest.raises(OptionError, match=rf"tmp_file_dir.*{mode:04o}.*chmod g?o?-w") as wrong:
        prepare_directory(str(shared))
    assert ("trusted_group" in wrong.value.problem) == (not mode & 0o002)
    shared.chmod(0o750)
    assert prepare_directory(str(shared)) == str(shared), "the remedy that the error names"


def access_list(tag, holder, permissions=7, mask=7):
    """u::rwx, one named user (2) or group (8), g::---, the mask, o::---, as ``setfacl`` writes it."""
    entries = [(1, 7, -1), (tag, permissions, holder), (4, 0, -1), (16, mask, -1), (32, 0, -1)]
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in sorted(entries))


@pytest.mark.parametrize("group", [None, 4321])
@pytest.mark.parametrize(
    ("tag", "holder", "permissions", "mask", "is_refused"),
    [
        (2, 1234, 7, 7, True),
        (2, 1234, 3, 7, True),
        (2, 1234, 5, 7, False),  # no right to write
        (2, 1234, 7, 5, False),  # the mask takes it away
        (2, 0, 7, 7, False),
        (8, 1234, 7, 7, True),
    ],
)
def test_whom_an_access_control_list_lets_write(
    tmp_path, monkeypatch, group, tag, holder, permissions, mask, is_refused
):
    """The mode shows the mask as the rights of the group, which may be that of the user alone, or the trusted one."""
    place = tmp_path / "store"
    place.mkdir(0o700)
    trusts = Ownership(group)
    monkeypatch.setattr("tus.filesystem.ownership._is_private", lambda status: True)
    for name, is_bad in ((acl.ACCESS, is_refused), (acl.DEFAULT, is_refused and group is not None)):
        try:
            os.setxattr(place, name, access_list(tag, holder, permissions, mask))
        except (OSError, AttributeError):
            pytest.skip("the disk of the tests has no ACLs")
        problem = trusts.problem_of(str(place))
        assert (problem is not None) == is_bad
        assert not is_bad or f"-x {'user' if tag == 2 else 'group'}:{holder} {place}" in problem
        os.removexattr(place, name)


def test_an_access_control_list_may_name_the_trusted_group(tmp_path):
    place = tmp_path / "store"
    place.mkdir(0o700)
    try:
        os.setxattr(place, acl.DEFAULT, access_list(8, 4321))
    except (OSError, AttributeError):
        pytest.skip("the disk of the tests has no ACLs")
    assert Ownership(4321).problem_of(str(place)) is None
    assert "setfacl -d -x group:4321" in Ownership(4322).problem_of(str(place))


def test_a_directory_is_looked_at_again_when_it_has_changed(tmp_path):
    prepare_directory(str(tmp_path / "store"))
    (tmp_path / "store").chmod(0o777)
    with pytest.raises(OptionError):
        prepare_directory(str(tmp_path / "store"))


@pytest.mark.parametrize("depth", ["store", "a/store", "a/b/store"])
def test_a_directory_in_one_that_every_user_can_write_is_refused(tmp_path, depth):
    shared = tmp_path / "shared"
    path = shared / depth
    path.mkdir(parents=True)
    shared.chmod(0o777)
    with pytest.raises(OptionError, match=r"tmp_file_dir.*/shared', .*chmod o-w"):
        prepare_directory(str(path))
    with pytest.raises(OptionError):
        (tmp_path / "link").symlink_to(path)
        prepare_directory(str(tmp_path / "link"))
    shared.chmod(0o1777)  # as /tmp is
    assert prepare_directory(str(path)) == str(path)


def test_a_link_in_a_directory_that_every_user_can_write_is_refused(tmp_path):
    shared = tmp_path / "shared"
    shared.mkdir()
    (tmp_path / "store").mkdir()
    (shared / "link").symlink_to(tmp_path / "store")
    shared.chmod(0o777)
    with pytest.raises(OptionError, match="/shared'"):
        prepare_directory(str(shared / "link"))


def test_a_file_system_that_forgets_owners_and_modes_is_refused(tmp_path, monkeypatch):
    real = os.fstat

    def fstat(fd):
        status = real(fd)
        return status if stat.S_ISDIR(status.st_mode) else os.stat_result([0o100777, *status[1:]])

    monkeypatch.setattr(os, "fstat", fstat)
    with pytest.raises(OptionError, match="does not keep the owner and the mode"):
        prepare_directory(str(tmp_path / "store"))


def test_where_files_are_saved_is_not_for_every_user_to_write(tmp_path):
    target = tmp_path / "files"
    target.mkdir()
    target.chmod(0o777)
    with pytest.raises(OptionError, match=r"directory.*chmod go-w"):
        Files(str(target))
    with pytest.raises(OptionError, match=r"directory.*chmod o-w"):
        Files(str(target / "inside"))
    for mode in (0o1777, 0o2775, 0o700):  # users cannot replace files of others, or the application shares them
        target.chmod(mode)
        assert Files(str(target)).directory == str(target)


# -- Other users --


def forge(directory, upload_id=ID, principal="admin", mode=0o666):
    """Write the files of a finished upload."""
    data = b"forged"
    upload = Upload(id=upload_id, offset=6, length=6, principal=principal, created_at=time.time(), service="/files")
    slot = Slot(offset=6, length=6, state=State.COMPLETE, since=time.time() - 100)
    for name, content in ((upload_id, data), (upload_id + ".tus", record_format.pack(upload, slot))):
        path = Path(directory, name)
        path.write_bytes(content)
        path.chmod(mode)


def refusal(directory):
    try:
        prepare_directory(directory)
    except OptionError as error:
        return error.problem
    return None


@needs_root
@pytest.mark.parametrize("mode", [0o666, 0o644, 0o600])
def test_what_a_stranger_has_planted_is_handed_to_nobody(public, mode):  # noqa: F811
    store = own_directory(f"{public}/store", SERVER, 0o1777)
    as_user(STRANGER, lambda: forge(store, mode=mode))
    assert "chmod go-w" in as_user(SERVER, lambda: refusal(store))
    os.chmod(store, 0o700)  # as the error says; what was planted before is still there

    def serve():
        offered = []

        def app(environ, start_response):
            offered.append(environ["tus.upload"].principal)
            start_response("200 OK", [])
            return [b""]

        service = Filter(app, upload_path="/files", tmp_file_dir=store).service
        assert [*service.store.list(), *service.backlog.pending(), *service.backlog.run(everything=True)] == []
        assert service.find(ID) is None
        service.store.sweep()
        service.close()
        return offered

    assert as_user(SERVER, serve) == []
    assert os.path.exists(f"{store}/{ID}.tus"), "it may belong to another program"


@needs_root
@pytest.mark.parametrize("mode", [0o777, 0o755, 0o700])
def test_a_directory_that_a_stranger_made_first_is_refused(public, mode):  # noqa: F811
    os.chmod(public, 0o1777)
    store = f"{public}/upload"
    as_user(STRANGER, lambda: (os.mkdir(store), os.chmod(store, mode)))
    problem = as_user(SERVER, lambda: refusal(store))
    if mode == 0o777:
        assert "every user" in problem
    elif mode == 0o755:
        assert "user nobody" in problem
        assert "chown" in problem
    else:
        assert "Permission denied" in problem
    assert refusal(store) is not None, "nor does root use it"


@needs_root
def test_a_directory_below_one_of_a_stranger_is_refused(public):  # noqa: F811
    """Its owner could put another one in its place."""
    os.chmod(public, 0o1777)
    as_user(STRANGER, lambda: (os.mkdir(f"{public}/site"), os.chmod(f"{public}/site", 0o755)))
    own_directory(f"{public}/site/store", SERVER)
    assert "belongs to user nobody" in as_user(SERVER, lambda: refusal(f"{public}/site/store"))


@needs_root
def test_a_site_in_the_home_of_another_user_works(public):  # noqa: F811
    """The owner of the home is in charge of the site anyway."""
    own_directory(f"{public}/home", STRANGER, 0o755)
    own_directory(f"{public}/home/store", SERVER)
    assert as_user(SERVER, lambda: refusal(f"{public}/home/store")) is None


@needs_root
def test_a_stranger_cannot_hold_a_lock_that_every_process_needs(public):  # noqa: F811
    store = own_directory(f"{public}/store", SERVER, 0o755)

    def use():
        uploads = DirectoryStore(prepare_directory(store), limits=Limits(uploads=3))
        uploads.create(Upload(length=1))
        uploads.sweep()
        uploads.id_for("key")
        return os.listdir(store)

    def open_them():
        opened = []
        for name in os.listdir(store):
            try:
                opened.append(os.open(f"{store}/{name}", os.O_RDONLY))
            except PermissionError:
                continue
        return opened

    assert len(as_user(SERVER, use)) == 6
    assert as_user(STRANGER, open_them) == []


# -- The spool --


def finished(directory, ownership=None):
    """A finished upload of a new store."""
    ownership = ownership or Ownership()
    store = DirectoryStore(prepare_directory(directory, ownership), ownership=ownership)
    return store.append(store.create(Upload(length=13)), 0, b"passport scan")


def everything_below(path):
    return [os.path.join(top, name) for top, folders, files in os.walk(path) for name in (*folders, *files)]


def test_the_spool_is_ours_alone_whatever_the_umask(tmp_path):
    before = os.umask(0)
    try:
        upload = finished(str(tmp_path / "store"))
        spool = Spool(str(tmp_path / "spool"))
        spool.put(upload, upload.key)
        with pytest.raises(ZeroDivisionError), spool.claim(0):
            raise ZeroDivisionError
    finally:
        os.umask(before)
    modes = {
        stat.S_IFMT(mode) | mode & 0o077 for mode in (os.stat(path).st_mode for path in everything_below(tmp_path))
    }
    assert modes == {stat.S_IFDIR, stat.S_IFREG}
    assert stat.S_IMODE(os.stat(upload.path).st_mode) == 0o600, "the spool shares it"


@pytest.mark.parametrize("inside", ["", "new", "put"])
def test_a_spool_that_others_can_write_is_refused(tmp_path, inside):
    Spool(str(tmp_path / "spool"))
    (tmp_path / "spool" / inside).chmod(0o777)
    with pytest.raises(OptionError, match=r"spool.*chmod go-w"):
        tus.spool(str(tmp_path / "spool"))


@pytest.mark.parametrize(
    ("name", "spoil"),
    [*itertools.product(["lock", "upload.json"], SPOILS), ("data", link), ("data", pipe), ("data", directory)],
)
def test_an_entry_that_is_not_ours_is_given_to_no_worker(tmp_path, name, spoil):
    spool = Spool(str(tmp_path / "spool"))
    upload = finished(str(tmp_path / "store"))
    spool.put(upload, upload.key)
    spoil(tmp_path / "spool" / "new" / upload.key / name)
    with pytest.raises(SpoolEmpty), spool.claim(0):
        pass
    other = finished(str(tmp_path / "store"))
    spool.put(other, other.key)
    with spool.claim(0) as claimed:
        assert claimed.key == other.key


@needs_root
def test_a_stranger_can_neither_read_the_spool_nor_stop_its_workers(public):  # noqa: F811
    home = own_directory(f"{public}/home", SERVER, 0o755)

    def put():
        upload = finished(f"{home}/store")
        Spool(f"{home}/spool").put(upload, upload.key)

    def pry():
        return [path for path in everything_below(home) if os.path.isfile(path)]

    def work():
        with tus.spool(f"{home}/spool").claim(0) as upload:
            return Path(upload.path).read_bytes()

    as_user(SERVER, put, umask=0)
    assert as_user(STRANGER, pry) == []
    assert "Permission denied" in as_user(STRANGER, lambda: refusal(f"{home}/store"))
    assert as_user(SERVER, work) == b"passport scan"


@needs_root
def test_workers_of_a_trusted_group_take_what_the_server_puts(public):  # noqa: F811
    group = 12
    home = own_directory(f"{public}/home", SERVER, 0o2770, gid=group)

    def put():
        upload = finished(f"{home}/store", Ownership(group))
        Spool(f"{home}/spool", ownership=Ownership(group)).put(upload, upload.key)

    def work():
        spool = tus.spool(f"{home}/spool", trusted_group=group)
        with spool.claim(0) as upload:
            content = Path(upload.path).read_bytes()
        return content, spool.purge(0)

    def work_alone():
        with pytest.raises(OptionError, match="trusted_group"):
            tus.spool(f"{home}/spool")

    as_user(SERVER, put, groups=[group])
    as_user(STRANGER, work_alone, groups=[group])
    assert as_user(STRANGER, work, groups=[group]) == (b"passport scan", 1)


# -- A trusted group --


@needs_root
def test_the_user_of_the_server_must_be_a_member_of_the_trusted_group(public):  # noqa: F811
    home = own_directory(f"{public}/home", SERVER)

    def wrong():
        with pytest.raises(OptionError, match=r"trusted_group.*must be a group of the user"):
            prepare_directory(f"{home}/store", Ownership(12))
        return os.listdir(home)

    assert as_user(SERVER, wrong) == [], "and nothing is left"


@needs_root
def test_members_of_a_trusted_group_share_the_uploads(public):  # noqa: F811
    """Each of two users goes on with what the other has begun; a third one gets nothing."""
    group = 12
    own_directory(f"{public}/site", SERVER, 0o2770, gid=group)
    store = f"{public}/site/store"

    def opened():
        ownership = Ownership(group)
        return DirectoryStore(prepare_directory(store, ownership), ownership=ownership, limits=Limits(uploads=9))

    def begin():
        uploads = opened()
        upload = uploads.create(Upload(length=6))
        uploads.append(upload, 0, b"abc")
        return uploads.id_for("key"), upload.id

    def go_on(upload_id):
        uploads = opened()
        upload = uploads.append(uploads.load(upload_id), 3, b"def")
        claim = uploads.claim(upload)
        claim.begin()
        with claim.open() as file:
            content = file.read()
        claim.accept()
        uploads.sweep()
        return uploads.id_for("key"), content, uploads._quota.read().uploads

    def fails():
        with pytest.raises((OptionError, UploadLocked)) as wrong:
            opened()
        return str(wrong.value)

    key, upload_id = as_user(SERVER, begin, groups=[group])
    assert stat.S_IMODE(os.stat(store).st_mode) == 0o2770
    for path in Path(store).iterdir():
        assert (stat.S_IMODE(path.stat().st_mode), path.stat().st_gid) == (0o660, group)
    assert "trusted_group" in as_user(SERVER, lambda: refusal(store), groups=[group])
    assert as_user(STRANGER, lambda: go_on(upload_id), groups=[group]) == (key, b"abcdef", 0)
    assert "Permission denied" in as_user(STRANGER, fails)


@needs_root
def test_a_file_of_another_member_is_saved(public):  # noqa: F811
    """Only its owner can change the mode of a file, so it is copied."""
    group = 12
    home = own_directory(f"{public}/home", SERVER, 0o2770, gid=group)

    def receive():
        return finished(f"{home}/store", Ownership(group)).id

    def save():
        os.mkdir(f"{home}/files")
        service = Service(tmp_file_dir=f"{home}/store", trusted_group=group, threads=False, on_finished=take)
        found = [str(outcome) for _, outcome in service.backlog.run(everything=True)]
        service.close()
        return found, [path.read_bytes() for path in Path(home, "files").iterdir()]

    def take(upload):
        upload.save_to(f"{home}/files")

    as_user(SERVER, receive, groups=[group])
    assert as_user(STRANGER, save, groups=[group]) == (["accepted"], [b"passport scan"])


def test_what_is_not_ours_is_missing():
    """So that each caller treats it as a file that does not exist."""
    assert issubclass(NotOurs, FileNotFoundError)
