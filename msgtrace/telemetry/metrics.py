"""msgtrace's own metrics for Prometheus: every one is declared here, and nowhere else.

Units are in the names: `_seconds`, `_bytes`, `_total` for counts since the start. Outcomes are
accepted, rejected (some spans of a request), refused (a whole request), dropped (by the sender),
lost (never, or it is a bug). Label values come from small fixed sets, never from what was sent.
The composition root makes a registry and these objects and hands them down; there is no global one.
Counted per request and per flush, never per span.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)

from msgtrace.errors import MsgtraceError
from msgtrace.model.batch import Rejection, SpanBatch
from msgtrace.model.maintenance import Purged, RetentionState
from msgtrace.model.units import NS_PER_S

VERSION = version("msgtrace")

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1, 2.5, 5, 10, 30)
"""Buckets for durations; 0.2 is the aim for acknowledgements under load."""

FLUSH_SPANS = (1, 10, 50, 100, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000)
FLUSH_BYTES = tuple(1024 * 4**n for n in range(9))
"""1 KiB to 64 MiB."""

INTERNAL_ERROR = "internal_error"
"""The reason of an error that was not raised on purpose."""

_CAPITAL_INSIDE = re.compile(r"(?<!^)(?=[A-Z])")


def reason_of(error: BaseException) -> str:
    """The class of an error as a label: `StorageUnavailable` is `storage_unavailable`."""
    if not isinstance(error, MsgtraceError):
        return INTERNAL_ERROR
    return _CAPITAL_INSIDE.sub("_", type(error).__name__).lower()


@dataclass(frozen=True, slots=True)
class Declaration:
    """One metric as docs/metrics.md shows it. `kind` is counter, gauge or histogram."""

    name: str
    kind: str
    labels: tuple[str, ...]
    meaning: str


class MetricSet:
    """Metrics that belong together. Without a registry they count, and nobody can read them."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self._registry = registry
        self.declarations: list[Declaration] = []

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        self._declare("counter", name, meaning, labels)
        return Counter(name, meaning, labels, registry=self._registry)

    def _gauge(self, name: str, meaning: str, *labels: str) -> Gauge:
        self._declare("gauge", name, meaning, labels)
        return Gauge(name, meaning, labels, registry=self._registry)

    def _histogram(
        self, name: str, meaning: str, *labels: str, buckets: Sequence[float]
    ) -> Histogram:
        self._declare("histogram", name, meaning, labels)
        return Histogram(name, meaning, labels, registry=self._registry, buckets=buckets)

    def _declare(self, kind: str, name: str, meaning: str, labels: tuple[str, ...]) -> None:
        self.declarations.append(Declaration(name, kind, labels, meaning))


