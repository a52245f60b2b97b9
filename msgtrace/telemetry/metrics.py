"""msgtrace's own metrics for Prometheus: every one is declared here or in `collector_metrics`.

The composition root makes a registry and these objects and hands them down; there is no global one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import version

from prometheus_client import CollectorRegistry, ProcessCollector, disable_created_metrics

from msgtrace.model.maintenance import Purged, RetentionState
from msgtrace.model.units import NS_PER_S
from msgtrace.telemetry.collector_metrics import CollectorMetrics, SpillMetrics
from msgtrace.telemetry.metric_set import SECONDS, Declaration, MetricSet

VERSION = version("msgtrace")


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
