"""The counts of each principal: a change reads and writes the same few bytes, however many principals there are."""

import os

import pytest

from tests.support.limits import EACH, counts
from tus.errors import StorageFull, TooManyUploads
from tus.filesystem.ownership import Ownership
from tus.models import Upload
from tus.stores.directory import principals as module
from tus.stores.directory import quota
from tus.stores.directory.principals import open_principals, replacing
from tus.stores.directory.store import DirectoryStore
from tus.stores.interface import Limits

MANY = 5000


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "each")


def build(path, each):
    with replacing(path, Ownership(), each) as (_, replace):
        replace()


@pytest.fixture
def reads(monkeypatch):
    """The number of bytes of each read."""
    sizes, pread = [], os.pread

    def read(fd, size, position):
        sizes.append(size)
        return pread(fd, size, position)

    monkeypatch.setattr(module.os, "pread", read)
    return sizes


def pair(number):
    return number + 1, number * 7


@pytest.mark.parametrize("before", [0, 1, MANY], ids=["empty", "one", "many"])
def test_principals_are_found_again(path, reads, before):
    """A file that was made for few of them grows by regions; a new one has few in each page."""
    build(path, {f"user {number}": pair(number) for number in range(before)})
    with open_principals(path, Ownership()) as principals:
        for number in range(before, MANY):
            assert principals.get(f"user {number}") == (0, 0)
            principals.set(f"user {number}", pair(number))
        for number in range(MANY):
            reads.clear()
            assert principals.get(f"user {number}") == pair(number)
            assert sum(reads) <= 4096 * (2 if before == MANY else 7)
        principals.set("user 3", (0, 0))
        assert (principals.get("user 3"), principals.get("user 4")) == ((0, 0), pair(4))
    assert os.stat(path).st_size < 4096 * (2 + MANY // 16)
    assert os.listdir(os.path.dirname(path)) == ["each"]


def test_numbers_that_look_like_a_principal_are_none(path):
    digest = module._digest_of("eve")
    numbers = int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")
    build(path, {"ann": numbers})
    with open_principals(path, Ownership()) as principals:
        assert principals.get("eve") == (0, 0)
        principals.set("eve", (1, 2))
        principals.set("\ud800", (2**70, 3))
        assert principals.get("eve") == (1, 2)
        assert principals.get("ann") == numbers
        assert principals.get("\ud800") == (2**64 - 1, 3)


@pytest.mark.parametrize("content", [b"", b"tuse", b"tuse\0\0\0\0", b"tuse\xff\xff\xff\xff", b"x" * 4096])
def test_a_damaged_file_is_counted_again(tmp_path, content):
    store = DirectoryStore(str(tmp_path), limits=Limits(uploads_each=2))
    store.create(Upload(length=5, principal="ann"))
    (tmp_path / EACH).write_bytes(content)
    store.create(Upload(length=5, principal="ann"))
    with pytest.raises(TooManyUploads):
        store.create(Upload(length=5, principal="ann"))
    assert counts(tmp_path) == {"uploads": 2, "size": 10, "each": {"ann": [2, 10]}}


def test_limits_that_are_new_know_the_uploads_that_are_there(tmp_path):
    DirectoryStore(str(tmp_path), limits=Limits(uploads=9)).create(Upload(length=5, principal="ann"))
    store = DirectoryStore(str(tmp_path), limits=Limits(uploads_each=1))
    with pytest.raises(TooManyUploads):
        store.create(Upload(length=5, principal="ann"))


def test_a_creation_reads_no_more_with_many_principals(tmp_path, reads):
    store = DirectoryStore(str(tmp_path), limits=Limits(uploads_each=2), fsync="none")
    store.create(Upload(length=5, principal="first"))
    build(str(tmp_path / EACH), {f"user {number}": (1, 5) for number in range(MANY)})
    reads.clear()
    store.create(Upload(length=5, principal="user 7"))
    assert sum(reads) < 9000
    assert (tmp_path / quota.NAME).stat().st_size < 200


def test_a_crash_between_the_files_leaves_the_counts_too_high(tmp_path, monkeypatch):
    store = DirectoryStore(str(tmp_path), limits=Limits(uploads_each=2, uploads=9))
    store.create(Upload(length=5, principal="ann"))
    with monkeypatch.context() as patch, pytest.raises(StorageFull):
        patch.setattr(quota, "write_at", lambda fd, offset, block: 0)
        store.create(Upload(length=5, principal="ann"))
    assert counts(tmp_path) == {"uploads": 1, "size": 5, "each": {"ann": [2, 10]}}
    store.sweep()
    assert counts(tmp_path) == {"uploads": 1, "size": 5, "each": {"ann": [1, 5]}}
    assert not [name for name in os.listdir(tmp_path) if name.startswith(EACH + "-")]
