"""Uploads in FastAPI: ``python examples/fastapi_app.py [PORT]``, then upload to http://127.0.0.1:PORT/files."""

import html
import os
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
# disk, so it is not async; FastAPI calls it in a thread. An async view awaits upload.save_to_async().
@app.post("/files")
@app.patch("/files/{upload_id}")
def finished(request: Request):
    upload = request.scope.get("tus.upload")
    if upload is None:  # only the middleware can set this, never a client
        raise HTTPException(404, "Use a tus client.")
    upload.save_to(ARRIVED)  # under a free name, once, however often this view is called for the upload
    return Response(status_code=204)


if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]) if len(sys.argv) > 1 else 8000)