class CollectorMetrics(MetricSet):
    """What comes in, and what becomes of it.

    Spans received are accepted, rejected, refused or spilled, or still wait. Spilled ones are
    accepted when they are drained. Accepted ones are stored or duplicates. The sums hold at any
    moment at which nothing is under way.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        super().__init__(registry)
        self._declare_requests()
        self._declare_spans()
        self._declare_queue()
        self._declare_flushes()
        self._declare_dead_letters()

    def name_decoder(self, decoder: str) -> None:
        """Requests are decoded by `decoder`: python or native."""
        self._decoder.labels(decoder).set(1)

    def count_received(self, wire: str, encoding: str, body_bytes: int) -> None:
        """A request was read. body_bytes: its size as it came, still compressed."""
        self._requests_received.labels(wire, encoding).inc()
        self._received_bytes.labels(wire).inc(body_bytes)

    def count_decoded(self, wire: str, batch: SpanBatch) -> None:
        """A request was inflated and decoded."""
        self._inflated_bytes.labels(wire).inc(batch.body_bytes)
        self._spans_received.inc(len(batch.spans) + batch.rejected_spans)
        for rejection, count in batch.rejections.items():
            self.count_rejected(rejection, count)
        for action, count in batch.redacted.items():
            self._values_redacted.labels(action).inc(count)

    def count_acknowledged(self, wire: str, took_s: float) -> None:
        """A request was accepted, so long after its body was complete."""
        self._acknowledgement.labels(wire).observe(took_s)

    def count_refused(self, wire: str, error: BaseException) -> None:
        """A whole request gets an error for an answer."""
        self._requests_refused.labels(wire, reason_of(error)).inc()

    def count_spans_refused(self, spans: int) -> None:
        """Decoded spans were not stored."""
        self._spans_refused.inc(spans)

    def count_rejected(self, rejection: Rejection, spans: int) -> None:
        """Decoded spans were left out of their request."""
        self._spans_rejected.labels(rejection.label).inc(spans)

    def count_accepted(self, spans: int, new: int) -> None:
        """Spans were committed; `new` of them were not stored before."""
        self._spans_accepted.inc(spans)
        self._spans_stored.inc(new)
        self._spans_duplicate.inc(spans - new)

    def count_flush(self, *, spans: int, new: int, body_bytes: int, took_s: float) -> None:
        """A flush was committed; `new` of its spans were not stored before."""
        self.count_accepted(spans, new)
        self._flush_spans.observe(spans)
        self._flush_bytes.observe(body_bytes)
        self._commit.observe(took_s)

    def count_flush_refused(self, error: BaseException) -> None:
        """A flush was not committed."""
        self._flushes_refused.labels(reason_of(error)).inc()

    def count_dead_letter(self, error: BaseException, spans: int) -> None:
        """Spans that were refused with `error` are kept as a dead letter."""
        self._dead_letter_spans.labels(reason_of(error)).inc(spans)

    def set_dead_letters(self, letters: int, kept_bytes: int) -> None:
        """The dead letters of the database were summed up."""
        self._dead_letters.set(letters)
        self._dead_letter_bytes.set(kept_bytes)

    def set_dead_letter_limit(self, max_bytes: int) -> None:
        """How much of them is kept at most."""
        self._dead_letter_limit.set(max_bytes)

    def watch_queue(
        self,
        *,
        queued_requests: Callable[[], int],
        queued_bytes: Callable[[], int],
        age_s: Callable[[], float],
        max_bytes: int,
    ) -> None:
        """Read the queue whenever somebody asks for the metrics."""
        self._queue_requests.set_function(queued_requests)
        self._queue_bytes.set_function(queued_bytes)
        self._queue_age.set_function(age_s)
        self._queue_limit.set(max_bytes)

    def totals(self) -> dict[str, int]:
        """What a stopped collector says it did. `waiting` are requests without an answer."""
        return {
            "requests": _total(self._requests_received),
            "spans_accepted": _total(self._spans_accepted),
            "spans_stored": _total(self._spans_stored),
            "spans_duplicate": _total(self._spans_duplicate),
            "waiting": _total(self._queue_requests),
        }

    def _declare_requests(self) -> None:
        self._decoder = self._gauge(
            "msgtrace_decoder_info", "Always 1; what decodes requests.", "decoder"
        )
        self._requests_received = self._counter(
            "msgtrace_requests_received_total",
            "Export requests whose body was read, by wire (grpc, http) and encoding.",
            "wire",
            "encoding",
        )
        self._requests_refused = self._counter(
            "msgtrace_requests_refused_total",
            "Export requests answered with an error, by its class.",
            "wire",
            "reason",
        )
        self._received_bytes = self._counter(
            "msgtrace_request_received_bytes_total",
            "Bytes of request bodies as they came, still compressed.",
            "wire",
        )
        self._inflated_bytes = self._counter(
            "msgtrace_request_inflated_bytes_total",
            "Bytes of decoded request bodies after inflating.",
            "wire",
        )
        self._acknowledgement = self._histogram(
            "msgtrace_acknowledgement_seconds",
            "Time from the last byte of a request to its durable storage.",
            "wire",
            buckets=SECONDS,
        )

    def _declare_spans(self) -> None:
        self._spans_received = self._counter("msgtrace_spans_received_total", "Spans decoded.")
        self._spans_accepted = self._counter(
            "msgtrace_spans_accepted_total", "Spans committed to the database or already in it."
        )
        self._spans_rejected = self._counter(
            "msgtrace_spans_rejected_total",
            "Spans left out of their request, by what is wrong with them.",
            "reason",
        )
        self._values_redacted = self._counter(
            "msgtrace_values_redacted_total",
            "Values of attributes that were dropped or hashed before they were stored, by action.",
            "action",
        )
        for rejection in Rejection:
            self._spans_rejected.labels(rejection.label)
        self._spans_refused = self._counter(
            "msgtrace_spans_refused_total", "Spans of requests refused after decoding."
        )
        self._spans_stored = self._counter(
            "msgtrace_spans_stored_total", "Accepted spans that were new."
        )
        self._spans_duplicate = self._counter(
            "msgtrace_spans_duplicate_total", "Accepted spans that were stored already."
        )

    def _declare_queue(self) -> None:
        self._queue_requests = self._gauge(
            "msgtrace_queue_requests", "Requests that wait for the database or are being written."
        )
        self._queue_bytes = self._gauge(
            "msgtrace_queue_bytes", "Bytes of the requests in the queue, inflated."
        )
        self._queue_limit = self._gauge(
            "msgtrace_queue_limit_bytes", "Bytes of the queue beyond which requests are refused."
        )
        self._queue_age = self._gauge(
            "msgtrace_queue_age_seconds", "How long the oldest request in the queue has waited."
        )

    def _declare_flushes(self) -> None:
        self._flush_spans = self._histogram(
            "msgtrace_flush_spans", "Spans in one committed flush.", buckets=FLUSH_SPANS
        )
        self._flush_bytes = self._histogram(
            "msgtrace_flush_bytes", "Request bytes in one committed flush.", buckets=FLUSH_BYTES
        )
        self._commit = self._histogram(
            "msgtrace_commit_seconds",
            "Time that a committed flush took the database.",
            buckets=SECONDS,
        )
        self._flushes_refused = self._counter(
            "msgtrace_flushes_refused_total",
            "Flushes that were not committed, by the class of the error.",
            "reason",
        )

    def _declare_dead_letters(self) -> None:
        self._dead_letter_spans = self._counter(
            "msgtrace_dead_letter_spans_total",
            "Spans that the database refused and that are kept as dead letters, by the class of"
            " the error.",
            "reason",
        )
        self._dead_letters = self._gauge(
            "msgtrace_dead_letters", "Dead letters in the database; looked at now and then."
        )
        self._dead_letter_bytes = self._gauge(
            "msgtrace_dead_letter_bytes", "Bytes that the dead letters in the database count for."
        )
        self._dead_letter_limit = self._gauge(
            "msgtrace_dead_letter_limit_bytes",
            "Bytes of dead letters beyond which no more are kept.",
        )


class SpillMetrics(MetricSet):
    """Requests that are kept on local disk while the database is away."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        super().__init__(registry)
        self._spilled = self._counter(
            "msgtrace_spilled_requests_total",
            "Requests acknowledged from the spill, as the database was away.",
        )
        self._spans_spilled = self._counter(
            "msgtrace_spans_spilled_total", "Spans of the requests acknowledged from the spill."
        )
        self._drained = self._counter(
            "msgtrace_spill_drained_requests_total",
            "Requests that went from the spill into the database.",
        )
        self._requests = self._gauge(
            "msgtrace_spill_requests", "Requests in the spill that wait to be drained."
        )
        self._set_aside = self._gauge(
            "msgtrace_spill_set_aside_requests",
            "Requests in the spill that cannot be stored and wait for a person.",
        )
        self._bytes = self._gauge("msgtrace_spill_bytes", "Bytes of the requests in the spill.")
        self._limit = self._gauge(
            "msgtrace_spill_limit_bytes", "Bytes of the spill beyond which requests are refused."
        )
        self._age = self._gauge(
            "msgtrace_spill_oldest_age_seconds",
            "How long ago the oldest request came that waits to be drained.",
        )

    def count_spilled(self, spans: int) -> None:
        """A request was acknowledged from the spill."""
        self._spilled.inc()
        self._spans_spilled.inc(spans)

    def count_drained(self, requests: int) -> None:
        """Requests went from the spill into the database."""
        self._drained.inc(requests)

    def watch(
        self,
        *,
        requests: Callable[[], int],
        set_aside: Callable[[], int],
        payload_bytes: Callable[[], int],
        age_s: Callable[[], float],
        max_bytes: int,
    ) -> None:
        """Read the spill whenever somebody asks for the metrics."""
        self._requests.set_function(requests)
        self._set_aside.set_function(set_aside)
        self._bytes.set_function(payload_bytes)
        self._age.set_function(age_s)
        self._limit.set(max_bytes)

    def totals(self) -> dict[str, int]:
        """What a stopped collector adds to what it says. `in_spill` requests are drained later."""
        return {"requests_spilled": _total(self._spilled), "in_spill": _total(self._requests)}


