"""hypercorn in its mode for WSGI, which sends the head of a response with the first block of its body."""

import http.client

from tests.support.serving import command, free_port, wait_for_port
from tests.support.sockets import PATIENCE
from tests.support.wsgi import OCTETS, TUS

SITE = """
from tus import Filter

def application(environ, start_response):
    start_response("204 No Content", [])
    return [b""]

application = Filter(application, upload_path="/files", tmp_file_dir="uploads", download=True, keep_finished=True)
"""


def test_responses_without_a_body_arrive(tmp_path):
    (tmp_path / "site_of_test.py").write_text(SITE)
    port = free_port()
    with command(["hypercorn", "-b", f"127.0.0.1:{port}", "wsgi:site_of_test:application"], tmp_path) as process:
        wait_for_port(port, process, tmp_path / "stderr")

        def ask(method, path, fields, body=b"", protocol=TUS):
            client = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
            client.request(method, path, body, protocol | fields)
            response = client.getresponse()
            response.read()
            client.close()
            return response

        response = ask("POST", "/files", {"Upload-Length": "5"})
        assert response.status == 201
        path = response.headers["Location"].partition(str(port))[2]
        assert ask("PATCH", path, OCTETS | {"Upload-Offset": "0"}, b"ab").status == 204
        response = ask("HEAD", path, {})
        assert (response.status, response.headers["Upload-Offset"]) == (200, "2")
        assert ask("PATCH", path, OCTETS | {"Upload-Offset": "2"}, b"cde").status == 204
        assert ask("DELETE", path, {}).status == 204
        path = ask("POST", "/files", {"Upload-Length": "0"}).headers["Location"].partition(str(port))[2]
        response = ask("GET", path, {}, protocol={})
        assert (response.status, response.headers["Content-Length"]) == (200, "0")
