"""Uploads in a Flask application: ``python examples/flask_app.py [PORT]``, then upload to http://127.0.0.1:PORT/files."""

import os
import shutil
import sys
from pathlib import Path

from flask import Flask, render_template_string, request

from tus import Filter

ARRIVED = Path(os.environ.get("ARRIVED", "arrived"))
PAGE = """<!doctype html><title>Arrived</title><h1>Arrived</h1>
<ul>{% for file in files %}<li>{{ file.name }}, {{ file.stat().st_size }} bytes</li>{% endfor %}</ul>"""

app = Flask(__name__)


@app.get("/")
def index():
    return render_template_string(PAGE, files=sorted(ARRIVED.iterdir()))


# The request that completes an upload arrives here: a PATCH of the upload's URL, or a POST of /files.
@app.route("/files", methods=["POST"], defaults={"upload_id": None})
@app.route("/files/<upload_id>", methods=["PATCH"])
def finished(upload_id):
    upload = request.environ.get("tus.upload")
    if upload is None:  # only the filter below can set this, never a client
        return "Use a tus client.", 404
    target = free_name(upload.filename)
    # The body is the path of the file. It is on the same file system here, so move it instead of copying.
    shutil.move(upload.path, target)
    return "", 204


def free_name(name):
    """Reserve a name that is not in use: two users may send files of the same name."""
    stem, extension = os.path.splitext(name)
    for number in range(1, 10_000):
        target = ARRIVED / (name if number == 1 else f"{stem} ({number}){extension}")
        try:
            target.touch(exist_ok=False)
        except FileExistsError:
            continue
        return target
    raise FileExistsError(name)


ARRIVED.mkdir(exist_ok=True)
app.wsgi_app = Filter(app.wsgi_app, upload_path="/files", tmp_file_dir=ARRIVED.parent / "unfinished")

if __name__ == "__main__":
    app.run(port=int(sys.argv[1]) if len(sys.argv) > 1 else 5000, threaded=True)
