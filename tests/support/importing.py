"""``tus import`` in this process."""

import argparse
import contextlib
import io

from tus.cli import import_ as importing
from tus.errors import OptionError, TusException


def run_import(*arguments):
    """Gives the exit status, and what was printed to stdout and stderr."""
    parser = argparse.ArgumentParser(prog="tus import")
    importing.add_arguments(parser)
    output, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        options = parser.parse_args(list(map(str, arguments)))
        try:
            options.run(options)
            status = 0
        except TusException as error:
            print(error, file=errors)
            status = 2 if isinstance(error, OptionError) else 1
    return status, output.getvalue(), errors.getvalue()
