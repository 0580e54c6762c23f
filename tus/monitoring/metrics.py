"""Metrics for Prometheus, with tusd's names where tusd has the metric, so that its dashboards show this server too.

With several worker processes, ``PROMETHEUS_MULTIPROC_DIR`` must name a directory that is empty when the server starts;
``tus serve --metrics`` sets it. Metrics that need a look at every upload are as old as the last sweep.

Law of this room: a label has one of a few values that are known here. Text of a client or an application is none,
because each new value would take memory for ever, in this process and in Prometheus.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from http import HTTPStatus

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from tus import errors
from tus.events import Answered, Begun, Created, Ended, Event, Fenced, Finished, HandedOver, Synced, TakenOver
from tus.models import State, Upload
from tus.stores.interface import Counts, Store

CONTENT_TYPE = CONTENT_TYPE_LATEST

_METHODS = frozenset({"POST", "PUT", "PATCH", "HEAD", "GET", "DELETE", "OPTIONS"})
_OTHER = "other"
_QUICK = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
_SLOW = (0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0)

registry = CollectorRegistry()


def _like_tusd(name: str, text: str) -> Gauge:
    """Return a counter whose name does not end in ``_total``, which a ``Counter`` of this library would append."""
    return Gauge(name, text, multiprocess_mode="sum", registry=registry)


_requests = Counter("tusd_requests", "Requests by method.", ["method"], registry=registry)
_errors = Counter("tusd_errors", "Responses with a status of 400 or more.", ["status", "code"], registry=registry)
_bytes = _like_tusd("tusd_bytes_received", "Bytes received for uploads.")
_created = _like_tusd("tusd_uploads_created", "Uploads created.")
_finished = _like_tusd("tusd_uploads_finished", "Uploads whose last byte was stored.")
_terminated = _like_tusd("tusd_uploads_terminated", "Uploads terminated by their clients.")
_open = Gauge("tusd_connections_open", "Requests in progress.", multiprocess_mode="livesum", registry=registry)

_resumes = Counter("tus_resumes", "Requests in which a client asked for the offset to resume from.", registry=registry)
_cuts = Counter("tus_cut_requests", "Requests whose connection broke.", registry=registry)
_kept = Counter("tus_cut_requests_kept_bytes", "Bytes kept from requests whose connection broke.", registry=registry)
_takeovers = Counter("tus_takeovers", "Appends that began before an earlier append had ended.", registry=registry)
_fenced = Counter("tus_sessions_fenced", "Appends that stopped because a newer one had begun.", registry=registry)
_attempts = Counter(
    "tus_handover_attempts", "Attempts to hand a file over, by outcome.", ["outcome"], registry=registry
)
_handover = Histogram(
    "tus_handover_seconds", "Duration of the attempts to hand a file over.", buckets=_SLOW, registry=registry
)
_expired = Counter("tus_uploads_expired", "Expired uploads that were removed.", registry=registry)
_syncs = Histogram("tus_fsync_seconds", "Duration of forcing data to the disk.", buckets=_QUICK, registry=registry)


def _codes() -> dict[int, str]:
    """Return the code of each known status of an error, from its reason."""
    reasons = {status.value: status.phrase for status in HTTPStatus}
    reasons |= {kind.status: kind.reason for kind in vars(errors).values() if hasattr(kind, "reason")}
    return {
        status: "ERR_" + "_".join(re.findall("[A-Z]+", reason.upper()))
        for status, reason in reasons.items()
        if status >= 400
    }


_CODES = _codes()


def count(event: Event) -> None:
    """Count an event."""
    match event:
        case Begun(method):
            _requests.labels(method if method in _METHODS else _OTHER).inc()
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
                code = _CODES.get(event.status)  # an application can respond with any status and reason
                _errors.labels(_OTHER if code is None else str(event.status), code or "ERR_OTHER").inc()
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
    """Return all metrics of this server, of all its processes, as text."""
    collected = registry
    if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        collected = CollectorRegistry()
        MultiProcessCollector(collected)  # type: ignore[no-untyped-call]
    counted = CollectorRegistry()
    counted.register(_SweepCollector(store))
    return generate_latest(collected) + generate_latest(counted)


class _SweepCollector(Collector):
    """The numbers of the last sweep, which are the same in every process."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def collect(self) -> Iterator[GaugeMetricFamily]:
        counts = self._store.statistics() if isinstance(self._store, Counts) else None
        if counts is None:
            return
        age = 0.0 if counts.pending_since is None else max(time.time() - counts.pending_since, 0.0)
        for name, text, value in (
            ("tus_unfinished_uploads", "Uploads that wait for bytes.", counts.unfinished),
            ("tus_unfinished_bytes", "Bytes received for them.", counts.unfinished_bytes),
            ("tus_reserved_bytes", "Disk space reserved for the rest of them.", counts.reserved_bytes),
            ("tus_handover_pending", "Complete files that the application has not accepted.", counts.pending),
            ("tus_handover_oldest_pending_seconds", "Age of the oldest of them.", age),
            ("tus_handover_aside", "Pending files that were set aside after too many attempts.", counts.aside),
            (
                "tus_rejected_uploads",
                "Files that the application has rejected and that are still kept.",
                counts.rejected,
            ),
            (
                "tus_last_sweep_timestamp_seconds",
                "Time when pending and unfinished uploads were last counted.",
                counts.swept_at,
            ),
        ):
            yield GaugeMetricFamily(name, text, value=value)
