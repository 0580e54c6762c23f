"""Uploads in FastAPI: ``python examples/fastapi_app.py [PORT]``, then upload to http://127.0.0.1:PORT/files."""

import html
import os
import shutil
import sys
from pathlib import Path

import uvicorn
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import HTMLResponse

from tus.asgi import TusMiddleware

ARRIVED = Path(os.environ.get("ARRIVED", "arrived"))
PAGE = "<!doctype html><title>Arrived</title><h1>Arrived</h1>"

ARRIVED.mkdir(exist_ok=True)
app = FastAPI()
app.add_middleware(TusMiddleware, upload_path="/files", tmp_file_dir=ARRIVED.parent / "unfinished")


@app.get("/", response_class=HTMLResponse)
def index():
    files = sorted(ARRIVED.iterdir())
    items = [f"<li>{html.escape(file.name)}, {file.stat().st_size} bytes</li>" for file in files]
    return f"{PAGE}<ul>{''.join(items)}</ul>"


# The request that completes an upload arrives here: a PATCH of the upload's URL, or a POST of /files. The view uses the
# disk, so it is not async; FastAPI calls it in a thread.
@app.post("/files")
@app.patch("/files/{upload_id}")
def finished(request: Request):
    upload = request.scope.get("tus.upload")
    if upload is None:  # only the middleware can set this, never a client
        raise HTTPException(404, "Use a tus client.")
    # The body is the path of the file. It is on the same file system here, so move it instead of copying.
    shutil.move(upload.path, free_name(upload.filename))
    return Response(status_code=204)


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


if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]) if len(sys.argv) > 1 else 8000)
