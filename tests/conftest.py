import pytest

pytest.register_assert_rewrite("tests.support")


@pytest.fixture(autouse=True)
def _no_sweeper(request, monkeypatch):
    """Expiry beside the requests is tested where it is meant; elsewhere its threads would outlive their directories."""
    if "sweeper" not in request.module.__name__:
        monkeypatch.setattr("tus.server.runner.keep_swept", lambda store, lifetime: None)
