"""Random histories of uploads with losses of power, and the promises that each policy makes about them."""

import os
import random
import tempfile
from collections import defaultdict
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from unittest import mock

from tests.powerloss.deliveries import Deliveries
from tests.powerloss.disk import Disk, Killed, PowerLoss
from tests.powerloss.workers import Broken, Workers
from tus.errors import RequestError, UploadGone, UploadLocked, UploadNotFound
from tus.filesystem import io as files
from tus.filesystem import saving
from tus.filesystem.ownership import Ownership
from tus.handover.finished import FinishedUpload
from tus.models import HookType, State, Upload
from tus.stores.directory import flushing
from tus.stores.directory import store as stores
from tus.stores.directory.store import DirectoryStore

POLICIES = ("none", "finish", "always")
LONGEST = 5000  # bytes of an upload
FLUSH_EVERY = 1200
_DECIDED = (State.ACCEPTED, State.REJECTED)


@dataclass(eq=False)
class Client:
    """An upload as its client and the application know it.

    Attributes:
        content: the whole file.
        upload: the upload as it was told last.
        told: the offset that the client was told last; None before it knows the upload.
        promised: whether the store has promised that the application gets the file without a client.
        success: whether the client or the application was told that the file is safe.
        decided: the decision of the application, once the store has recorded it.
        begun: whether the application was offered the file.
        sure: the most of it that is sure under the policy "always": a process may be killed after it has counted a
            block and before that is on the disk, and another one tells it.
        is_shaken: whether a sync has failed just before the power was lost, so that it may be lost.
        is_removed: whether its removal has begun.
        is_gone: whether its client was told that it is removed.
        saved_as: where the application has saved it.
    """

    content: bytes
    upload: Upload | None = None
    told: int | None = None
    sure: int = LONGEST
    promised: bool = False
    success: bool = False
    decided: State | None = None
    begun: bool = False
    is_shaken: bool = False
    is_removed: bool = False
    is_gone: bool = False
    saved_as: list[str] = field(default_factory=list)


