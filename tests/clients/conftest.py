"""What the tests with other people's clients share; each of them says what its ``server`` is."""

import pytest

from tests.support.clients import Landing
from tests.support.cutting_proxy import CuttingProxy
from tests.support.serving import UPLOAD_PATH
from tests.support.tusjs import Node


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


@pytest.fixture(scope="session")
def packages(request, tmp_path_factory):
    """Where npm installs to: kept from one run to the next where pytest keeps anything."""
    cache = getattr(request.config, "cache", None)
    return tmp_path_factory.mktemp("node") if cache is None else cache.mkdir("node")


@pytest.fixture(scope="session", params=["4", "5"])
def node(request, packages):
    return Node(request.param, packages)
