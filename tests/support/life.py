"""The life of uploads in a directory, from creation to removal, with the spool and the outbox, as plain calls."""

from tus.handover.spool import Spool
from tus.hooks.outbox import Event, Outbox
from tus.models import Upload
from tus.stores.directory.store import DirectoryStore
from tus.stores.interface import Limits


def live(directory, **policy):
    """Let uploads live in a new directory, and raise if one of them does not get through."""
    directory.mkdir()
    (directory / "uploads").mkdir()
    (directory / "saved").mkdir()
    store = DirectoryStore(str(directory / "uploads"), limits=Limits(uploads=100), **policy)
    _receive(store)
    _hand_over(store, Spool(str(directory / "spool")))
    _concatenate(store)
    _tell(str(directory / "outbox"))
    store.id_for("a text")
    store.remove(store.append(store.create(Upload(length=9)), 0, b"four").id)
    store.sweep()
    assert store.statistics().accepted == 3
    assert store.statistics().unfinished == 1


def _receive(store):
    upload = store.create(Upload(length=8, hashes=("sha256",)))
    with store.open(upload, 0) as session:
        session.write(b"four")
        upload = session.commit()
    with store.open(store.fence(upload), 4, staged=True) as session:
        session.write(b"more")
        session.write(b"")
    assert store.load(upload.id).offset == 4


def _hand_over(store, spool):
    claim = store.complete(store.create(Upload(length=4)), 0, b"four")
    spool.put(claim.upload, claim.upload.key)
    claim.accept()
    with spool.claim(0) as spooled, open(spooled.path, "rb") as file:
        assert file.read() == b"four"
    assert spool.purge(0) == 1
    claim = store.create_whole(Upload(length=4), b"four")
    claim.release("not now")
    claim = store.claim(store.load(claim.upload.id))
    claim.begin()
    with claim.open() as file:
        assert file.read() == b"four"
    claim.accept()


def _concatenate(store):
    parts = [store.append(store.create(Upload(length=4, concat="partial")), 0, b"part") for _ in range(2)]
    final = store.create(Upload(length=8, concat="final", parts=tuple(part.id for part in parts)))
    store.watch(parts[0].id, final.id)
    assert list(store.finals_of(parts[0].id)) == [final.id]
    store.touch(final.id)
    claim = store.claim(store.concatenate(final.id, parts))
    claim.begin()
    claim.accept()
    for part in parts:
        store.remove(part.id)


def _tell(directory):
    told = []
    outbox = Outbox(directory, told.append)
    outbox.put("0" * 32, Event("id", "post-finish", "ab" * 16, "{}"))
    outbox.flush()
    assert len(told) == 1
