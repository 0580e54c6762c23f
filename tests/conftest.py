import itertools
import logging
import os
import re
import sys
import threading
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
os.umask(0o022)  # with 002, the group of a directory that a test makes could write to it, and servers refuse that

pytest.register_assert_rewrite("tests.support")

#: Rooms whose tests need no socket and no other process. Most of them have the marker ``quick``.
INSIDE = ("unit", "conformance")
#: These try thousands of requests, which takes its time.
THOROUGH = ("test_state_machine.py", "test_state_machine_mixed.py")
#: Markers that the default run leaves out. A file that has such tests says so itself.
HEAVY = frozenset({"browser", "long", "node", "peers", "plone", "proxies", "tusd"})
#: What Python reports when a process is started or the network is used.
OUTSIDE = {"os.fork", "os.posix_spawn", "subprocess.Popen", "socket.bind", "socket.connect"}
_stays_inside = False


def room_of(path):
    return path.relative_to(TESTS).parts[0]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        if room_of(item.path) in INSIDE and item.path.name not in THOROUGH:
            item.add_marker("quick")


def pytest_ignore_collect(collection_path, config):
    """Not to import what has none of the tests is a part of what makes ``-m quick``, and each named job, quick."""
    expression = config.option.markexpr
    is_room = collection_path.is_dir() and collection_path.parent == TESTS
    if expression == "quick" and is_room and collection_path.name not in INSIDE:
        return True
    if collection_path.suffix == ".py" and expression and not may_select(expression, collection_path.read_text()):
        return True
    return None


def may_select(expression, text):
    """Return whether an expression selects tests that have some of the markers which are written in a file."""
    if not HEAVY.issuperset(set(re.findall(r"\w+", expression)) - {"and", "or", "not"}):
        return True
    written = HEAVY.intersection(re.findall(r"\bmark\.(\w+)", text))
    subsets = itertools.chain.from_iterable(itertools.combinations(written, n) for n in range(len(written) + 1))
    return any(eval(expression, {}, {name: name in some for name in HEAVY}) for some in subsets)


def refuse_outside(event, arguments):
    # The threads of services that tests of other rooms have left go on, and may deliver events.
    if _stays_inside and event in OUTSIDE and not threading.current_thread().name.startswith("tus-"):
        raise AssertionError(f"{event}: tests in the rooms {INSIDE} stay in their process, see CONTRIBUTING.rst")


sys.addaudithook(refuse_outside)


_LEVELS = {name: logging.getLogger(name).level for name in (None, "tus")}


@pytest.fixture(autouse=True)
def _plain_logging():
    """Log as at the start, because some frameworks configure the root logger. Each request then does more."""
    for name, level in _LEVELS.items():
        logging.getLogger(name).setLevel(level)
    root = logging.getLogger()
    for handler in [*root.handlers]:
        if not type(handler).__module__.startswith("_pytest"):
            root.removeHandler(handler)


@pytest.fixture(autouse=True)
def _inside(request):
    global _stays_inside
    _stays_inside = room_of(request.path) in INSIDE
    yield
    _stays_inside = False