class History:
    """One history: some uploads, up to three losses of power, and processes that are killed between them.

    The application saves files, or a spool takes them; and there may be a webhook.
    """

    def __init__(self, seed, ignored=lambda place: False, policy=None):
        self.choose = random.Random(seed)
        self.policy = policy or self.choose.choice(POLICIES)
        self.keeps = self.choose.random() < 0.3
        self.is_apart = self.choose.random() < 0.4  # the application's directory, on another file system
        self.has_marks = self.choose.random() < 0.8
        self.ignored = ignored
        self.clients = []
        self.saved = []  # the clients whose uploads the application has tried to save
        self.workers = Workers(self.choose) if self.choose.random() < 0.4 else None
        self.deliveries = Deliveries(self.choose, self.policy != "none") if self.choose.random() < 0.4 else None
        self.flushes = {}
        self.places = set()

    def run(self, base):
        """Run the history below a directory.

        Raises:
            Broken: a promise was not kept.
        """
        left = None
        for boot in range(1, self.choose.choice([2, 3, 4])):
            self._boot(base, left, bytes([boot]) * 16, self.ignored)
            with self._running(), suppress(PowerLoss):
                self._start()
                self._check_all()
                self._arm()
                for _ in range(self.choose.randrange(3, 30)):
                    self._act()
            self.places |= self.disk.places
            left = (self.root, *self.disk.after_loss())
        self._boot(base, left, b"the last boot".ljust(16), lambda place: False)
        with self._running():
            self._start()
            self._check_all()
            self._finish_all()

    def _boot(self, base, left, boot, ignored):
        """Switch the machine on, with what the last loss of power has left."""
        self.boot = boot
        self.root = tempfile.mkdtemp(dir=base)
        self.site = os.path.join(self.root, "site")
        apart = self.site if self.is_apart else None
        # A failed sync of the store's directory is about the names of many uploads, and is not taken as final.
        store = os.path.join(self.root, "store")
        self.disk = Disk([self.root], self.choose, apart, ignored=ignored, marks=self.has_marks, rewritten=store)
        if left is None:
            self.disk.add_folder(self.site)
        else:
            self._restore(*left)

    def _start(self):
        """Start a process of the server."""
        files._doubtful.clear()
        saving._doubtful.clear()
        path = os.path.join(self.root, "store")
        Ownership().prepare_directory(path, "tmp_file_dir")
        self.store = DirectoryStore(path, fsync=self.policy, lifetime=0, keep_finished=self.keeps, boot=self.boot)
        if self.workers is not None:
            self.workers.start(os.path.join(self.root, "spool"), self.disk)
        if self.deliveries is not None:
            self.deliveries.start(self.store, path)

    def _arm(self):
        """Choose the next moment at which the power is lost or the process is killed."""
        self.disk.left = self.choose.choice([None, self.choose.randrange(30), self.choose.randrange(200)])
        self.disk.ending = self.choose.choice([PowerLoss, PowerLoss, Killed])

    def _restore(self, old, names, contents):
        made = {}
        for folder, entries in names.items():
            here = self.root + folder[len(old) :]
            if folder != old:
                self.disk.add_folder(here)
            for name, file in entries.items():
                path = os.path.join(here, name)
                if id(file) in made:
                    self.disk.add_link(path, made[id(file)])
                else:
                    self.disk.add(path, *contents[id(file)])
                    made[id(file)] = path
        for client in self.clients:
            client.saved_as = [os.path.join(self.root, os.path.relpath(path, old)) for path in client.saved_as]

    @contextmanager
    def _running(self):
        """Watch the calls, and let flushes end when the history wants it."""

        def start(flush, path):
            flushing.flushes[path] = flush

        def wait(path):
            if path in flushing.flushes:
                flushing.flushes[path].run(path)

        with ExitStack() as held:
            held.enter_context(self.disk.watched())
            held.enter_context(mock.patch.object(flushing, "FLUSH_EVERY", FLUSH_EVERY))
            held.enter_context(mock.patch.object(flushing, "start", start))
            held.enter_context(mock.patch.object(flushing, "wait", wait))
            held.enter_context(mock.patch.object(stores, "_CREATION", 0.0))  # no other process is creating anything
            held.callback(self._end_flushes)
            yield

    @staticmethod
    def _end_flushes():
        for flush in list(flushing.flushes.values()):
            os.close(flush.data_fd)
        flushing.flushes.clear()

    # -- A boot --

    def _act(self):
        failures = len(self.disk.failed)
        if self.choose.random() < 0.05:
            self.disk.fails_next = True
        client, step = self._choose_step()
        safe = {other: other.success for other in self.clients}
        try:
            step()
        except OSError:
            if len(self.disk.failed) == failures:
                raise
        except RequestError:
            pass
        except PowerLoss:
            if client is not None:
                client.is_shaken = len(self.disk.failed) > failures
            raise
        except Killed:
            for other in self.clients:
                other.success = safe.get(other, False)
            if client is not None:
                client.sure = min(client.sure, client.told)
            self._end_flushes()
            self.disk.restart(self.disk.failed[failures:])
            self.disk.left = None
            self._start()
            self._check_parts()
            self._arm()
        if len(self.disk.failed) > failures and client is not None and not client.is_removed:
            self._notice_failure(client)

    def _choose_step(self):
        """Return a step and the client that it is about, if there is one."""
        alive = [client for client in self.clients if not client.is_removed and client.told is not None]
        if not alive or self.choose.random() < 0.15:
            steps = [self._create, self._create, self._concatenate, self._create_again]
            return None, self.choose.choice(steps) if len(self.clients) < 4 else self._create_again
        if self.workers is not None and self.choose.random() < 0.3:
            return None, self.workers.act
        if self.deliveries is not None and self.choose.random() < 0.15:
            return None, self.deliveries.act
        client = self.choose.choice(alive)
        if self.choose.random() < 0.03:
            return client, partial(self._remove, client)
        steps = [*[self._append] * 6, self._hand_over, self._promise, self._look, self._flush]
        return client, partial(self.choose.choice(steps), client)

    def _notice_failure(self, client):
        """Look at an upload after a disk has failed: it may have lost its bytes, but what is told now is true."""
        try:
            upload = self.store.load(client.upload.id)
        except (UploadGone, UploadNotFound):
            if client.success and client.decided is None and self.policy != "none":
                raise Broken("a file that was safe is gone") from None
            client.is_removed = True
            return
        if upload.offset < (client.told or 0):
            if client.upload.protocol == "ietf":
                raise Broken("the offset of an IETF upload has decreased")
            if client.success and self.policy != "none":
                raise Broken("a file that was safe has lost bytes")
            client.success = False
            client.told = upload.offset
        client.upload = upload

    # -- Steps --

    def _create(self):
        choose = self.choose
        content = choose.randbytes(choose.choice([1, 400, LONGEST, choose.randrange(1, LONGEST)]))
        client = Client(content)
        self.clients.append(client)
        protocol = choose.choice(["tus", "tus", "ietf"])
        draft = Upload(length=len(content), protocol=protocol, is_known=choose.random() < 0.9)
        failures = len(self.disk.failed)
        try:
            if choose.random() < 0.2 and len(content) < 2000 and self.deliveries is None:
                with _released(self.store.create_whole(draft, content)) as claim:
                    client.upload, client.told = claim.upload, len(content)
                    self._use(client, claim)
            else:
                client.upload = self.store.create(draft)
                self._announce(client)
                client.told = 0
        except (OSError, RequestError):
            if len(self.disk.failed) == failures:
                raise
            if client.told is not None:
                self._notice_failure(client)
            else:
                client.is_removed = True  # no client knows it

    def _announce(self, client):
        """Tell the endpoint about a new upload, which is removed if that fails, and its client never knows it."""
        if self.deliveries is not None:
            try:
                event = self.deliveries.put(HookType.POST_CREATE, client.upload, may_be=True)
            except OSError:
                with suppress(OSError):
                    self.store.remove(client.upload.id)
                raise
            event.owe()

    def _concatenate(self):
        """Create a final upload of two parts."""
        contents = [self.choose.randbytes(self.choose.randrange(1, 2000)) for _ in range(2)]
        parts = [self.store.create(Upload(length=len(content), concat="partial")) for content in contents]
        parts = [self.store.append(part, 0, content) for part, content in zip(parts, contents, strict=True)]
        ids = tuple(part.id for part in parts)
        client = Client(b"".join(contents), self.store.create(Upload(concat="final;/a", parts=ids)))
        client.upload, client.told = self.store.concatenate(client.upload.id, parts), len(client.content)
        self.clients.append(client)

    def _create_again(self):
        """Create an upload with the id of one that was removed, as a client with an Idempotency-Key does."""
        removed = [client for client in self.clients if client.is_removed and client.upload is not None]
        if not removed:
            return
        old = self.choose.choice(removed)
        with suppress(RequestError):
            content = self.choose.randbytes(len(old.content))
            upload = self.store.create_once(Upload(id=old.upload.id, length=len(content)))
            if upload is not None:
                self.clients.remove(old)
                self.clients.append(Client(content, upload, 0))

    def _append(self, client):
        choose, upload = self.choose, client.upload
        if client.told >= len(client.content) or upload.is_final:
            return
        block = client.content[client.told : client.told + choose.randrange(1, 1500)]
        is_last = client.told + len(block) == len(client.content)
        if is_last and choose.random() < 0.5 and self.deliveries is None:
            with _released(self.store.complete(upload, client.told, block)) as claim:
                client.upload, client.told, client.sure = claim.upload, len(client.content), LONGEST
                self._use(client, claim)
        elif choose.random() < 0.5:
            client.upload = self.store.append(upload, client.told, block)
            client.told, client.sure = client.upload.offset, LONGEST
        else:
            with self.store.open(upload, client.told, staged=choose.random() < 0.2) as session:
                for start in range(0, len(block), 500):
                    session.write(block[start : start + 500])
                    client.told, client.sure = session.upload.offset, LONGEST
                if choose.random() < 0.9:
                    client.upload = session.commit()
                    client.told = client.upload.offset

    def _look(self, client):
        upload = self.store.load(client.upload.id)
        if client.upload.protocol == "ietf" and upload.state == State.RECEIVING:
            upload = self.store.fence(upload)
        self._tell(client, upload)

    def _tell(self, client, upload):
        """A client learns the offset of its upload, as long as the machine runs."""
        if upload.offset < client.told:
            raise Broken(f"the offset has decreased from {client.told} to {upload.offset} while the machine runs")
        client.upload, client.told = upload, upload.offset

    def _flush(self, client):
        path = client.upload.path
        if path in flushing.flushes:
            flushing.flushes[path].run(path)

    def _promise(self, client):
        upload = self.store.promise(client.upload)
        if upload.is_complete:
            client.success, client.promised = True, upload.is_pending
        self._tell(client, upload)

    def _hand_over(self, client):
        upload = self.store.load(client.upload.id)
        if upload.is_pending:
            with _released(self.store.claim(upload)) as claim:
                if claim.upload.is_pending:
                    claim.begin()
                    self._use(client, claim)

    def _use(self, client, claim):
        """Be the application or the spool, which gets a file."""
        client.success = client.begun = True
        event = None
        if self.deliveries is not None:
            event = self.deliveries.put(HookType.POST_FINISH, claim.upload)
        with claim.open() as file:
            if file.read() != client.content:
                raise Broken("the application gets another file")
        if self.workers is not None:
            self.workers.receive(client, claim)
            outcome = self.choose.choice([claim.accept, claim.accept, claim.accept, None])
        else:
            if self.choose.random() < 0.4:
                self._save(client, claim)
            outcome = self.choose.choice([claim.accept, claim.accept, claim.reject, None])
        if event is not None and outcome == claim.accept:
            if client.saved_as:  # it is put again with the path
                event = self.deliveries.put(HookType.POST_FINISH, claim.upload)
            event.may_be()
        elif event is not None:
            event.drop()
        if outcome is not None:
            failures = len(self.disk.failed)
            outcome()
            if len(self.disk.failed) == failures:
                client.decided = claim.upload.state
                if event is not None and outcome == claim.accept:
                    event.owe()

    def _save(self, client, claim):
        if client not in self.saved:
            self.saved.append(client)
        path = FinishedUpload(claim).save_to(self.site, f"file-{len(client.content)}")
        if client.saved_as and client.saved_as != [path]:
            raise Broken("a file is saved under a second name")
        client.saved_as = [path]

    def _remove(self, client):
        upload, event, failures = self.store.load(client.upload.id), None, len(self.disk.failed)
        if upload.state == State.HANDING_OVER:
            return
        if self.deliveries is not None:
            event = self.deliveries.put(HookType.POST_TERMINATE, upload, may_be=True)
        client.is_removed = True
        self.store.remove(client.upload.id)
        if len(self.disk.failed) == failures:
            client.is_gone = self.policy != "none"
            if event is not None:
                event.owe()

    # -- Promises --

    def _check_all(self):
        self._check_site()
        self._check_parts()
        for client in self.clients:
            if client.upload is not None and client.told is not None:
                self._check(client)

    def _check(self, client):
        try:
            upload = self.store.load(client.upload.id)
        except (UploadGone, UploadNotFound, UploadLocked):
            upload = None
        if client.is_gone and upload is not None and upload.key == client.upload.key:
            raise Broken("an upload is there again that was removed")
        for path in client.saved_as:
            self._check_saved(client, path)
        if upload is not None and upload.state not in _DECIDED:
            with open(upload.path, "rb") as file:
                if file.read(upload.offset) != client.content[: upload.offset]:
                    raise Broken(f"wrong bytes below the offset {upload.offset}, {upload.state.name}")
        if client.is_removed:
            return
        offset = -1 if upload is None else upload.offset
        told = min(client.told, client.sure)
        if upload is not None and client.upload.protocol == "ietf" and offset < told:
            raise Broken(f"the offset of an IETF upload has decreased from {client.told} to {offset}")
        if upload is not None and upload.state == State.ACCEPTED and not client.begun:
            raise Broken("an upload is accepted that no application was offered")
        if not client.is_shaken:
            self._check_promises(client, upload, offset)
        if upload is None or (upload.is_final and not upload.is_complete):
            client.is_removed = True
        else:
            client.upload, client.told, client.sure, client.is_shaken = upload, offset, LONGEST, False
            client.success = upload.is_complete and self.policy != "none"
            client.decided = upload.state if upload.state in _DECIDED else None

    def _check_promises(self, client, upload, offset):
        if self.policy == "always" and offset < min(client.told, client.sure) and client.decided is None:
            raise Broken(f"the client was told {client.told}, and there are {offset}")
        if self.policy != "none" and client.success:
            if upload is None or not upload.is_complete:
                raise Broken("a file that was told to be safe is lost")
            if client.promised and upload.is_pending and not upload.is_known:
                raise Broken("a promise is lost")
            if client.decided is not None and upload.state != client.decided:
                raise Broken(f"the decision {client.decided.name} is lost: {upload.state.name}")

    def _check_saved(self, client, path):
        try:
            with open(path, "rb") as file:
                content = file.read()
        except FileNotFoundError:
            content = None
        if content != client.content:
            raise Broken(f"a saved file is {'lost' if content is None else 'damaged'}")

    def _check_parts(self):
        if self.workers is not None:
            self.workers.check()
        if self.deliveries is not None:
            self.deliveries.check()

    def _check_site(self):
        """Check the directory of the application: each visible file is whole, and each upload has one at most."""
        expected = [client.content for client in self.saved]
        left = list(expected)
        for name in os.listdir(self.site):
            if not name.startswith("."):
                with open(os.path.join(self.site, name), "rb") as file:
                    content = file.read()
                if content not in left:
                    raise Broken("a file is saved twice" if content in expected else "a visible file is not whole")
                left.remove(content)

    @contextmanager
    def _rest(self, client):
        """Send the rest of an upload; yield the claim with which it is handed over."""
        if client.told < len(client.content):
            with _released(self.store.complete(client.upload, client.told, client.content[client.told :])) as claim:
                yield claim
        else:
            with _released(self.store.claim(client.upload)) as claim:
                claim.begin()
                yield claim

    def _finish_all(self):
        """Let each client finish its upload."""
        for client in self.clients:
            if client.is_removed or client.told is None or client.upload.state in _DECIDED:
                continue
            with suppress(UploadLocked), self._rest(client) as claim:
                with claim.open() as file:
                    content = file.read()
                if self.workers is not None:
                    self.workers.receive(client, claim)
                elif client.saved_as or self.choose.random() < 0.5:
                    self._save(client, claim)
                event = self.deliveries and self.deliveries.put(HookType.POST_FINISH, claim.upload, may_be=True)
                claim.accept()
                if event is not None:
                    event.owe()
                if content != client.content:
                    raise Broken("the application gets another file")
        self._check_site()
        if self.workers is not None:
            self.workers.finish()
        if self.deliveries is not None:
            self.deliveries.finish()


