"""The boots of the machine: an id of the current one, and a clock that no operator sets.

Data that a process has written outlives the process, but not a crash of the machine, unless it was forced to the disk.
So what is known of it depends on the boot in which it was written.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import time
from functools import cache
from typing import Final

log = logging.getLogger(__name__)

ID_SIZE: Final = 16  # bytes
_UNKNOWN: Final = b"no id of a boot."
_LINUX: Final = "/proc/sys/kernel/random/boot_id"
_SYSCTLS: Final = ("kern.bootsessionuuid", "kern.boot_id", "kern.boottime")  # macOS, FreeBSD, other BSDs


@cache
def boot_id() -> bytes:
    """Return an id of this boot of the machine.

    Where the system has none, as in a service that cannot read ``/proc/sys``, it is always the same. An id of each
    process would let the processes of one boot take each other's bytes for lost.
    """
    found = _linux_id() or _sysctl_id()
    if found is None:
        log.warning("this system has no id of its boot, so a crash of the machine is not noticed; see the option fsync")
    return found or _UNKNOWN


def _linux_id() -> bytes | None:
    try:
        with open(_LINUX) as file:
            return bytes.fromhex(file.read().replace("-", ""))
    except (OSError, ValueError):
        return None


def _sysctl_id() -> bytes | None:
    function = getattr(ctypes.CDLL(None), "sysctlbyname", None)
    if function is None:
        return None
    for name in _SYSCTLS:
        value = ctypes.create_string_buffer(256)
        size = ctypes.c_size_t(len(value))
        if function(name.encode(), value, ctypes.byref(size), None, ctypes.c_size_t(0)) == 0 and size.value:
            return hashlib.blake2b(value.raw[: size.value], digest_size=ID_SIZE).digest()
    return None


def uptime() -> float:
    """Return the seconds since the boot, with those in which the machine was suspended, if the system counts them."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)
