"""An endpoint for webhooks, on a socket."""

import http.server
import json
import threading
import time
from types import SimpleNamespace


class Endpoint(http.server.ThreadingHTTPServer):
    """Takes down what it has ``heard``; ``answers``: JSON, bytes, a status, or several, of which the last one stays."""

    daemon_threads = True

    def __init__(self, port=0):
        self.heard, self.answers, self.fields = [], {}, {}
        super().__init__(("127.0.0.1", port), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/hooks?token=hush"
        threading.Thread(target=self.serve_forever, args=[0.01], daemon=True).start()

    def wait(self, count):
        wait_until(lambda: len(self.heard) >= count)
        assert len(self.heard) == count, [post.type for post in self.heard]
        return self.heard

    def close(self):
        self.shutdown()
        self.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        said = json.loads(body)
        post = SimpleNamespace(type=said["Type"], id=said.get("ID"), headers=self.headers, body=body)
        post.upload, post.request = said["Event"]["Upload"], said["Event"]["HTTPRequest"]
        self.server.heard.append(post)
        answer = self.server.answers.get(post.type, b"")
        if isinstance(answer, list):
            answer = answer.pop(0) if len(answer) > 1 else answer[0]
        status, answer = (answer, b"") if isinstance(answer, int) else (200, answer)
        answer = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(answer))} | self.server.fields).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *arguments):
        pass


def wait_until(condition):
    deadline = time.monotonic() + 15
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
