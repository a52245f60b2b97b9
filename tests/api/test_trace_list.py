from __future__ import annotations

from typing import Any

import httpx
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from msgtrace.model.span import STATUS_ERROR, TraceId
from msgtrace.model.units import NS_PER_MS
from msgtrace.storage.protocol import Storage
from tests.batches import NOON_NS, make_batch, span, span_id_of


def trace_id(number: int) -> TraceId:
    return TraceId(number.to_bytes(16, "big"))


def root(number: int, name: str = "work", **fields: Any) -> Span:
    """The root of trace `number`, which starts that many ms after noon and takes 1 ms."""
    start_ns = NOON_NS + number * NS_PER_MS
    return span(name, trace_id=trace_id(number), start_ns=start_ns, **fields)


def numbers_of(page: Any) -> list[int]:
    return [int(trace["trace_id"], 16) for trace in page["traces"]]


async def listed(client: httpx.AsyncClient, query: dict[str, str]) -> list[int]:
    """The numbers of the traces that match."""
    response = await client.get("/api/v1/traces", params=query)
    assert response.status_code == 200, response.text
    return numbers_of(response.json())


async def test_an_empty_storage_has_an_empty_list(client: httpx.AsyncClient) -> None:
    response = await client.get("/api/v1/traces")

    assert response.headers["content-type"] == "application/json"
    assert response.json() == {
        "traces": [],
        "total": 0,
        "total_is_exact": True,
        "limit": 100,
        "offset": 0,
        "next_cursor": None,
    }


async def test_a_stored_trace_is_listed_with_its_summary(
    client: httpx.AsyncClient, storage: Storage
) -> None:
    reserve = root(1, "reserve", parent="GET /cart", status_code=STATUS_ERROR)
    await storage.write_spans(
        [make_batch(root(1, "GET /cart")), make_batch(reserve, service="stock")]
    )

    [summary] = (await client.get("/api/v1/traces")).json()["traces"]

    assert summary == {
        "trace_id": trace_id(1).hex(),
        "start_time": "2026-03-01T12:00:00.001000000Z",
        "end_time": "2026-03-01T12:00:00.002000000Z",
        "start_time_unix_nano": "1772366400001000000",
        "end_time_unix_nano": "1772366400002000000",
        "duration_ms": 1.0,
        "span_count": 2,
        "error_count": 1,
        "service_name": "shop",
        "services": ["shop", "stock"],
        "root_span_id": span_id_of("GET /cart").hex(),
        "root_span_name": "GET /cart",
        "workflow_name": None,
        "session_id": None,
        "user_id": None,
        "models": [],
        "providers": [],
        "operations": [],
        "agents": [],
        "tools": [],
        "input_tokens": 0,
        "output_tokens": 0,
        "cached_tokens": 0,
        "reasoning_tokens": 0,
        "cost": 0.0,
        "estimated_cost": 0.0,
    }


async def test_following_next_cursor_shows_every_trace_once_newest_first(
    client: httpx.AsyncClient, storage: Storage
) -> None:
    await storage.write_spans([make_batch(*map(root, range(1, 8)))])

    page = (await client.get("/api/v1/traces", params={"limit": "3"})).json()
    seen = numbers_of(page)
    while page["next_cursor"] is not None:
        query = {"limit": "3", "cursor": page["next_cursor"]}
        page = (await client.get("/api/v1/traces", params=query)).json()
        seen += numbers_of(page)

    assert seen == [7, 6, 5, 4, 3, 2, 1]
    assert page["total"] == 7


async def test_an_offset_skips_traces_for_old_clients(
    client: httpx.AsyncClient, storage: Storage
) -> None:
    await storage.write_spans([make_batch(*map(root, range(1, 5)))])

    page = (await client.get("/api/v1/traces", params={"offset": "1", "limit": "2"})).json()

    assert numbers_of(page) == [3, 2]
    assert (page["offset"], page["limit"], page["total"]) == (1, 2, 4)


@pytest.mark.parametrize(
    ("query", "numbers"),
    [
        ({"service_name": "stock"}, [2]),
        ({"name": "GET /cart"}, [3, 1]),
        ({"name": "get /cart"}, []),
        ({"q": "CART"}, [3, 1]),
        ({"attr": "retries=2"}, [3]),
        ({"attr": "region=eu"}, [2]),
        ({"workflow_name": "checkout"}, [3]),
        ({"session_id": "s1"}, [3]),
        ({"user_id": "u1"}, [3]),
        ({"model": "m1"}, [3]),
        ({"has_errors": "true"}, [3]),
        ({"has_errors": "false"}, [2, 1]),
        ({"min_duration_ms": "2.5"}, [3]),
        ({"max_duration_ms": "2.499999"}, [2, 1]),
        ({"min_duration_ms": "1", "max_duration_ms": "1"}, [2, 1]),
        ({"start": "2026-03-01T12:00:00.002Z"}, [3, 2]),
        ({"start": "2026-03-01T14:00:00.002+02:00"}, [3, 2]),
        ({"end": "1772366400002000000"}, [1]),
        ({"name": "GET /cart", "has_errors": "false"}, [1]),
        ({"service_name": "stock", "name": "GET /cart"}, []),
    ],
)
async def test_each_filter_narrows_the_list_and_all_must_hold(
    client: httpx.AsyncClient, storage: Storage, query: dict[str, str], numbers: list[int]
) -> None:
    attributes = {
        "retries": 2,
        "workflow.name": "checkout",
        "session.id": "s1",
        "user.id": "u1",
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "m1",
    }
    failed = root(
        3,
        "GET /cart",
        duration_ns=2_500_000,
        status_code=STATUS_ERROR,
        attributes=attributes,
    )
    await storage.write_spans(
        [
            make_batch(root(1, "GET /cart"), failed),
            make_batch(root(2, "reserve"), service="stock", resource={"region": "eu"}),
        ]
    )

    assert await listed(client, query) == numbers


@pytest.mark.parametrize("name", ["a\0b", "␀0", "50%_\\", "ünï 𝄞"])
async def test_any_name_finds_its_span(
    client: httpx.AsyncClient, storage: Storage, name: str
) -> None:
    await storage.write_spans([make_batch(root(1, name), root(2, "other"))])

    assert await listed(client, {"name": name}) == [1]
    assert await listed(client, {"q": name}) == [1]


async def test_a_wrong_parameter_is_refused_by_name(client: httpx.AsyncClient) -> None:
    response = await client.get("/api/v1/traces?limit=0")

    assert response.status_code == 400
    assert response.json()["detail"].startswith("limit: ")


async def test_a_misspelt_filter_never_looks_like_a_result(
    client: httpx.AsyncClient, storage: Storage
) -> None:
    await storage.write_spans([make_batch(root(1))])

    response = await client.get("/api/v1/traces?service=shop")

    assert response.status_code == 400
    assert response.json() == {"detail": "service: unknown parameter"}
