"""Side-cars that cannot be read: a sweep removes those without bytes once they are old, and no others."""

import os

import pytest

from tests.support.clocks import Clocks
from tus.models import Upload
from tus.stores.directory.damaged import MARGIN
from tus.stores.directory.record_format import SLOTS_SIZE
from tus.stores.directory.store import DirectoryStore

DAY = 86400.0
OLD = DAY + MARGIN + 1


@pytest.fixture
def clock():
    return Clocks()


@pytest.fixture
def store(tmp_path, clock):
    return DirectoryStore(str(tmp_path), clock=clock, steady=clock.steady, lifetime=DAY)


def spoil(upload, content, clock):
    """Damage a side-car, by a crash that happens now."""
    car = upload.path + ".tus"
    with open(car, "rb") as file:
        whole = file.read()
    with open(car, "wb") as file:
        file.write(content(whole))
    os.utime(car, (clock.now, clock.now))


def flip(whole, position):
    return whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :]


DAMAGES = {
    "empty": lambda whole: b"",
    "zeros": lambda whole: bytes(len(whole)),
    "cut in the slots": lambda whole: whole[:100],
    "cut in the record": lambda whole: whole[: SLOTS_SIZE + 20],
    "torn slots": lambda whole: flip(flip(whole, 40), SLOTS_SIZE // 2 + 40),
    "torn record": lambda whole: flip(whole, len(whole) - 5),
}


def names(upload):
    return sorted(name for name in os.listdir(os.path.dirname(upload.path)) if name.startswith(upload.id))


@pytest.mark.parametrize("has_data", [True, False], ids=["data", "no data"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_it_is_removed_once_it_is_old(store, clock, damage, has_data):
    upload = store.create(Upload(length=9))
    spoil(upload, DAMAGES[damage], clock)
    if not has_data:
        os.unlink(upload.path)
    before = names(upload)
    clock.wait(OLD - 2)
    assert (store.sweep(), names(upload)) == (0, before)
    clock.wait(2)
    assert (store.sweep(), names(upload)) == (1, [])


@pytest.mark.parametrize("damage", DAMAGES)
def test_bytes_are_never_removed(store, clock, damage):
    upload = store.append(store.create(Upload(length=9)), 0, b"abc")
    spoil(upload, DAMAGES[damage], clock)
    clock.wait(100 * OLD)
    assert (store.sweep(), len(names(upload))) == (0, 2)
    with open(upload.path, "rb") as file:
        assert file.read() == b"abc"


def test_bytes_that_a_slot_has_counted_leave_a_trace_for_the_operator(store, clock):
    upload = store.append(store.create(Upload(length=9)), 0, b"abc")
    spoil(upload, DAMAGES["torn record"], clock)
    os.truncate(upload.path, 0)
    clock.wait(100 * OLD)
    assert (store.sweep(), len(names(upload))) == (0, 2)


def test_an_upload_without_bytes_that_waits_for_the_application_stays(store, clock):
    upload = store.promise(store.create(Upload(length=0)))
    spoil(upload, DAMAGES["torn record"], clock)
    clock.wait(100 * OLD)
    assert (store.sweep(), len(names(upload))) == (0, 2)


@pytest.mark.parametrize("content", [b"a note", b"\0" * 300 + b"x"])
def test_a_file_of_another_program_stays(store, clock, content):
    upload = store.create(Upload(length=9))
    spoil(upload, lambda whole: content, clock)
    clock.wait(OLD)
    assert (store.sweep(), len(names(upload))) == (0, 2)


def test_a_second_name_of_a_side_car_is_no_damage(store, clock):
    """The record is that of another upload, which goes on."""
    upload = store.append(store.create(Upload(length=9)), 0, b"abc")
    second = os.path.join(store.directory, "5" * 32 + ".tus")
    os.link(upload.path + ".tus", second)
    os.utime(second, (clock.now - OLD, clock.now - OLD))
    assert (store.sweep(), os.path.exists(second), store.load(upload.id).offset) == (0, True, 3)
    os.unlink(second)
    with open(second, "wb") as copy, open(upload.path + ".tus", "rb") as original:
        copy.write(original.read())
    os.utime(second, (clock.now - OLD, clock.now - OLD))
    assert (store.sweep(), os.path.exists(second)) == (0, True)


@pytest.mark.parametrize("spoilt", [lambda path: os.chmod(path, 0o666), lambda path: os.link(path, path + ".x")])
def test_data_that_others_may_have_written_or_named_stays(store, clock, spoilt):
    upload = store.create(Upload(length=9))
    spoil(upload, DAMAGES["empty"], clock)
    spoilt(upload.path)
    spoilt(upload.path + ".tus")
    clock.wait(OLD)
    assert store.sweep() == 0
    assert len(names(upload)) >= 2


def test_uploads_that_live_for_ever_leave_damaged_ones_to_the_operator(tmp_path, clock):
    store = DirectoryStore(str(tmp_path), clock=clock, steady=clock.steady, lifetime=0)
    upload = store.create(Upload(length=9))
    spoil(upload, DAMAGES["empty"], clock)
    clock.wait(100 * OLD)
    assert (store.sweep(), len(names(upload))) == (0, 2)


# -- Clocks that jump --


def test_after_a_jump_it_lives_as_if_it_had_changed_now(store, clock):
    upload = store.create(Upload(length=9))
    spoil(upload, DAMAGES["empty"], clock)
    store.sweep()
    clock.wait(600)
    clock.now += 100 * OLD
    assert (store.sweep(), len(names(upload))) == (0, 2)
    clock.wait(600)
    assert (store.sweep(), len(names(upload))) == (0, 2)
    clock.wait(OLD)
    assert (store.sweep(), len(names(upload))) == (1, 0)


def test_a_change_in_the_future_is_one_of_now(store, clock):
    """The clock was fast when the machine crashed."""
    upload = store.create(Upload(length=9))
    clock.now += 100 * OLD
    spoil(upload, DAMAGES["empty"], clock)
    clock.now -= 100 * OLD
    assert store.sweep() == 0
    clock.wait(OLD - 2)
    assert (store.sweep(), len(names(upload))) == (0, 2)
    clock.wait(2)
    assert (store.sweep(), len(names(upload))) == (1, 0)


def test_a_key_whose_creation_was_torn_can_be_used_again(store, clock):
    upload_id = store.id_for("a key")
    upload = store.create_once(Upload(id=upload_id, length=9))
    spoil(upload, DAMAGES["empty"], clock)
    clock.wait(OLD)
    assert store.create_once(Upload(id=upload_id, length=9)).id == upload_id