class MaintenanceMetrics(MetricSet):
    """What is done to keep the database in shape."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        super().__init__(registry)
        self._enabled = self._gauge(
            "msgtrace_retention_enabled", "1 if old spans are deleted, by age or by size, else 0."
        )
        self._success = self._gauge(
            "msgtrace_retention_last_success_timestamp_seconds",
            "When retention last succeeded, whichever process did it; 0 if it never did.",
        )
        self._edge = self._gauge(
            "msgtrace_retention_purged_before_timestamp_seconds",
            "Spans that start before this time were deleted; 0 if none were.",
        )
        self._failures = self._counter(
            "msgtrace_maintenance_failures_total", "Runs of maintenance that did not succeed."
        )
        self._spans = self._counter(
            "msgtrace_purged_spans_total", "Spans that retention in this process deleted."
        )
        self._traces = self._counter(
            "msgtrace_purged_traces_total", "Traces that retention in this process deleted."
        )
        self._partitions = self._gauge(
            "msgtrace_partitions", "Partitions of spans in PostgreSQL, the default one among them."
        )
        self._used = self._gauge(
            "msgtrace_database_bytes",
            "Bytes that traces and what belongs to them take, where there is a limit.",
        )
        self._limit = self._gauge(
            "msgtrace_database_limit_bytes",
            "Bytes beyond which the oldest traces are deleted; 0 for no limit.",
        )

    def set_policy(self, *, is_on: bool, max_bytes: int) -> None:
        """What the settings want."""
        self._enabled.set(is_on)
        self._limit.set(max_bytes)

    def set_success(self, state: RetentionState) -> None:
        """What the database knows of the last success."""
        self._success.set(state.succeeded_at_ns / NS_PER_S)
        self._edge.set(state.purged_before_ns / NS_PER_S)

    def count_purged(self, purged: Purged) -> None:
        """A step of a purge was done."""
        self._spans.inc(purged.spans)
        self._traces.inc(purged.traces)

    def count_failure(self) -> None:
        """A run ended with an error."""
        self._failures.inc()

    def set_partitions(self, count: int) -> None:
        """How many partitions there are."""
        self._partitions.set(count)

    def set_used_bytes(self, used_bytes: int) -> None:
        """How much of the limit is used."""
        self._used.set(used_bytes)


class QueryMetrics(MetricSet):
    """What the query service was asked."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        super().__init__(registry)
        self._requests = self._counter(
            "msgtrace_query_requests_total",
            "Requests to the query port, by route, method and status; `unmatched` has no route.",
            "route",
            "method",
            "status",
        )
        self._seconds = self._histogram(
            "msgtrace_query_seconds",
            "Time from the head of a request to the end of its answer.",
            "route",
            buckets=SECONDS,
        )

    def count_request(self, *, route: str, method: str, status: int, took_s: float) -> None:
        """A request was answered. Route and method must come from fixed sets."""
        self._requests.labels(route, method, str(status)).inc()
        self._seconds.labels(route).observe(took_s)


