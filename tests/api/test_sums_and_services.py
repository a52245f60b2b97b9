from __future__ import annotations

from urllib.parse import quote

import httpx
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from msgtrace.model.span import STATUS_ERROR
from msgtrace.storage.protocol import Storage
from tests.batches import TRACE_A, TRACE_B, make_batch, span, trace_id_of


async def test_stats_sum_the_matching_traces(client: httpx.AsyncClient, storage: Storage) -> None:
    fast = span(trace_id=trace_id_of("fast"))
    failed = span(trace_id=trace_id_of("failed"), duration_ns=9_000_000, status_code=STATUS_ERROR)
    await storage.write_spans(
        [make_batch(fast, failed), make_batch(span(trace_id=TRACE_A), service="stock")]
    )

    stats = (await client.get("/api/v1/stats", params={"service_name": "shop"})).json()

    assert stats == {
        "total_traces": 2,
        "traces_with_errors": 1,
        "error_rate": 0.5,
        "total_spans": 2,
        "total_errors": 1,
        "duration_ms": {"p50": 1.0, "p95": 9.0, "p99": 9.0},
        "input_tokens": 0,
        "output_tokens": 0,
        "cached_tokens": 0,
        "reasoning_tokens": 0,
        "cost": 0.0,
        "estimated_cost": 0.0,
        "by_model": [],
        "by_service": [],
        "by_day": [],
    }


async def test_stats_of_nothing_have_no_percentiles(client: httpx.AsyncClient) -> None:
    stats = (await client.get("/api/v1/stats")).json()

    assert (stats["total_traces"], stats["error_rate"]) == (0, 0.0)
    assert stats["duration_ms"] == {"p50": None, "p95": None, "p99": None}


async def test_services_are_listed_once_and_sorted(
    client: httpx.AsyncClient, storage: Storage
) -> None:
    await storage.write_spans(
        [
            make_batch(span("a"), service="stock"),
            make_batch(span("b"), span("c"), service="shop"),
        ]
    )

    assert (await client.get("/api/v1/services")).json() == {"services": ["shop", "stock"]}


@pytest.mark.parametrize("service", ["shop", "team/shop", "a b?&#%", "ünï", "operations", "x/y/"])
async def test_operations_of_any_service_are_listed_once_and_sorted(
    client: httpx.AsyncClient, storage: Storage, service: str
) -> None:
    spans = [
        span("GET /cart", kind=Span.SPAN_KIND_SERVER),
        span("GET /cart", kind=Span.SPAN_KIND_SERVER, trace_id=TRACE_B),
        span("GET /", kind=Span.SPAN_KIND_CLIENT),
    ]
    await storage.write_spans(
        [make_batch(*spans, service=service), make_batch(span("PUT /"), service="other")]
    )

    response = await client.get(f"/api/v1/services/{quote(service, safe='')}/operations")

    assert response.json() == {
        "operations": [
            {"name": "GET /", "span_kind": "CLIENT"},
            {"name": "GET /cart", "span_kind": "SERVER"},
        ]
    }


async def test_an_unknown_service_has_no_operations(client: httpx.AsyncClient) -> None:
    response = await client.get("/api/v1/services/nobody/operations")

    assert response.status_code == 200
    assert response.json() == {"operations": []}


async def test_the_service_is_ready_while_the_database_answers(client: httpx.AsyncClient) -> None:
    response = await client.get("/ready")

    assert response.status_code == 200
    assert response.json() == {"status": "ready"}


async def test_the_operations_of_a_service_with_any_name_are_found(
    client: httpx.AsyncClient, storage: Storage
) -> None:
    name = "a/b\nc?d #é"
    await storage.write_spans([make_batch(span("work"), service=name)])

    reply = await client.get(f"/api/v1/services/{quote(name, safe='')}/operations")

    assert [each["name"] for each in reply.json()["operations"]] == ["work"]
