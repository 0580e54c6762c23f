"""The entry point of the command line, and the table of its commands.

Law of this room: only the module of the given command is imported, because a server's commands need a POSIX system and
a client's do not.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from typing import Any

from tus.errors import OptionError, TusException
from tus.version import __version__

#: Each command with its module, which has ``add_arguments(parser)``, and its line in ``tus --help``.
COMMANDS = {
    "serve": ("serve_arguments", "receive uploads into a directory, or serve the pipeline of an ini file"),
    "ls": ("ls", "list the uploads of a directory"),
    "show": ("show", "print everything about one upload"),
    "rm": ("rm", "remove uploads from a directory or a server"),
    "clean": ("clean", "remove expired uploads"),
    "handover": ("handover", "hand pending uploads over to the application"),
    "fsck": ("fsck", "check for damage, and repair it"),
    "import": ("import_", "import the unfinished uploads of another program"),
    "upload": ("upload", "upload files to a server"),
    "resume": ("resume", "go on with unfinished uploads, or list them"),
    "download": ("download", "download a file from a server"),
    "info": ("info", "print what a server says about an upload"),
    "options": ("options", "print what a server offers"),
    "state": ("state", "list the unfinished uploads of this machine"),
    "completion": ("completion", "print a script for the completion of a shell"),
}
_POSIX = ("fcntl", "grp", "pwd", "resource", "termios")  # modules that other systems lack


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command, and return its exit status: 0 for success, 1 for a failure, 2 for a usage error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names contain characters that a terminal's encoding may not have
            stream.reconfigure(errors="backslashreplace")
    with suppress(FileNotFoundError):  # for the modules of --on-finished; last, so that no file here hides a package
        if (here := os.getcwd()) not in sys.path:
            sys.path.append(here)
    given = sys.argv[1:] if arguments is None else arguments
    try:
        options = _parse(given)
        status: int = options.run(options) or 0
        sys.stdout.flush()
        return status
    except OptionError as error:
        print(f"tus: {error}", file=sys.stderr)
        return 2
    except TusException as error:
        print(f"tus: {error}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        if error.name not in _POSIX:
            raise
        print(f"tus: tus {_command_of(given)} needs a POSIX system such as Linux or macOS", file=sys.stderr)
        return 1
    except BrokenPipeError:  # the reader of the output, such as head, has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        from tus.cli.text import printable

        what = f": {printable(str(error.filename))}" if error.filename else ""
        print(f"tus: {error.strerror}{what}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parse(given: Sequence[str]) -> argparse.Namespace:
    """Parse a command line. The result has the command's function as ``run``, and the arguments as ``given``."""
    parser, commands = _parser()
    name = _command_of(given)
    if name in commands:
        _module_of(name).add_arguments(commands[name])
        # So options may stand between the files and the URL. But it loses a "--" that a file name with a dash needs.
        if given[0] == name and "--" not in given:
            return commands[name].parse_intermixed_args(given[1:], argparse.Namespace(given=given))
    elif name:
        from tus.converters import suggestion

        near = suggestion(name, COMMANDS)
        parser.error(f"there is no command {name!r}{near}; the commands are {', '.join(COMMANDS)}")
    return parser.parse_args(given, argparse.Namespace(given=given))


def whole_parser() -> argparse.ArgumentParser:
    """Return the parser with the arguments of all commands that this system can run."""
    parser, commands = _parser()
    for name, command in commands.items():
        with suppress(ModuleNotFoundError):
            _module_of(name).add_arguments(command)
    return parser


def _parser() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    """Return the parser, and those of the commands, which have no arguments yet."""
    parser = argparse.ArgumentParser(prog="tus", description="Resumable uploads.")
    parser.add_argument("--version", action="version", version=f"tus {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    return parser, {name: commands.add_parser(name, help=line) for name, (_, line) in COMMANDS.items()}


def _module_of(name: str) -> Any:
    return import_module(f"tus.cli.{COMMANDS[name][0]}")


def _command_of(given: Sequence[str]) -> str:
    """Return the name of the command; no option before it has a value."""
    return next((word for word in given if not word.startswith("-")), "")