class DatabaseMetrics(MetricSet):
    """The database as this process sees it."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        super().__init__(registry)
        self._answers = self._gauge(
            "msgtrace_database_answers",
            "1 if the database answered when it was last asked, else 0.",
        )
        self._connections = self._gauge(
            "msgtrace_database_connections", "Open connections to PostgreSQL.", "pool"
        )
        self._in_use = self._gauge(
            "msgtrace_database_connections_in_use",
            "Connections to PostgreSQL with work to do.",
            "pool",
        )

    def set_answers(self, answers: bool) -> None:
        """The database was asked."""
        self._answers.set(answers)

    def watch_pool(self, pool: str, size: Callable[[], int], in_use: Callable[[], int]) -> None:
        """Read a pool of connections whenever somebody asks for the metrics."""
        self._connections.labels(pool).set_function(size)
        self._in_use.labels(pool).set_function(in_use)


class WorkerMetrics(MetricSet):
    """The processes that share the ports, where there are several."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        super().__init__(registry)
        self._wanted = self._gauge(
            "msgtrace_workers", "Processes that are to share the ports; absent if there is one."
        )
        self._running = self._gauge(
            "msgtrace_running_workers", "Processes that serve, of those that are to."
        )
        self._restarts = self._counter(
            "msgtrace_worker_restarts_total",
            "Processes that ended by themselves and were replaced.",
        )

    def set_workers(self, *, wanted: int, running: int, restarts: int) -> None:
        """The supervisor was asked."""
        self._wanted.set(wanted)
        self._running.set(running)
        self._restarts.inc(restarts)


class BuildMetrics(MetricSet):
    """What is running."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        super().__init__(registry)
        self._build = self._gauge(
            "msgtrace_build_info",
            "Always 1; the labels say what is running.",
            "version",
            "database",
        )

    def set_build(self, database: str) -> None:
        """`database` is the backend in use."""
        self._build.labels(VERSION, database).set(1)


def create_registry(database: str) -> CollectorRegistry:
    """A registry that knows the process and the build. database: the backend in use."""
    disable_created_metrics()  # type: ignore[no-untyped-call]  # a time of creation beside every series doubles the page
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    BuildMetrics(registry).set_build(database)
    return registry


def declarations() -> Mapping[str, Declaration]:
    """Every metric that any process of msgtrace may show, by name."""
    sets = (
        CollectorMetrics(),
        SpillMetrics(),
        MaintenanceMetrics(),
        QueryMetrics(),
        DatabaseMetrics(),
        WorkerMetrics(),
        BuildMetrics(),
    )
    return {each.name: each for metrics in sets for each in metrics.declarations}


def _total(metric: Counter | Gauge) -> int:
    samples = (sample for family in metric.collect() for sample in family.samples)
    return round(sum(sample.value for sample in samples if not sample.name.endswith("_created")))
