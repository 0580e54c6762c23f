"""What the tests with other people's clients share; each of them says what its ``server`` is."""

import pytest

from tests.acceptance.clients import TusJs
from tests.acceptance.site import Site
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


@pytest.fixture(scope="module", params=["gthread", "asgi"])
def faulty_site(request, tmp_path_factory):
    """A site whose application can fail at every step."""
    with Site(tmp_path_factory.mktemp("acceptance"), first_delay=3600, worker=request.param) as site:
        yield site


@pytest.fixture
def faulty_proxy(faulty_site):
    """A proxy before it, which can lose a reply."""
    with CuttingProxy(faulty_site.port) as proxy:
        yield proxy
        proxy._faults.clear()  # that of a request which did not come


@pytest.fixture(scope="session")
def tusjs(packages):
    node = Node("4", packages)
    problem = node.install()
    if problem:
        pytest.fail(problem, pytrace=False)
    return TusJs(node.directory)
