"""What is counted is what happened, and nothing that was sent becomes a label."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import httpx
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from msgtrace.api.measured import MeasuredRequests
from msgtrace.errors import DataRefused, MalformedRequest, Overloaded, StorageUnavailable
from msgtrace.model.batch import Rejection, SpanBatch
from msgtrace.pipeline.batcher import Batcher
from msgtrace.pipeline.dead_letters import DeadLetterKeeper
from msgtrace.receivers.budget import ByteBudget
from msgtrace.receivers.encoding import PROTOBUF
from msgtrace.receivers.export import TraceExport
from msgtrace.receivers.status import refuse
from msgtrace.telemetry.collector_metrics import CollectorMetrics
from msgtrace.telemetry.metric_set import reason_of
from msgtrace.telemetry.metrics import VERSION, QueryMetrics, create_registry, declarations
from msgtrace.telemetry.process import ProcessTelemetry
from tests.batches import make_batch, request, span
from tests.letters import MemoryLetters


class Writer:
    """Knows the spans that it has; waits while it is not open."""

    writer_count = 1

    def __init__(self) -> None:
        self.known: set[object] = set()
        self.errors: list[Exception] = []
        self.is_open = asyncio.Event()
        self.is_open.set()

    async def write_spans(self, batches: Sequence[SpanBatch]) -> int:
        await self.is_open.wait()
        if self.errors:
            raise self.errors.pop()
        keys = {row[1:3] for batch in batches for row in batch.spans}
        new = len(keys - self.known)
        self.known |= keys
        return new


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def metrics(registry: CollectorRegistry) -> CollectorMetrics:
    return CollectorMetrics(registry)


@pytest.fixture
def writer() -> Writer:
    return Writer()


def batcher_over(writer: Writer, metrics: CollectorMetrics) -> Batcher:
    return Batcher(
        writer,
        max_batch_bytes=10_000,
        max_queued_bytes=1_000,
        keeper=DeadLetterKeeper(MemoryLetters(), max_bytes=10_000, metrics=metrics),
        metrics=metrics,
    )


def value(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    return registry.get_sample_value(f"msgtrace_{name}", labels)


async def test_a_flush_is_counted_with_its_new_and_its_resent_spans(
    registry: CollectorRegistry, metrics: CollectorMetrics, writer: Writer
) -> None:
    async with batcher_over(writer, metrics) as batcher:
        await batcher.submit(make_batch(span("a"), span("b")))
        await batcher.submit(make_batch(span("b"), span("c"), span("d")))

    assert value(registry, "spans_accepted_total") == 5
    assert value(registry, "spans_stored_total") == 4
    assert value(registry, "spans_duplicate_total") == 1
    assert value(registry, "flush_spans_count") == 2
    assert value(registry, "flush_spans_sum") == 5
    assert value(registry, "commit_seconds_count") == 2
    assert metrics.totals() == {
        "requests": 0,
        "spans_accepted": 5,
        "spans_stored": 4,
        "spans_duplicate": 1,
        "waiting": 0,
    }


async def test_a_flush_that_the_database_was_away_for_is_counted_by_its_reason(
    registry: CollectorRegistry, metrics: CollectorMetrics, writer: Writer
) -> None:
    writer.errors = [StorageUnavailable("gone")]
    async with batcher_over(writer, metrics) as batcher:
        with pytest.raises(StorageUnavailable):
            await batcher.submit(make_batch(span("a"), span("b")))

    assert value(registry, "flushes_refused_total", reason="storage_unavailable") == 1
    assert value(registry, "spans_accepted_total") == 0
    assert value(registry, "flush_spans_count") == 0


@pytest.mark.parametrize(
    ("error", "reason"),
    [(DataRefused("no"), "data_refused"), (RuntimeError("a bug"), "internal_error")],
)
async def test_a_flush_that_was_refused_for_its_data_is_counted_by_what_became_of_its_spans(
    registry: CollectorRegistry,
    metrics: CollectorMetrics,
    writer: Writer,
    error: Exception,
    reason: str,
) -> None:
    writer.known = {(row[1], row[2]) for row in make_batch(span("c")).spans}
    # The whole, its first half and the first span of that: "a" is to blame.
    writer.errors = [error, error, error]
    async with batcher_over(writer, metrics) as batcher:
        await batcher.submit(make_batch(span("a"), span("b"), span("c")))

    assert value(registry, "flushes_refused_total", reason=reason) == 1
    assert value(registry, "spans_refused_total") == 0
    assert value(registry, "spans_accepted_total") == 2
    assert value(registry, "spans_stored_total") == 1
    assert value(registry, "spans_duplicate_total") == 1
    assert value(registry, "spans_rejected_total", reason="kept_as_dead_letter") == 1
    assert value(registry, "dead_letter_spans_total", reason=reason) == 1
    assert value(registry, "dead_letter_limit_bytes") == 10_000


async def test_the_queue_shows_what_waits_and_for_how_long(
    registry: CollectorRegistry, metrics: CollectorMetrics, writer: Writer
) -> None:
    batch = make_batch(span("a"))
    async with batcher_over(writer, metrics) as batcher:
        assert value(registry, "queue_age_seconds") == 0
        writer.is_open.clear()
        first = asyncio.create_task(batcher.submit(batch))
        await asyncio.sleep(0.03)
        second = asyncio.create_task(batcher.submit(batch))
        await asyncio.sleep(0.01)

        assert value(registry, "queue_requests") == 2
        assert value(registry, "queue_bytes") == 2 * batch.body_bytes
        assert value(registry, "queue_limit_bytes") == 1_000
        age_s = value(registry, "queue_age_seconds")
        assert age_s is not None
        assert age_s >= 0.03
        with pytest.raises(Overloaded):
            await batcher.submit(SpanBatch(spans=list(batch.spans) * 3, body_bytes=1_000))
        writer.is_open.set()
        await asyncio.gather(first, second)

    assert value(registry, "queue_requests") == 0
    assert value(registry, "queue_bytes") == 0
    assert value(registry, "queue_age_seconds") == 0


async def test_the_spans_of_an_export_add_up(
    registry: CollectorRegistry, metrics: CollectorMetrics, writer: Writer
) -> None:
    body = request(
        span("good"), span("t", trace_id=b""), span("s", span_id=b"1"), span("u", span_id=b"2")
    ).SerializeToString()
    async with batcher_over(writer, metrics) as batcher:
        export = TraceExport(
            batcher, max_request_bytes=10_000, budget=ByteBudget(10_000), metrics=metrics
        )
        await export.export(body, PROTOBUF, wire="grpc")
        writer.errors = [StorageUnavailable("gone")]
        with pytest.raises(StorageUnavailable):
            await export.export(body, PROTOBUF, wire="grpc")
        with pytest.raises(MalformedRequest):
            await export.export(b"\xff", PROTOBUF, wire="http")

    assert value(registry, "requests_received_total", wire="grpc", encoding="protobuf") == 2
    assert value(registry, "requests_received_total", wire="http", encoding="protobuf") == 1
    assert value(registry, "request_received_bytes_total", wire="grpc") == 2 * len(body)
    assert value(registry, "request_inflated_bytes_total", wire="grpc") == 2 * len(body)
    assert value(registry, "request_inflated_bytes_total", wire="http") is None
    assert value(registry, "acknowledgement_seconds_count", wire="grpc") == 1
    assert value(registry, "spans_received_total") == 8
    assert value(registry, "spans_accepted_total") == 1
    assert value(registry, "spans_refused_total") == 1
    assert value(registry, "spans_rejected_total", reason="invalid_trace_id") == 2
    assert value(registry, "spans_rejected_total", reason="invalid_span_id") == 4
    assert value(registry, "spans_rejected_total", reason="invalid_parent_span_id") == 0


def test_a_refusal_is_counted_by_the_class_of_its_error(
    registry: CollectorRegistry, metrics: CollectorMetrics
) -> None:
    refuse(Overloaded("full"), "grpc", metrics)
    refuse(KeyError("what a sender sent"), "http", metrics)

    assert value(registry, "requests_refused_total", wire="grpc", reason="overloaded") == 1
    assert value(registry, "requests_refused_total", wire="http", reason="internal_error") == 1


def test_every_rejection_has_a_label_of_its_own() -> None:
    labels = [rejection.label for rejection in Rejection]

    assert len(set(labels)) == len(labels)
    assert all(label.replace("_", "").islower() for label in labels)


def test_the_reason_is_the_class_in_snake_case() -> None:
    assert reason_of(MalformedRequest("secret")) == "malformed_request"
    assert reason_of(ValueError("secret")) == "internal_error"


def test_the_page_parses_and_shows_declared_metrics_and_the_process() -> None:
    registry = create_registry("sqlite")
    CollectorMetrics(registry)
    QueryMetrics(registry)

    families = list(text_string_to_metric_families(generate_latest(registry).decode()))

    names = {family.name + ("_total" if family.type == "counter" else "") for family in families}
    ours = {name for name in names if name.startswith("msgtrace_")}
    assert ours <= declarations().keys()
    assert {"msgtrace_queue_bytes", "msgtrace_build_info"} <= ours
    assert {"process_cpu_seconds_total", "process_resident_memory_bytes"} <= names
    assert not [name for name in names if name.endswith("_created")]
    labels = {"version": VERSION, "database": "sqlite"}
    assert registry.get_sample_value("msgtrace_build_info", labels) == 1


def test_pools_are_read_when_somebody_asks() -> None:
    class Database:
        backend = "postgres"
        busy = 1

        async def check(self) -> None: ...

        def count_connections(self) -> Mapping[str, tuple[int, int]]:
            return {"write": (2, self.busy)}

    database = Database()
    registry = ProcessTelemetry(database).registry

    assert value(registry, "database_connections", pool="write") == 2
    assert value(registry, "database_connections_in_use", pool="write") == 1
    database.busy = 2
    assert value(registry, "database_connections_in_use", pool="write") == 2


# The query port


async def answer(request: Request) -> PlainTextResponse:
    return PlainTextResponse(request.path_params["name"], int(request.query_params["status"]))


async def fail(request: Request) -> PlainTextResponse:
    raise RuntimeError("a bug")


@pytest.fixture
def query_app(registry: CollectorRegistry) -> Starlette:
    return Starlette(
        routes=[Route("/things/{name:path}", answer), Route("/fail", fail)],
        middleware=[Middleware(MeasuredRequests, metrics=QueryMetrics(registry))],
    )


async def ask(app: Starlette, method: str, path: str) -> None:
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://msgtrace") as client:
        await client.request(method, path)


async def test_requests_are_counted_by_the_template_of_their_route(
    registry: CollectorRegistry, query_app: Starlette
) -> None:
    for path in ("/things/a?status=200", "/things/b/c?status=200", "/things/d?status=404"):
        await ask(query_app, "GET", path)

    route = "/things/{name}"
    assert value(registry, "query_requests_total", route=route, method="GET", status="200") == 2
    assert value(registry, "query_requests_total", route=route, method="GET", status="404") == 1
    assert value(registry, "query_seconds_count", route=route) == 3


async def test_what_clients_make_up_becomes_no_label(
    registry: CollectorRegistry, query_app: Starlette
) -> None:
    await ask(query_app, "GET", "/made-up")
    await ask(query_app, "BREW", "/things/tea?status=200")

    unmatched = {"route": "unmatched", "method": "GET", "status": "404"}
    assert value(registry, "query_requests_total", **unmatched) == 1
    brewed = {"route": "/things/{name}", "method": "other", "status": "405"}
    assert value(registry, "query_requests_total", **brewed) == 1
    assert "BREW" not in generate_latest(registry).decode()
