"""``FinishedUpload``: an upload while the application has it, with its data.

Law of this room: bytes that the application has not taken are not destroyed. An application takes them by ``open()``,
``save_to()`` or ``path``. Code of the 2014 release takes them by the path in the request's body. Then only the file
shows it, by its links or its access time. If nothing shows it, the data outlives the acceptance.
"""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Callable
from contextlib import suppress
from copy import copy
from functools import partial
from typing import Any, BinaryIO

from tus.adapters.interface import Replaces
from tus.errors import StorageUnavailable, UploadGone
from tus.filesystem.saving import GONE, Source, Target, save
from tus.http.filenames import safe_filename
from tus.models import Upload
from tus.stores.interface import Claim

log = logging.getLogger(__name__)

_SECOND = 1_000_000_000  # nanoseconds
_NOT_TAKEN = (
    "upload %s was accepted, but the application did not use upload.save_to(), upload.open() or upload.path, and the "
    "file shows no access. So the data is kept as long as its record (completed_keep), at %s. Note that with "
    "send_file = false the body of the request is only the path of the file; with send_file = true it is the file."
)


class FinishedUpload(Upload):
    """A finished upload that is being handed over, with the right to read its data.

    It has the attributes of :class:`~tus.models.Upload`, as they were when it was offered. Its methods work until the
    application accepts, rejects or postpones the file.

    Args:
        claim: the right to hand the upload over; its attempt has begun.

    Attributes:
        is_taken: whether the application has called ``open()`` or ``save_to()``, or has read ``path``.
        saved_as: the path that ``save_to()`` returned last; empty before.
    """

    __slots__ = ("_claim", "_is_first", "_marked", "_offered", "is_taken", "saved_as")

    def __init__(self, claim: Claim) -> None:
        self._claim = claim
        self._offered = claim.upload
        self.is_taken = False
        self.saved_as = ""
        self._is_first = claim.upload.attempts == 1  # no call of save_to() can have left anything
        self._marked: int | None = None  # the access time that was set before the application could read the path

    def __getattr__(self, name: str) -> Any:
        # The slots of the base class stay empty. To fill all of them would cost more than the rest of the hand-over.
        return getattr(self._offered, name)

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle it as a plain upload, because a claim belongs to its process."""
        self.is_taken = True
        return copy, (self._offered,)

    def __repr__(self) -> str:
        return f"Finished{self._offered!r}"

    @property
    def path(self) -> str | None:  # type: ignore[override]
        """The path of the data, if the store keeps it in a file."""
        self.is_taken = True
        return self._offered.path

    def open(self) -> BinaryIO:
        """Open the data for reading, whether or not the store keeps it in a file.

        Raises:
            UploadGone: the data is not there any more.
            StorageUnavailable: it cannot be opened now.
        """
        file = self.open_body()
        self.is_taken = True
        return file

    def open_body(self) -> BinaryIO:
        """Open the data as the body of a request. That alone does not mean that the application takes it.

        Raises:
            UploadGone: the data is not there any more.
            StorageUnavailable: it cannot be opened now.
        """
        try:
            return self._claim.open()
        except FileNotFoundError:
            raise UploadGone(GONE) from None
        except OSError as error:
            log.exception("the data of upload %s cannot be opened", self._offered.id)
            raise StorageUnavailable() from error

    def save_to(self, directory: str | os.PathLike[str], name: str | None = None, mode: int | None = None) -> str:
        """Save the file in a directory of the application, and return its path. It never replaces another file.

        If the wanted name is taken, the file gets a name with a suffix, such as ``film-3f2a9c.mp4``. A call that is
        repeated for the same upload, directory and name returns the same path and makes no second file. So the
        application may call it in each attempt, also after a crash.

        The file appears under its name once it is whole, and is on the disk when this returns. It is a hard link of
        the data if possible, and else a copy. So the application must not change the file before it has accepted it.

        Args:
            directory: an existing directory.
            name: the wanted name, by default ``filename``. Only its last segment counts, made safe.
            mode: the permissions, such as ``0o640``. By default the file gets the permissions and the group of any
                file that is created in the directory.

        Raises:
            FileNotFoundError: there is no such directory.
            UploadGone: the data is not there any more.
            StorageFull: there is no room for a copy.
            StorageUnavailable: the file system is read-only.
            OSError: another error of the file system.
        """
        claim, is_first, self._is_first = self._claim, self._is_first, False
        self.saved_as = save_upload(self._offered, claim.open, claim.sync, directory, name, mode, is_first)
        self.is_taken = True  # only now: an application may catch the error of a full disk, and accept
        return self.saved_as

    async def save_to_async(
        self, directory: str | os.PathLike[str], name: str | None = None, mode: int | None = None
    ) -> str:
        """Do :meth:`save_to` in a worker thread, under asyncio or trio."""
        from anyio import to_thread

        return await to_thread.run_sync(partial(self.save_to, directory, name, mode))


def save_upload(
    upload: Upload,
    open_data: Callable[[], BinaryIO],
    sync: Callable[[], None] | None,
    directory: str | os.PathLike[str],
    name: str | None,
    mode: int | None,
    is_first: bool = False,
) -> str:
    """Save the data of a complete upload, see :meth:`FinishedUpload.save_to`.

    Args:
        upload: as it is in the store.
        open_data: opens the data.
        sync: forces the data to the disk; None if nothing is known of it.
        directory: the directory.
        name: the wanted name.
        mode: the permissions.
        is_first: whether this is the first call for the upload, as far as its record says.
    """
    name = upload.filename if name is None else safe_filename(name, default=upload.filename)
    source = Source(upload, open_data, sync, is_first)
    return save(source, directory if isinstance(directory, Target) else os.fsdecode(directory), name, mode)


def offer(adapter: Replaces, upload: FinishedUpload, send_file: bool) -> BinaryIO:
    """Replace the request's body by a finished upload.

    Args:
        adapter: the request that completed the upload.
        upload: the finished upload.
        send_file: whether the new body is the file itself, not its path.

    Returns:
        The new body; the caller closes it.

    Raises:
        StorageUnavailable: the path was asked for, and the store has none.
    """
    offered = upload._offered
    file: Any
    if send_file:
        file = upload.open_body()
        size = offered.length or 0
    elif offered.path is None:
        raise StorageUnavailable()
    else:
        path = offered.path.encode(errors="surrogateescape")
        file, size = _PathBody(path, partial(_mark, upload)), len(path)
    try:
        adapter.replace_body(file, size, offered)
    except BaseException:
        file.close()
        raise
    body: BinaryIO = file
    return body


def claim_again(upload: FinishedUpload, claim: Claim) -> None:
    """Go on with another claim on the same upload, after the first one was released."""
    upload._claim = claim


class _PathBody(io.RawIOBase):
    """A body that is the path of a file. It calls a function before the application can read the path."""

    def __init__(self, path: bytes, before: Callable[[], None]) -> None:
        self._path = io.BytesIO(path)
        self._before = before

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._path.seek(offset, whence)

    def readinto(self, buffer: Any) -> int:
        self._before()
        return self._path.readinto(buffer)


def _mark(upload: FinishedUpload) -> None:
    """Set the access time of the data before its last change, so that a read by the application shows.

    A clock of the file system ticks some hundred times a second, so the times of a write and a read can be equal. Also,
    most mounts (``relatime``) only renew an access time that is not after the last change.
    """
    path = upload._offered.path
    if upload._marked is not None or upload.is_taken or path is None:
        return
    with suppress(OSError):
        changed = os.lstat(path).st_mtime_ns
        os.utime(path, ns=(changed - _SECOND, changed), follow_symlinks=False)
        upload._marked = os.lstat(path).st_atime_ns  # a file system may round it


def keep_untaken(upload: FinishedUpload) -> None:
    """Keep the data of an upload that the application is accepting, with a warning, unless it has taken the file.

    After this, only an acceptance must follow. It raises nothing, because the application has decided.
    """
    if upload.is_taken or _shows_access(upload) or not upload._claim.keep():
        return
    log.warning(_NOT_TAKEN, upload._offered.id, upload._offered.path or "no path")


def _shows_access(upload: FinishedUpload) -> bool:
    """Return whether the file was moved, linked or read; True also for an empty file, which nothing can lose."""
    path = upload._offered.path
    if not upload._offered.length:
        return True
    if path is None:
        return False
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    if status.st_nlink != 1:
        return True
    if upload._marked is not None:
        return status.st_atime_ns != upload._marked
    return status.st_atime_ns > status.st_mtime_ns
