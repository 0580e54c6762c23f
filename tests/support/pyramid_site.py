"""A Pyramid application with pyramid_tm and pyramid_retry, whose database is a list that rows are committed to."""

from __future__ import annotations

import os

from pyramid.config import Configurator
from transaction.interfaces import TransientError

from tus import Service, Tus, WebobAdapter

PATH = "/files"


class Conflict(TransientError):
    """Another transaction was faster."""


class Broken(Exception):
    """An error that another attempt does not mend."""


class Row:
    """A row of a transaction: in the database once that is committed.

    Args:
        at_commit: called when the transaction asks whether it can be committed.
    """

    def __init__(self, manager, rows, row, at_commit):
        self.transaction_manager = manager
        self._rows, self._row, self._at_commit = rows, row, at_commit

    def tpc_begin(self, transaction):
        pass

    commit = tpc_abort = abort = tpc_begin

    def tpc_vote(self, transaction):
        self._at_commit()

    def tpc_finish(self, transaction):
        self._rows.append(self._row)

    def sortKey(self):  # noqa: N802 - the name in the interface
        return "row"


class Site:
    """The application.

    Attributes:
        rows: what was committed: the name and the data of each file.
        seen: the attempts of the view at finished files: the attempt of the request, and the key of the upload.
        calls: how often the view was called.
        in_view: called with the request and the ``Tus`` after the file was taken.
        after_view: called with the request at the end of each call of the view.
        at_commit: called at each commit of a transaction that has a row.
        take: how the view settles the file.
    """

    def __init__(self, directory, *includes, settings=(), tween=None, **options):
        self.service = Service(tmp_file_dir=str(directory), threads=False, send_file=True, **options)
        self.rows, self.seen, self.calls = [], [], 0
        self.in_view = self.after_view = lambda *arguments: None
        self.at_commit = lambda: None
        self.take = Tus.cleanup_file
        standard = {"tm.manager_hook": "pyramid_tm.explicit_manager", "retry.attempts": 3}
        with Configurator(settings=standard | dict(settings)) as config:
            for name in includes:
                config.include(name)
            if tween is not None:
                config.add_tween(tween)
            config.add_route("files", PATH + "*rest")
            config.add_view(lambda request: self.view_of_request(request), route_name="files")
            self.app = config.make_wsgi_app()

    def view_of_request(self, request):
        return self.view(request)

    def view(self, request):
        self.calls += 1
        adapter = WebobAdapter(request)
        with Tus(adapter, service=self.service) as tus:
            tus.handle()
            if hasattr(request, "tm"):
                request.tm.get().join(Row(request.tm, [], None, self._conflict_of_call))
            if tus.upload_finished:
                self.seen.append((request.environ.get("retry.attempt"), tus.upload.key))
                row = tus.upload.filename, request.environ["wsgi.input"].read()
                if hasattr(request, "tm"):
                    request.tm.get().join(Row(request.tm, self.rows, row, self.at_commit))
                self.in_view(request, tus)
                self.take(tus)
            self.after_view(request)
        return adapter.resp

    conflicts_of_calls = 0

    def _conflict_of_call(self):
        if self.conflicts_of_calls:
            self.conflicts_of_calls -= 1
            raise Conflict

    def fail_once(self, error=Conflict):
        """Return a function that raises at its first call."""
        failures = [error]

        def fail(*arguments):
            if failures:
                raise failures.pop()

        return fail


def application(directory):
    """Return the application for gunicorn, whose view writes each file beside the uploads."""
    includes = ("pyramid_retry", "pyramid_tm", *filter(None, os.environ.get("INCLUDES", "").split()))
    return Site(directory, *includes).app
