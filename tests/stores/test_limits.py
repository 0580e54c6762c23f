"""The limits of one directory that several processes use."""

import multiprocessing

from tests.support.limits import counts
from tus.errors import TooManyUploads
from tus.models import Upload
from tus.stores.directory.quota import Limits
from tus.stores.directory.store import DirectoryStore


def _create_many(directory, results):
    store = DirectoryStore(directory, limits=Limits(uploads=50))
    made = 0
    for number in range(40):
        try:
            upload = store.create(Upload(length=1, principal="ann"))
        except TooManyUploads:
            continue
        made += 1
        if number % 3 == 0:
            store.remove(upload.id)
            made -= 1
    results.put(made)


def test_many_processes_never_make_more_than_may_be(tmp_path):
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    processes = [context.Process(target=_create_many, args=(str(tmp_path), results)) for _ in range(4)]
    for process in processes:
        process.start()
    total = sum(results.get(timeout=60) for _ in processes)
    for process in processes:
        process.join()
    assert len(list(tmp_path.glob("*.tus"))) == counts(tmp_path)["uploads"] == total <= 50
    assert total > 40
