"""Pyramid with pyramid_tm and pyramid_retry under gunicorn: what is kept of a connection that is cut."""

import pytest

from tests.support.pyramid_site import PATH
from tests.support.views import gunicorn
from tests.support.waiting import wait_until

LENGTH, SENT = 3_000_000, 1_000_000
DATA = bytes(range(250)) * (LENGTH // 250)


@pytest.fixture(params=["tus.pyramid", ""], ids=["raw", "copied"])
def served(request, tmp_path):
    """The application, and whether tus.pyramid is included."""
    (tmp_path / "uploads").mkdir()
    application = f"tests.support.pyramid_site:application({str(tmp_path / 'uploads')!r})"
    with gunicorn(application, tmp_path, INCLUDES=request.param) as served:
        yield served, bool(request.param)


def test_a_connection_that_is_cut(served):
    """The include keeps every byte; without it pyramid_retry discards them all, and the log says why."""
    served, is_included = served
    url = served.create(PATH, LENGTH)
    served.cut(url, 0, LENGTH, DATA[:SENT])
    kept = 0
    if is_included:
        wait_until(lambda: served.offset(url) == SENT)
        kept = SENT
    assert served.patch(url, kept, DATA[kept:]) == 204
    assert served.offset(url) == LENGTH
    assert ("add config.include('tus.pyramid')" in served.log.read_text()) != is_included
