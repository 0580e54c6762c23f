"""The clock of the machine, which may be wrong for a while and then be put right.

A clock that was one day fast for a minute must not remove every unfinished upload. So each look at the uploads of a
directory compares two clocks: the one that operators and NTP set, and one that only counts seconds since the boot. If
they disagree about the time since the last look, nothing expires in this look.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

SLACK = 60.0  # seconds by which the clocks may disagree,
DRIFT = 0.001  # and for each second since the last look
SETTLED = 600.0  # seconds after a boot, in which a clock without a battery may still be wrong


class Moment(NamedTuple):
    """A time by both clocks.

    Attributes:
        now: in seconds since 1970.
        uptime: in seconds since the boot.
        boot: the id of the boot, in hexadecimal digits.
    """

    now: float
    uptime: float
    boot: str


def has_jumped(before: Moment | None, moment: Moment) -> bool:
    """Return whether the clock may have been set since an earlier moment."""
    if before is None:
        return False
    if before.boot != moment.boot:
        return moment.uptime < SETTLED
    passed = moment.uptime - before.uptime
    return abs(moment.now - before.now - passed) > SLACK + DRIFT * abs(passed)


def unpack_moment(packed: Any) -> Moment | None:
    """Return a moment that was stored as JSON; None if it is not one."""
    match packed:
        case [float() | int() as now, float() | int() as uptime, str() as boot]:
            return Moment(now, uptime, boot)
    return None


_MOST = 4096
_began: dict[str, Moment] = {}  # by directory, when this process made its first store there
_looked: dict[str, Moment] = {}  # likewise, its last look


def begin(directory: str, moment: Callable[[], Moment]) -> None:
    """Remember when this process began to use a directory."""
    if directory not in _began:
        if len(_began) >= _MOST:
            _began.clear()
        _began[directory] = moment()


def remember(directory: str, moment: Moment) -> None:
    """Remember a look: on a full disk it may not be stored."""
    if len(_looked) >= _MOST:
        _looked.clear()
    _looked[directory] = moment


def previous(directory: str, stored: Moment | None) -> Moment | None:
    """Return the moment of the last look by any process, or else the one in which this process began.

    Args:
        directory: the directory.
        stored: the last look that was stored.
    """
    looked = _looked.get(directory)
    if stored is None:
        return looked or _began.get(directory)
    is_newer = looked is not None and looked.boot == stored.boot and looked.uptime > stored.uptime
    return looked if is_newer else stored