@contextmanager
def _released(claim):
    """Yield a claim, and release it whatever happens."""
    try:
        yield claim
    finally:
        claim.release()


@contextmanager
def room():
    """Yield a directory, in memory if possible."""
    base = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="tus-powerloss-", dir=base) as directory:
        yield directory


def run(seed, rounds, ignored=lambda place: False, policy=None):
    """Run some histories, a number of them or those of these numbers.

    Returns:
        The numbers of the histories in which each place has synced; and the first failure with its round, or None.
    """
    places = defaultdict(list)
    logged = mock.patch.multiple("tus.stores.directory.record", log=mock.DEFAULT)
    with (
        room() as base,
        logged,
        mock.patch("tus.stores.directory.flushing.log"),
        mock.patch("tus.handover.receivers.log"),
        mock.patch("tus.handover.spool.log"),
        mock.patch("tus.hooks.outbox.log"),
        mock.patch("tus.stores.directory.store.log"),
        mock.patch("tus.stores.directory.claims.log"),
    ):
        for number in range(rounds) if isinstance(rounds, int) else rounds:
            with tempfile.TemporaryDirectory(dir=base) as here:
                history = History(f"{seed}:{number}", ignored, policy)
                try:
                    history.run(here)
                except Broken as error:
                    return places, (number, history.policy, error)
                except Exception as error:
                    error.add_note(f"round {number} of seed {seed}, fsync = {history.policy}")
                    raise
                for place in history.places:
                    places[place].append(number)
    return places, None
