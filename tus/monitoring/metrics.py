"""Metrics in Prometheus' form, under tusd's names where it has one, so that its dashboards show this server too.

They are right with several worker processes where ``PROMETHEUS_MULTIPROC_DIR`` names a directory that is empty when
the server starts; ``tus serve --metrics`` sees to that. What only a look at every upload can tell is as old as the last
sweep.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from tus.events import Answered, Begun, Created, Ended, Event, Fenced, Finished, HandedOver, Synced, TakenOver, listen
from tus.models import State, Upload
from tus.stores.interface import Counts, Store

CONTENT_TYPE = CONTENT_TYPE_LATEST

_METHODS = frozenset({"POST", "PATCH", "HEAD", "GET", "DELETE", "OPTIONS"})
_QUICK = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
_SLOW = (0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0)

registry = CollectorRegistry()


def _like_tusd(name: str, text: str) -> Gauge:
    """A counter that has no ``_total`` at the end of its name, which a ``Counter`` of this library would give it."""
    return Gauge(name, text, multiprocess_mode="sum", registry=registry)


_requests = Counter("tusd_requests", "Requests, by method.", ["method"], registry=registry)
_errors = Counter("tusd_errors", "Answers of 400 and more.", ["status", "code"], registry=registry)
_bytes = _like_tusd("tusd_bytes_received", "Bytes of uploads that were received.")
_created = _like_tusd("tusd_uploads_created", "Uploads that were created.")
_finished = _like_tusd("tusd_uploads_finished", "Uploads whose last byte was stored.")
_terminated = _like_tusd("tusd_uploads_terminated", "Uploads that were deleted by their clients.")
_open = Gauge("tusd_connections_open", "Requests at work.", multiprocess_mode="livesum", registry=registry)

_resumes = Counter("tus_resumes", "Times that a client asked where to go on with an upload.", registry=registry)
_cuts = Counter("tus_cut_requests", "Requests whose connection ended early.", registry=registry)
_kept = Counter("tus_cut_requests_kept_bytes", "Bytes kept from such requests.", registry=registry)
_takeovers = Counter("tus_takeovers", "Appends begun while an earlier one had not ended.", registry=registry)
_fenced = Counter("tus_sessions_fenced", "Appends that were ended by a newer one.", registry=registry)
_attempts = Counter(
    "tus_handover_attempts", "Times that the application was offered a file.", ["outcome"], registry=registry
)
_handover = Histogram(
    "tus_handover_seconds", "How long the application took for a file.", buckets=_SLOW, registry=registry
)
_expired = Counter("tus_uploads_expired", "Uploads that were removed because they had expired.", registry=registry)
_syncs = Histogram("tus_fsync_seconds", "How long forcing data to the disk took.", buckets=_QUICK, registry=registry)


def count(event: Event) -> None:
    """Take an event down."""
    match event:
        case Begun(method):
            _requests.labels(method if method in _METHODS else "other").inc()
            _open.inc()
        case Answered():
            _open.dec()
            if event.method == "HEAD" and event.status == 200 and _is_on_its_way(event.upload):
                _resumes.inc()
            _bytes.inc(event.received)
            if event.cut:
                _cuts.inc()
                _kept.inc(event.kept_from_cut)
            if event.status >= 400:
                _errors.labels(str(event.status), "ERR_" + event.reason.upper().replace(" ", "_")).inc()
        case Created():
            _created.inc()
        case Finished():
            _finished.inc()
        case TakenOver():
            _takeovers.inc()
        case Fenced():
            _fenced.inc()
        case HandedOver(_, outcome, seconds):
            _attempts.labels(outcome).inc()
            _handover.observe(seconds)
        case Ended(_, "terminated"):
            _terminated.inc()
        case Ended(_, "expired"):
            _expired.inc()
        case Synced(seconds):
            _syncs.observe(seconds)


def _is_on_its_way(upload: Upload | None) -> bool:
    return upload is not None and upload.state == State.RECEIVING and upload.offset > 0


def expose(store: Store) -> bytes:
    """All metrics of this server, of all its processes, as text."""
    collected = registry
    if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        collected = CollectorRegistry()
        MultiProcessCollector(collected)  # type: ignore[no-untyped-call]
    found = CollectorRegistry()
    found.register(_Found(store))
    return generate_latest(collected) + generate_latest(found)


class _Found(Collector):
    """What the last sweep has found, which is the same whichever process is asked."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def collect(self) -> Iterator[GaugeMetricFamily]:
        found = self._store.statistics() if isinstance(self._store, Counts) else None
        if found is None:
            return
        age = 0.0 if found.pending_since is None else max(time.time() - found.pending_since, 0.0)
        for name, text, value in (
            ("tus_unfinished_uploads", "Uploads that wait for bytes.", found.unfinished),
            ("tus_unfinished_bytes", "Bytes that have come of them.", found.unfinished_bytes),
            ("tus_reserved_bytes", "Room on the disk that is held for the rest of them.", found.reserved_bytes),
            ("tus_handover_pending", "Files that the application has not accepted yet.", found.pending),
            ("tus_handover_oldest_pending_seconds", "How long the oldest of them has been waiting.", age),
            ("tus_handover_aside", "Those of them that were put aside after too many attempts.", found.aside),
            (
                "tus_rejected_uploads",
                "Files that the application has rejected and that are still kept.",
                found.rejected,
            ),
            ("tus_last_sweep_timestamp_seconds", "When these were counted.", found.swept_at),
        ):
            yield GaugeMetricFamily(name, text, value=value)


listen(count)
