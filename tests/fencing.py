"""Writers that race for the same uploads while they are stopped and killed; then every byte is accounted for.

``python -m tests.fencing --kills 1500`` runs it; ``--mutant`` takes one of the store's safeguards out, so that it can
be seen to fail. It prints what it counted, and ends with status 1 and the reasons where something was wrong.

Each session writes blocks that say who wrote them and where. So the counted part of a file must be a row of whole
blocks, each at its own place, and must contain every block that a writer saw counted before it died. Readers, which
take no lock, must never see an offset shrink or lie beyond the data. Uploads are completed and created in one step as
well as in several, and handed over; two live processes must never hand the same upload over, and what was accepted
stays accepted.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import struct
import sys
import tempfile
import time
import traceback
import types
from pathlib import Path

from tus.errors import OffsetMismatch, UploadGone, UploadLocked, UploadNotFound, UploadReplaced
from tus.models import State, Upload
from tus.stores.directory import claims, completion, sessions
from tus.stores.directory import record as files
from tus.stores.directory import record_format as sidecar
from tus.stores.directory.store import DirectoryStore
from tus.stores.interface import Claim
from tus.stores.slots import Slot

HEAD = struct.Struct("<4sQQI")  # magic, tag of the session, offset of the block, bytes of payload
ACK = struct.Struct("<32sQQ")  # upload, offset, tag
PF_EXITING = 0x4  # a flag of a process in /proc/PID/stat
ACCEPTED = 2**64 - 1  # in place of an offset: the upload was accepted
MAGIC = b"BLK1"
WRITERS, READERS, UPLOADS = 6, 1, 2
FULL = 1 << 20  # bytes after which an upload is completed and another begun


# -- Mutants ------------------------------------------------------------------------------------------------------


def without_generation_check() -> None:
    sessions.DirectorySession._check_generation = lambda self: None


def without_lock() -> None:
    for module in (files, completion, sessions, claims):
        module.unlock = lambda fd: None
    files.fcntl = types.SimpleNamespace(flock=lambda fd, how: None)


def with_rename() -> None:
    def change(self: files.SideCar, slot: Slot) -> None:
        packed, position = sidecar.pack_slot(slot), sidecar.position_of(slot)
        whole = bytearray(files.read_all(self.fd))
        whole[position : position + len(packed)] = packed
        temporary = f"{self.path}.{os.getpid()}.new"
        Path(temporary).write_bytes(whole)
        os.rename(temporary, f"{self.path}.tus")
        self.slot = slot

    files.SideCar.change = change


def without_data_lock() -> None:
    completion.fcntl = types.SimpleNamespace(flock=lambda fd, how: None)


MUTANTS = {
    "no-generation-check": without_generation_check,
    "no-flock": without_lock,
    "rename": with_rename,
    "no-data-lock": without_data_lock,
}


# -- The processes ------------------------------------------------------------------------------------------------


def block(tag: int, offset: int, size: int) -> bytes:
    return HEAD.pack(MAGIC, tag, offset, size) + (tag.to_bytes(8, "little") * (size // 8 + 1))[:size]


def write_for_ever(store: DirectoryStore, acks: Path) -> None:
    log = os.open(acks / str(os.getpid()), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    while True:
        uploads = list(store.list())
        growing = [upload for upload in uploads if upload.state == State.RECEIVING and upload.length is None]
        waiting = [upload for upload in uploads if upload.is_pending]
        if len(growing) < UPLOADS:
            if random.random() < 0.5:
                create_whole(store, log, acks)
            else:
                store.create(Upload())
            continue
        upload = random.choice(growing)
        with contextlib.suppress(OffsetMismatch, UploadReplaced, UploadLocked, UploadNotFound, UploadGone):
            if waiting and random.random() < 0.1:
                claim = store.claim(random.choice(waiting))
                if claim.upload.is_pending:
                    claim.begin()
                hand_over(claim, log, acks)
            elif upload.offset > FULL and random.random() < 0.3:
                store.append(upload, upload.offset, b"", length=upload.offset)
            elif upload.offset > FULL or random.random() < 0.02:
                complete_at_once(store, upload, log, acks)
            elif random.random() < 0.2:
                append_at_once(store, upload, log)
            else:
                append_in_a_session(store, upload, log)


def append_at_once(store: DirectoryStore, upload: Upload, log: int) -> None:
    tag, offset = random.getrandbits(64), upload.offset
    store.append(upload, offset, block(tag, offset, random.randrange(3000)))
    os.write(log, ACK.pack(upload.id.encode(), offset, tag))


def complete_at_once(store: DirectoryStore, upload: Upload, log: int, acks: Path) -> None:
    tag, offset = random.getrandbits(64), upload.offset
    data = block(tag, offset, random.randrange(3000))
    claim = store.complete(upload, offset, data, length=offset + len(data))
    os.write(log, ACK.pack(upload.id.encode(), offset, tag))
    hand_over(claim, log, acks)


def create_whole(store: DirectoryStore, log: int, acks: Path) -> None:
    tag = random.getrandbits(64)
    data = block(tag, 0, random.randrange(3000))
    claim = store.create_whole(Upload(length=len(data)), data)
    os.write(log, ACK.pack(claim.upload.id.encode(), 0, tag))
    hand_over(claim, log, acks)


def hand_over(claim: Claim, log: int, acks: Path) -> None:
    """Do what an application does, which takes its time, and sometimes does not want the file yet."""
    upload = claim.upload
    if not upload.is_pending:
        claim.release()
        return
    mark = acks.parent / "marks" / upload.id
    if mark.exists() and is_alive(mark.read_text()):
        with (acks.parent / "complaints" / "handovers").open("a") as file:
            file.write(f"{upload.id} is handed over by two processes\n")
    mark.write_text(str(os.getpid()))
    time.sleep(random.random() * 0.02)
    mark.write_text("")
    if random.random() < 0.3:
        claim.release("not now")
        return
    claim.accept()
    os.write(log, ACK.pack(upload.id.encode(), ACCEPTED, 0))


def is_alive(pid: str) -> bool:
    """Whether a process runs or is stopped. One that is exiting has released its locks before it is a zombie."""
    try:
        stat = Path("/proc", pid, "stat").read_text() if pid else ""
    except (FileNotFoundError, ProcessLookupError):
        return False
    if not stat:
        return False
    fields = stat.rpartition(")")[2].split()
    return fields[0] not in "ZX" and not int(fields[6]) & PF_EXITING


def append_in_a_session(store: DirectoryStore, upload: Upload, log: int) -> None:
    tag, offset = random.getrandbits(64), upload.offset
    staged = random.random() < 0.2
    written = []
    with store.open(upload, offset, staged=staged) as session:
        for _ in range(random.randrange(1, 8)):
            data = block(tag, offset, random.choice((0, 10, 1000, 40_000)))
            session.write(data)
            written.append(ACK.pack(upload.id.encode(), offset, tag))
            if not staged:
                os.write(log, written.pop())
            offset += len(data)
            if random.random() < 0.3:
                time.sleep(random.random() * 0.004)  # a slow client, whom others overtake
        if staged and random.random() < 0.7:
            session.commit()
            os.write(log, b"".join(written))


def read_for_ever(store: DirectoryStore, complaints: Path) -> None:
    seen: dict[str, int] = {}
    count = 0
    log = os.open(complaints.parent / f"reads.{os.getpid()}", os.O_WRONLY | os.O_CREAT)
    while True:
        for upload in store.list():
            count += 1
            before = seen.get(upload.id, 0)
            if upload.offset < before:
                with (complaints / "readers").open("a") as file:
                    file.write(f"the offset of {upload.id} went from {before} back to {upload.offset}\n")
            seen[upload.id] = max(before, upload.offset)
        os.pwrite(log, b"%20d" % count, 0)


def fork(work, *arguments) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        random.seed()
        work(*arguments)
    except BaseException:
        with (arguments[-1].parent / "complaints" / "crashes").open("a") as file:
            traceback.print_exc(file=file)
    finally:
        os._exit(1)


# -- The verdict --------------------------------------------------------------------------------------------------


def account(store: DirectoryStore, base: Path) -> tuple[list[str], int]:
    """What is wrong, and how many blocks were looked at."""
    wrong: list[str] = []
    blocks: dict[tuple[str, int], int] = {}
    for upload in store.list():
        data = (base / "store" / upload.id).read_bytes()
        if len(data) < upload.offset:
            wrong.append(f"{upload.id}: {upload.offset} bytes are counted, {len(data)} stored")
        position = 0
        while position < upload.offset:
            head = data[position : position + HEAD.size]
            magic, tag, offset, size = HEAD.unpack(head) if len(head) == HEAD.size else (b"", 0, 0, 0)
            whole = data[position : position + HEAD.size + size]
            if (magic, offset) != (MAGIC, position) or whole != block(tag, offset, size):
                wrong.append(f"{upload.id}: no whole block at {position}")
                break
            blocks[upload.id, position] = tag
            position += len(whole)
        else:
            if position != upload.offset:
                wrong.append(f"{upload.id}: the last block ends at {position}, {upload.offset} bytes are counted")
    for log in (base / "acks").iterdir():
        data = log.read_bytes()
        for start in range(0, len(data) - ACK.size + 1, ACK.size):
            raw_id, offset, tag = ACK.unpack_from(data, start)
            if offset == ACCEPTED:
                if store.load(raw_id.decode()).state != State.ACCEPTED:
                    wrong.append(f"{raw_id.decode()}: it was accepted, and is not any more")
            elif blocks.get((raw_id.decode(), offset)) != tag:
                wrong.append(f"{raw_id.decode()}: a counted block at {offset} is not there any more")
    for complaint in (base / "complaints").iterdir():
        wrong.extend(complaint.read_text().splitlines())
    return wrong, len(blocks)


def run(base: Path, kills: int, patience: float) -> list[str]:
    """Race until so many writers were killed, or something is found wrong, or ``patience`` seconds are over."""
    for name in ("store", "acks", "complaints", "marks"):
        (base / name).mkdir()
    store = DirectoryStore(str(base / "store"), fsync="none", keep_finished=True)
    for _ in range(UPLOADS):
        store.create(Upload())
    writers = [fork(write_for_ever, store, base / "acks") for _ in range(WRITERS)]
    readers = [fork(read_for_ever, store, base / "complaints") for _ in range(READERS)]
    killed = stopped = 0
    began = time.monotonic()
    try:
        while killed < kills and time.monotonic() - began < patience:
            time.sleep(random.random() * 0.02)
            victim = random.randrange(WRITERS)
            if random.random() < 0.3:
                os.kill(writers[victim], signal.SIGSTOP)
                time.sleep(random.random() * 0.03)
                os.kill(writers[victim], signal.SIGCONT)
                stopped += 1
            else:
                os.kill(writers[victim], signal.SIGKILL)
                os.waitpid(writers[victim], 0)
                writers[victim] = fork(write_for_ever, store, base / "acks")
                killed += 1
    finally:
        for pid in writers + readers:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    wrong, blocks = account(store, base)
    reads = sum(int(path.read_text() or 0) for path in base.glob("reads.*"))
    uploads = len(list(store.list()))
    print(f"{killed} kills, {stopped} pauses, {uploads} uploads, {blocks} blocks, {reads} reads, {len(wrong)} wrong")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=1500)
    parser.add_argument("--patience", type=float, default=600, help="seconds")
    parser.add_argument("--mutant", choices=MUTANTS)
    options = parser.parse_args()
    if options.mutant:
        MUTANTS[options.mutant]()
    with tempfile.TemporaryDirectory() as base:
        wrong = run(Path(base), options.kills, options.patience)
    for line in wrong[:20]:
        print(line)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
