"""docs/security.rst: the limits in its table are those of the code."""

import re
from pathlib import Path
from types import SimpleNamespace

from tus.cli.serve import MOST_CONNECTIONS
from tus.cli.serve_limits import MOST_FIELDS, MOST_UPLOADS, defaults_for
from tus.options import Options
from tus.server.body_async import LEAST, SHARED
from tus.server.piping import LARGEST
from tus.server.protocol_uvicorn import MOST_PIPELINED
from tus.server.waiting import HEAD_TIMEOUT, LARGEST_HEAD, SEND_TIMEOUT
from tus.server.worker_uvicorn import OPEN_FILES

PAGE = Path(__file__).parents[2] / "docs" / "security.rst"
ROW = re.compile(r"^``(\w+)`` +(\S+) +(.+)$", re.MULTILINE)


def rows():
    text = PAGE.read_text()
    limits = text[text.index("\nLimits\n") : text.index("At a limit of bytes")]
    return ROW.findall(limits)


def test_the_defaults_are_those_of_the_options():
    found = {name: default for name, default, _ in rows()}
    assert len(found) > 10
    assert found == {name: Options.__dataclass_fields__[name].metadata["default"] for name in found}


def test_the_defaults_of_the_command_are_its_own(tmp_path):
    served = defaults_for(str(tmp_path), {})
    differing = {name: value for name, default, value in rows() if not value.startswith(default)}
    differing |= {
        name: value for name, default, value in rows() if default == "0" and value != "0" and ";" not in value
    }
    assert set(differing) == set(served)
    assert differing["max_uploads"] == served["max_uploads"] == str(MOST_UPLOADS)


def test_a_disk_that_does_not_tell_its_size_sets_no_limit(tmp_path, monkeypatch):
    monkeypatch.setattr("os.statvfs", lambda path: SimpleNamespace(f_blocks=0, f_frsize=4096))
    assert defaults_for(str(tmp_path), {}) == {"max_uploads": str(MOST_UPLOADS)}


def test_every_limit_of_the_options_is_listed():
    limits = {
        name for name, each in Options.__dataclass_fields__.items() if each.metadata["group"].startswith("Limits")
    }
    assert limits <= {name for name, *_ in rows()}


def test_the_fixed_limits_are_those_of_the_command():
    text = " ".join(PAGE.read_text().split())
    assert f"at most {MOST_FIELDS} fields, and {LARGEST_HEAD >> 10} KiB in all" in text
    assert f"at most {MOST_CONNECTIONS} connections, or a fifth of the files" in text
    assert OPEN_FILES == 5
    assert f"At most {MOST_PIPELINED} requests on one connection wait" in text
    assert f"a buffer of {LARGEST >> 20} MiB for each thread" in text
    assert f"share {SHARED >> 20} MiB, but each may hold {LEAST >> 10} KiB" in text
    assert HEAD_TIMEOUT == SEND_TIMEOUT == 60
    assert "a head must arrive within a minute" in text
