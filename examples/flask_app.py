"""Uploads in a Flask application: ``python examples/flask_app.py [PORT]``, then upload to http://127.0.0.1:PORT/files."""

import os
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
    upload.save_to(ARRIVED)  # under a free name, once, however often this view is called for the upload
    return "", 204


ARRIVED.mkdir(exist_ok=True)
app.wsgi_app = Filter(app.wsgi_app, upload_path="/files", tmp_file_dir=ARRIVED.parent / "unfinished")

if __name__ == "__main__":
    app.run(port=int(sys.argv[1]) if len(sys.argv) > 1 else 5000, threaded=True)
