"""The client imports nothing of a server, and runs where the modules of POSIX are missing."""

import subprocess
import sys

HIDE = """
import sys
for name in ("fcntl", "grp", "pwd", "resource", "termios"):
    sys.modules[name] = None
"""
SHARED = {"tus", "tus.client", "tus.errors", "tus.http", "tus.version"}


def python(code, directory):
    done = subprocess.run(
        [sys.executable, "-c", HIDE + code], cwd=directory, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_nothing_of_a_server_is_imported(tmp_path):
    code = "from tus.client import AsyncClient, Client\nprint(*(name for name in sys.modules if name[:3] == 'tus'))"
    loaded = python(code, tmp_path).split()
    assert {".".join(name.split(".")[:2]) for name in loaded} == SHARED


def test_the_clients_work_without_posix(tmp_path):
    code = """
import asyncio, pathlib
from tus.client import NO_RETRIES, AsyncClient, Client, GaveUp

pathlib.Path("a").write_bytes(b"a")
with Client("http://127.0.0.1:9/", records="records.sqlite", retry=NO_RETRIES) as client:
    try:
        client.upload("a")
    except GaveUp as error:
        print(error.resumable)

async def main():
    async with AsyncClient("http://127.0.0.1:9/", records=None, retry=NO_RETRIES) as client:
        try:
            await client.upload("a")
        except GaveUp as error:
            print(error.resumable)

asyncio.run(main())
"""
    assert python(code, tmp_path).split() == ["True", "True"]


def test_a_missing_package_is_named(tmp_path):
    code = """
sys.modules["httpx2"] = None
from tus.client import Client, ClientError

try:
    Client("http://localhost/", records=None)
except ClientError as error:
    print(error)
"""
    assert python(code, tmp_path) == "the client needs httpx2; install it with: pip install httpx2\n"
