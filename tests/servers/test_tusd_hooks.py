"""One endpoint hears from tusd, which has to be on the ``PATH``, and from us: ``pytest -m tusd``."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.support.endpoint import Endpoint
from tests.support.serving import free_port, wait_for_port

pytestmark = [pytest.mark.peers, pytest.mark.tusd]

EVENTS = ("pre-create", "post-create", "pre-finish", "post-finish", "pre-terminate", "post-terminate")
HEADER = {"X-Hook": "1"}
ANSWERS = {
    "nothing": {},
    "rejects": {"RejectUpload": True, "HTTPResponse": {"StatusCode": 418, "Body": "no\n", "Header": HEADER}},
    "rejects and says no more": {"RejectUpload": True},
    "changes": {"ChangeFileInfo": {"MetaData": {"filename": "other.txt"}}, "HTTPResponse": {"Header": HEADER}},
}
#: What is the same from both; the rest has ids, paths and addresses.
EQUAL = ("Size", "SizeIsDeferred", "Offset", "MetaData", "IsPartial", "IsFinal", "PartialUploads", "Method")


def command(server: str, port: int, directory: Path, url: str) -> list[str]:
    """How a server is started that tells this URL."""
    if server == "tusd":
        program = shutil.which("tusd")
        assert program, "tusd has to be on the PATH"
        hooks = ["-hooks-http", url, "-hooks-enabled-events", ",".join(EVENTS)]
        return [program, "-host", "127.0.0.1", "-port", str(port), "-upload-dir", str(directory), *hooks]
    options = [f"webhook={url}", f"webhook_events={' '.join(EVENTS)}", "keep_finished=yes"]
    given = [argument for option in options for argument in ("-o", option)]
    program = str(Path(sys.executable).parent / "tus")
    return [program, "serve", "--workers", "1", "--port", str(port), "--dir", str(directory), *given]


def send(method: str, url: str, body: bytes = b"", **headers: str):
    """One request; gives the status, the header fields and the body of the reply."""
    fields = {name.replace("_", "-"): value for name, value in headers.items()} | {"Tus-Resumable": "1.0.0"}
    request = urllib.request.Request(url, body if method != "DELETE" else None, fields, method=method)
    try:
        with urllib.request.urlopen(request, timeout=20) as reply:
            return reply.status, reply.headers, reply.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read()


def conversation(url: str) -> list[tuple[int, str | None]]:
    """Create, fill and delete an upload; gives the statuses, and what the endpoint has added."""
    status, headers, body = send("POST", url, Upload_Length="5", Upload_Metadata="filename YS50eHQ=")
    said = [(status, headers.get("X-Hook"))]
    if status != 201:
        assert body == b"no\n" or status == 400
        return said
    octets = {"Upload_Offset": "0", "Content_Type": "application/offset+octet-stream"}
    said.append((send("PATCH", headers["Location"], b"hello", **octets)[0], None))
    said.append((send("DELETE", headers["Location"])[0], None))
    return said


@pytest.mark.parametrize("name", ANSWERS)
def test_an_endpoint_hears_from_us_what_tusd_tells(tmp_path, name):
    said, heard = {}, {}
    for server in ("tusd", "tus"):
        port, log = free_port(), tmp_path / f"{server}.log"
        (tmp_path / server).mkdir()
        with contextlib.closing(Endpoint()) as endpoint, log.open("wb") as output:
            endpoint.fields["Content-Type"] = "application/json"  # which tusd wants, and a body
            endpoint.answers = {kind: {} for kind in EVENTS} | {"pre-create": ANSWERS[name]}
            arguments = command(server, port, tmp_path / server, endpoint.url)
            process = subprocess.Popen(arguments, stdout=output, stderr=output)
            try:
                wait_for_port(port, process, log)
                said[server] = conversation(f"http://127.0.0.1:{port}/files/")
                endpoint.wait(1 if "rejects" in name else len(EVENTS))
            finally:
                process.terminate()
                process.wait()
            heard[server] = {post.type: json.loads(post.body)["Event"] for post in endpoint.heard}
    assert said["tus"] == said["tusd"]
    assert heard["tus"].keys() == heard["tusd"].keys()
    for kind, theirs in heard["tusd"].items():
        ours = heard["tus"][kind]
        for part in ("Upload", "HTTPRequest"):
            types = [{key: type(value) for key, value in event[part].items()} for event in (ours, theirs)]
            assert types[0] == types[1], kind
            for key in EQUAL:
                assert ours[part].get(key) == theirs[part].get(key), (kind, key)
        fields = [event["HTTPRequest"]["Header"] for event in (ours, theirs)]
        for key in ("Tus-Resumable", "Upload-Length", "Upload-Metadata", "Upload-Offset", "Content-Type"):
            assert fields[0].get(key) == fields[1].get(key), (kind, key)
