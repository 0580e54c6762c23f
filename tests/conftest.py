import pytest

from tests.clients import Landing
from tests.cutting_proxy import CuttingProxy
from tests.serving import UPLOAD_PATH


@pytest.fixture(autouse=True)
def _no_sweeper(request, monkeypatch):
    """Expiry beside the requests is tested where it is meant; elsewhere its threads would outlive their directories."""
    if "sweeper" not in request.module.__name__:
        monkeypatch.setattr("tus.server.runner.keep_swept", lambda store, lifetime: None)


# -- For the tests with other people's clients, which say what the ``server`` is -----------------------------------


@pytest.fixture
def landing(server):
    return Landing(server)


@pytest.fixture
def proxy(server):
    with CuttingProxy(server.port) as proxy:
        yield proxy


@pytest.fixture
def endpoint(proxy):
    return proxy.origin + UPLOAD_PATH
