"""docs/commands.rst names every option of the client's commands and no other, and its commands run."""

import argparse
import os
import re
import subprocess
import sysconfig
import time

import pytest

from tests.support.serving import ROOT
from tests.support.serving import command as running
from tests.support.waiting import GUARD
from tus.cli.client_arguments import STATUSES
from tus.cli.main import COMMANDS, whole_parser

DOCUMENT = (ROOT / "docs/commands.rst").read_text()
OF_CLIENT = ("upload", "resume", "download", "info", "options", "state", "completion")
ON_EACH_PAGE = {"--help", "--dir", "--trusted-group"}


def options_of(command):
    [subparsers] = [action for action in whole_parser()._actions if isinstance(action, argparse._SubParsersAction)]
    for action in subparsers.choices[command]._actions:
        if action.option_strings:
            yield action.option_strings[-1]


@pytest.mark.parametrize("command", OF_CLIENT)
def test_every_option_is_described(command):
    assert [option for option in options_of(command) if option not in ON_EACH_PAGE and option not in DOCUMENT] == []
    assert f"tus {command}" in DOCUMENT


def test_every_named_option_exists():
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", DOCUMENT))
    assert named <= {option for command in COMMANDS for option in options_of(command)}


def test_the_exit_statuses():
    assert re.findall(r"^(\d)  ", DOCUMENT, re.MULTILINE) == re.findall(r"^  (\d)  ", STATUSES, re.MULTILINE)


def test_the_commands_run(tmp_path):
    (tmp_path / "photos" / "cache").mkdir(parents=True)
    for name in ("film.mp4", "one.jpg", "two.jpg", "photos/a.jpg", "photos/b.tmp", "photos/cache/c.jpg"):
        (tmp_path / name).write_bytes(name.encode())
    commands = re.findall(r"^    \$ (.*)$", DOCUMENT, re.MULTILINE)
    assert len(commands) >= 10
    with running(["tus", "serve", "--port", "0", "--workers", "1"], tmp_path) as process:
        deadline = time.monotonic() + GUARD
        while not (match := re.search(r"Upload to (\S+)", (tmp_path / "stdout").read_text())):
            assert process.poll() is None and time.monotonic() < deadline, (tmp_path / "stderr").read_text()
            time.sleep(0.02)
        script = "\n".join(commands).replace("https://example.org/files/", match[1])
        path = sysconfig.get_path("scripts") + os.pathsep + os.environ["PATH"]
        environment = os.environ | {"HOME": str(tmp_path), "XDG_STATE_HOME": str(tmp_path), "PATH": path}
        done = subprocess.run(
            ["bash", "-euc", script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=GUARD
        )
    assert done.returncode == 0, done.stderr
    landed = {path.name for path in (tmp_path / "uploads").iterdir() if path.is_file()}
    assert {"film.mp4", "one.jpg", "two.jpg", "a.jpg", "photos.tgz"} <= landed
    assert not landed & {"b.tmp", "c.jpg"}
