"""tus-js-client, unchanged, to an ASGI server: all that it does to a WSGI server."""

from __future__ import annotations

import pytest

from tests.serving import serving
from tests.test_client_tusjs import *  # noqa: F403 - the tests, with another server
from tests.test_client_tusjs import Node, pytestmark  # noqa: F401


@pytest.fixture(scope="session")
def node(packages):
    return Node("5", packages)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serving("uvicorn-httptools", tmp_path_factory.mktemp("tusjs-asgi")) as running:
        yield running
