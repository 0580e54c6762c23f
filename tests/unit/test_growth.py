"""Work that must not grow: with the finals of a part, with the parts that a final names, with the files of one name."""

import os
from functools import partial

import pytest

from tests.support.disk import System
from tests.support.subjects import FilterSubject
from tus.filesystem.saving import Source, save
from tus.models import Upload

# -- Parts and finals --


@pytest.fixture
def opened(tmp_path, monkeypatch):
    """The paths here that are opened, as often as they are; threads of other tests may open others."""
    paths, opening = [], os.open

    def noting(path, *rest, **words):
        if str(path).startswith(str(tmp_path)):
            paths.append(path)
        return opening(path, *rest, **words)

    monkeypatch.setattr(os, "open", noting)
    return paths


def waiting_finals(subject, part, finals, times):
    for number in range(finals):
        headers = {"Upload-Concat": "final;" + " ".join([part] * times), "Upload-Metadata": f"a{number}"}
        assert subject.send("POST", headers=headers).status == 201


@pytest.mark.parametrize("body", [b"", b"a"])
def test_a_part_that_is_named_often_costs_no_more(tmp_path, opened, body):
    """16 final uploads name one part 230 times each; a request to the part opens each of the files a few times."""
    subject = FilterSubject(tmp_file_dir=str(tmp_path))
    part = subject.url(1000, {"Upload-Concat": "partial"})
    waiting_finals(subject, part, 16, 230)
    opened.clear()
    assert subject.patch(part, 0, body).status == 204
    assert len(opened) <= 30
    opened.clear()
    assert subject.patch(part, len(body), bytes(1000 - len(body))).status == 204
    assert len(opened) <= 16 * (12 + 230)  # now the bytes of all are copied


def test_creating_and_looking_at_a_final_reads_each_part_once(tmp_path, opened):
    subject = FilterSubject(tmp_file_dir=str(tmp_path))
    part = subject.url(None, {"Upload-Concat": "partial"})
    final = {"Upload-Concat": "final;" + " ".join([part] * 230)}
    opened.clear()
    url = subject.send("POST", headers=final)["Location"]
    assert len(opened) <= 20
    opened.clear()
    assert subject.head(url).status == 200
    assert len(opened) <= 3


def test_a_touch_comes_once_a_minute(tmp_path, opened, monkeypatch):
    subject = FilterSubject(tmp_file_dir=str(tmp_path))
    parts = [subject.url(10, {"Upload-Concat": "partial"}) for _ in range(50)]
    subject.send("POST", headers={"Upload-Concat": "final;" + " ".join(parts)})
    opened.clear()
    assert subject.patch(parts[0], 0).status == 204
    assert len(opened) <= 5


# -- Names --


def test_the_next_file_of_a_name_costs_no_more(tmp_path):
    directory = tmp_path / "files"
    directory.mkdir()
    system, costs = System(), []

    with system.installed():
        for number in range(200):
            path = tmp_path / f"source-{number}"
            path.write_bytes(b"a")
            source = Source(Upload(id=f"{number:032x}", length=1, path=str(path)), partial(open, path, "rb"), None)
            system.calls.clear()
            save(source, str(directory), "image.jpg")
            costs.append(len(system.calls))
    assert len(os.listdir(directory)) == 200
    assert max(costs[1:]) <= min(costs) + 8
