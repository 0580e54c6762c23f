import ssl

import pytest
import trustme

from tests.client.subjects import LOOPS, Subject


@pytest.fixture(params=["threads", *LOOPS])
def subject(request):
    """Makes transports of one kind, and sends requests on them."""
    with Subject(request.param) as subject:
        yield subject


@pytest.fixture(scope="session")
def authority():
    return trustme.CA()


@pytest.fixture(scope="session")
def trusted(authority, tmp_path_factory):
    """The path of the certificate that signs the server's."""
    path = tmp_path_factory.mktemp("tls") / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return str(path)


@pytest.fixture
def tls(authority):
    """What a server needs for TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
    return context
