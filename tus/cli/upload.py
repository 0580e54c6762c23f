"""``tus upload``: files to a server."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from tus.cli import client_arguments, text
from tus.cli.arguments import KeepsLines
from tus.cli.choosing import as_text, choose
from tus.cli.display import make_display
from tus.converters import as_size
from tus.errors import OptionError

_EPILOG = f"""\
Examples:
  tus upload film.mp4 https://example.org/files/
  tus upload *.jpg https://example.org/files/ --jobs 8 --bearer-env TOKEN
  tus upload --recursive photos https://example.org/files/ --exclude '*.tmp'
  tar cz photos | tus upload - https://example.org/files/ --name photos.tgz
  url=$(tus upload --quiet film.mp4 https://example.org/files/)

An upload that stopped goes on when the same command runs again, unless the file has changed. Of several files, complete
ones are not sent again then.

{client_arguments.STATUSES}
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``tus upload``."""
    parser.description = (
        "Upload files to a server of tus 1.0.0 or of the IETF's protocol. The URL of each upload goes to stdout, all "
        "else to stderr."
    )
    parser.epilog = _EPILOG
    parser.formatter_class = KeepsLines
    parser.add_argument("files", nargs="+", metavar="FILE", help="a file, a directory with --recursive, or - for stdin")
    parser.add_argument("url", metavar="URL", help="where the server creates uploads")
    parser.add_argument(
        "-r", "--recursive", action="store_true", help="send the files in directories; links in them are not followed"
    )
    parser.add_argument(
        "--include", action="append", default=[], metavar="PATTERN", help="in directories, only files such as '*.jpg'"
    )
    parser.add_argument(
        "--exclude",
        action="append",
        default=[],
        metavar="PATTERN",
        help="in directories, no files and directories such as '*.tmp' or 'cache/*'",
    )
    parser.add_argument("--dry-run", action="store_true", help="print what would be sent, and send nothing")
    about = parser.add_argument_group("about the files")
    about.add_argument(
        "-m",
        "--metadata",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="metadata for the server",
    )
    about.add_argument("--name", help="the name of the file, instead of its own; for one file or stdin")
    about.add_argument("--no-filename", action="store_true", help="do not tell the server the names")
    about.add_argument("--filetype", default="auto", metavar="TYPE", help="the media type (default: by the name)")
    about.add_argument("--size", metavar="SIZE", help="the number of bytes of stdin, if it is known")
    client_arguments.add_sending(parser)
    parser.add_argument(
        "--no-resume", action="store_true", help="neither go on with an earlier upload nor remember this one"
    )
    client_arguments.add_connection(parser)
    client_arguments.add_display(parser)
    parser.set_defaults(run=_upload)


def _upload(options: argparse.Namespace) -> int:
    client_arguments.check_url(options.url)
    if options.size is not None:
        options.size = client_arguments.convert("--size", as_size, options.size)
    if options.no_filename and options.name is not None:
        raise OptionError("--name", "contradicts --no-filename")
    files = choose(options)
    if options.dry_run:
        for file in files:
            size = "unknown size" if file.size is None else text.size_text(file.size)
            print(f"{text.printable(file.metadata.get('relativePath', file.name))}  {size}")
        return 0
    sending = client_arguments.sending_options(options)
    if options.no_resume:
        sending["records"] = None
    with client_arguments.open_client(options, options.url, **sending) as client:
        from tus.cli.finished import FinishedFiles
        from tus.cli.transfers import Transfer, Transfers

        about = {"filename": _filename(options), "filetype": None if options.filetype == "auto" else options.filetype}
        finished = FinishedFiles(client.records, client.endpoint, **about) if len(files) > 1 else None

        def send(transfer: Transfer, on_progress: Callable[[Any], None], control: Any) -> Any:
            file = transfer.file
            if finished and (earlier := finished.find(file)):
                return earlier
            result = client.upload(
                file.source,
                **about,
                metadata=file.metadata,
                size=file.size,
                parallel=options.parallel,
                resume=not options.no_resume,
                on_progress=on_progress,
                control=control,
            )
            if options.verify:
                verify(client, result)
            if finished:
                finished.add(file, result)
            return result

        transfers = Transfers(files, send, options.jobs, make_display(options), client_arguments.url_of)
        status = transfers.run(options.given)
        if finished and status == 0:
            finished.forget()
        return status


def _filename(options: argparse.Namespace) -> str | None:
    """Return the name of the file; empty for none, and None for its own."""
    if options.no_filename:
        return ""
    return None if options.name is None else as_text(options.name)


def verify(client: Any, result: Any) -> None:
    """Ask the server whether it has every byte of an upload.

    Raises:
        ChecksumMismatch: it has not.
        ClientError: it does not say.
    """
    from tus.client import ChecksumMismatch

    if not result.url:
        return
    info = client.head(result.url)
    if info.offset != result.size:
        raise ChecksumMismatch(
            f"The server has {info.offset} bytes of {result.size}.", url=result.url, response=info.response
        )
