"""``tus completion``: the script with which a shell completes the command line."""

from __future__ import annotations

import argparse

from tus.cli.arguments import KeepsLines
from tus.errors import TusException

_SHELLS = ("bash", "zsh", "fish")
_EPILOG = """\
Examples:
  tus completion bash > ~/.local/share/bash-completion/completions/tus
  tus completion zsh > ~/.zfunc/_tus        (with fpath+=~/.zfunc in ~/.zshrc)
  tus completion fish > ~/.config/fish/completions/tus.fish
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``tus completion``."""
    parser.description = "Print a script that lets a shell complete commands, options and files."
    parser.epilog = _EPILOG
    parser.formatter_class = KeepsLines
    parser.add_argument("shell", metavar="SHELL", choices=_SHELLS, help=", ".join(_SHELLS))
    parser.set_defaults(run=_print_script)


def _print_script(options: argparse.Namespace) -> None:
    try:
        import shtab
    except ModuleNotFoundError:
        raise TusException("tus completion needs the package shtab; run: pip install shtab") from None
    from tus.cli.main import whole_parser

    parser = whole_parser()
    kinds = {"DIR": shtab.DIRECTORY} | dict.fromkeys(("FILE", "PATH", "CONFIG.ini"), shtab.FILE)
    for action in _actions(parser):
        if action.metavar in kinds:
            action.complete = kinds[action.metavar]  # type: ignore[attr-defined]
    print(shtab.complete(parser, shell=options.shell))


def _actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """Return the arguments of a parser and of its commands."""
    found = []
    for action in parser._actions:
        found.append(action)
        if isinstance(action, argparse._SubParsersAction):
            found += [inner for command in action.choices.values() for inner in _actions(command)]
    return found
