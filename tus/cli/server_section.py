"""The section ``[server:main]`` of an ini file, as far as ``tus serve`` follows it."""

from __future__ import annotations

import configparser
import os
import re
from dataclasses import dataclass

from tus.errors import OptionError

SECTION = "server:main"

#: One address, which gunicorn calls ``bind`` and waitress ``listen``.
_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\s]+):([0-9]+)")


@dataclass
class ServerSection:
    """What the section says; None for what it does not say.

    Attributes:
        host: the address to listen on.
        port: its port.
        workers: the number of processes.
        threads: the number of threads in each process.
        allow_host: further names of the server, as text.
        unused: the keys that ``tus serve`` does not follow, among them ``use`` if it names another server.
    """

    host: str | None = None
    port: int | None = None
    workers: int | None = None
    threads: int | None = None
    allow_host: str | None = None
    unused: tuple[str, ...] = ()


def read_server_section(config: str) -> ServerSection:
    """Read the section; without one nothing is set.

    Raises:
        OptionError: a value is wrong.
    """
    path = os.path.abspath(config)
    parser = configparser.ConfigParser()
    section, unused = ServerSection(), []
    try:
        parser.read(path)
    except (configparser.Error, UnicodeError):
        return section  # the pipeline cannot be loaded either, which names the problem
    try:
        defaults = {"here": os.path.dirname(path), "__file__": path} | dict(parser.defaults())
        values = dict(parser.items(SECTION, vars=defaults)) if parser.has_section(SECTION) else {}
    except configparser.Error as error:
        raise OptionError(f"[{SECTION}]", f"cannot be read: {error}") from error
    for name, value in values.items():
        address = _ADDRESS.fullmatch(value) if name in ("bind", "listen") else None
        if name in defaults:
            continue
        if address is not None:
            section.host, section.port = address[1].strip("[]"), int(address[2])
        elif name in ("host", "allow_host"):
            setattr(section, name, value)
        elif name in ("port", "workers", "threads"):
            setattr(section, name, _number(name, value))
        elif name != "use" or "gunicorn" not in value:
            unused.append(name)
    section.unused = tuple(unused)
    return section


def _number(name: str, value: str) -> int:
    if not value.strip().isdecimal():
        raise OptionError(f"[{SECTION}] {name}", f"must be a number; it is {value!r}")
    return int(value)
