"""``tus resume``: unfinished uploads of this machine, without the command that began them."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tus.cli import client_arguments
from tus.cli.arguments import KeepsLines
from tus.cli.choosing import Chosen
from tus.cli.display import make_display
from tus.cli.state import find_records, list_records, open_state, unfinished
from tus.errors import OptionError
from tus.http.headers import parse_metadata

if TYPE_CHECKING:
    from tus.client import ResumeRecord

_EPILOG = f"""\
Examples:
  tus resume                        lists what can go on
  tus resume film.mp4
  tus resume --all --bearer-env TOKEN
  tus resume https://example.org/files/4f0c --file film.mp4

The last form goes on with an upload that began on another machine.

{client_arguments.STATUSES}
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``tus resume``."""
    parser.description = "Go on with unfinished uploads, or list them."
    parser.epilog = _EPILOG
    parser.formatter_class = KeepsLines
    parser.add_argument("targets", nargs="*", metavar="FILE", help="a file, or the URL of an upload")
    parser.add_argument("--all", action="store_true", help="go on with every one")
    parser.add_argument("--file", metavar="FILE", help="the file of an upload that this machine does not remember")
    client_arguments.add_sending(parser)
    client_arguments.add_connection(parser)
    client_arguments.add_display(parser)
    parser.set_defaults(run=_resume)


def _resume(options: argparse.Namespace) -> int:
    if options.file is not None:
        return _go_on_with(options)
    records = open_state(options)
    if options.all:
        chosen = unfinished(records)
    elif options.targets:
        chosen = [record for target in options.targets for record in find_records(records, target)]
    else:
        list_records(records, options.json)
        return 0
    _check_servers(options, chosen)
    sending = client_arguments.sending_options(options)
    with ExitStack() as stack:
        endpoints = {record.endpoint for record in chosen}
        clients = {url: stack.enter_context(client_arguments.open_client(options, url, **sending)) for url in endpoints}
        of_file = {
            Chosen(record.path, os.path.basename(record.path), record.size, given=record.path): record
            for record in chosen
        }

        def send(transfer: Any, on_progress: Callable[[Any], None], control: Any) -> Any:
            record = of_file[transfer.file]
            check_unchanged(record)
            return clients[record.endpoint].upload(
                record.path,
                metadata=parse_metadata(record.metadata),
                filename="",
                filetype="",
                parallel=record.parallel,
                on_progress=on_progress,
                control=control,
            )

        from tus.cli.transfers import Transfers

        transfers = Transfers(list(of_file), send, options.jobs, make_display(options), client_arguments.url_of)
        return transfers.run(options.given)


def _go_on_with(options: argparse.Namespace) -> int:
    """Go on with the upload at a URL."""
    if len(options.targets) != 1 or options.all:
        raise OptionError("--file", "needs the URL of one upload")
    [url] = options.targets
    sending = {**client_arguments.sending_options(options), "records": None}
    with client_arguments.open_client(options, url, **sending) as client:
        from tus.cli.transfers import Transfers

        def send(transfer: Any, on_progress: Callable[[Any], None], control: Any) -> Any:
            return client.resume(url, options.file, on_progress=on_progress, control=control)

        file = Chosen(options.file, os.path.basename(options.file), None, given=options.file)
        transfers = Transfers([file], send, 1, make_display(options), client_arguments.url_of)
        return transfers.run(options.given)


def check_unchanged(record: ResumeRecord) -> None:
    """Check that a file is the one that was uploaded.

    Raises:
        FileChanged: it is not.
        OSError: it is gone.
    """
    from tus.client import FileChanged
    from tus.client.records.identity import FileIdentity, key_of

    key = key_of(FileIdentity.of(record.path), record.endpoint, parse_metadata(record.metadata))
    if key != record.key.partition(".")[0]:
        raise FileChanged("it has changed since its upload began; run tus upload to send it anew", url=record.url)


def _check_servers(options: argparse.Namespace, chosen: list[ResumeRecord]) -> None:
    """Refuse to send the credentials of one server to another."""
    servers = {urlsplit(record.endpoint)[:2] for record in chosen}
    if len(servers) > 1:
        for option in ("header", "bearer_env", "cert"):
            if getattr(options, option):
                name = "--" + option.replace("_", "-")
                raise OptionError(name, f"would go to {len(servers)} servers; name the uploads of one of them")
