"""Every server, running, and what is expected of it."""

import contextlib
from collections.abc import Iterator

import pytest

from tests.support.serving import SERVERS, Serving, serving
from tests.support.sockets import PACKAGE, TABLE, Row


@pytest.fixture(scope="module")
def running(tmp_path_factory) -> Iterator[dict[str, Serving]]:
    with contextlib.ExitStack() as stack:
        yield {server: stack.enter_context(serving(server, tmp_path_factory.mktemp(server))) for server in SERVERS}


@pytest.fixture(params=SERVERS)
def server(request) -> str:
    return request.param


@pytest.fixture
def row(server) -> Row:
    return TABLE[server]


@pytest.fixture
def served(server, running) -> Iterator[Serving]:
    """One of the servers, which must come through the test without a traceback that touches the package."""
    log = running[server].log
    before = log.stat().st_size
    yield running[server]
    with log.open("rb") as file:
        file.seek(before)
        printed = file.read().decode(errors="replace")
    assert PACKAGE not in printed, printed
