from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from msgtrace.otlp.decode import decode_export_request
from msgtrace.storage.protocol import Storage
from tests.batches import NOON_NS, TRACE_A, make_batch, span
from tests.stored import span_id

FIXTURES = Path(__file__).parents[1] / "fixtures"
CAPTURED = ["msgflux-agent-1", "otelpy-edge-1", "otelpy-genai-1", "otelpy-shop-4", "otelpy-shop-5"]


def captured_request(name: str) -> bytes:
    return (FIXTURES / f"{name}.binpb").read_bytes()


def sent_spans(body: bytes) -> Iterator[Span]:
    for resource_spans in ExportTraceServiceRequest.FromString(body).resource_spans:
        for scope_spans in resource_spans.scope_spans:
            yield from scope_spans.spans


def numbered(number: int, **fields: Any) -> Span:
    """Span `number` of TRACE_A, a root unless told otherwise."""
    return span(span_id=span_id(number), **fields)


def nodes_of(tree: dict[str, Any]) -> Iterator[dict[str, Any]]:
    waiting = list(tree["roots"])
    while waiting:
        node = waiting.pop()
        yield node
        waiting.extend(node["children"])


def brief(sent: Span) -> tuple[Any, ...]:
    return (
        sent.span_id.hex(),
        sent.parent_span_id.hex() or None,
        sent.name,
        str(sent.start_time_unix_nano),
        str(sent.end_time_unix_nano),
        sent.status.message,
        sorted(pair.key for pair in sent.attributes),
        [event.name for event in sent.events],
        [link.span_id.hex() for link in sent.links],
    )


def brief_shown(shown: dict[str, Any]) -> tuple[Any, ...]:
    return (
        shown["span_id"],
        shown["parent_span_id"],
        shown["name"],
        shown["start_time_unix_nano"],
        shown["end_time_unix_nano"],
        shown["status"]["description"],
        sorted(shown["attributes"]),
        [event["name"] for event in shown["events"]],
        [link["span_id"] for link in shown["links"]],
    )


@pytest.mark.parametrize("name", CAPTURED)
async def test_every_span_of_a_real_export_comes_back(
    client: httpx.AsyncClient, storage: Storage, name: str
) -> None:
    body = captured_request(name)
    await storage.write_spans([decode_export_request(body)])

    for trace_id in {sent.trace_id.hex() for sent in sent_spans(body)}:
        sent = [brief(each) for each in sent_spans(body) if each.trace_id.hex() == trace_id]
        trace = (await client.get(f"/api/v1/traces/{trace_id}")).json()

        assert trace["trace_id"] == trace_id
        assert trace["span_count"] == len(sent)
        assert sorted(map(brief_shown, trace["spans"]), key=repr) == sorted(sent, key=repr)


@pytest.mark.parametrize("name", CAPTURED)
async def test_the_tree_of_a_real_export_holds_the_spans_of_its_trace(
    client: httpx.AsyncClient, storage: Storage, name: str
) -> None:
    body = captured_request(name)
    await storage.write_spans([decode_export_request(body)])

    for trace_id in {sent.trace_id.hex() for sent in sent_spans(body)}:
        trace = (await client.get(f"/api/v1/traces/{trace_id}")).json()
        tree = (await client.get(f"/api/v1/traces/{trace_id}/tree")).json()

        in_tree = sorted(
            (node["span"] for node in nodes_of(tree)), key=lambda each: each["span_id"]
        )
        assert in_tree == sorted(trace["spans"], key=lambda each: each["span_id"])
        assert tree["span_count"] == len(in_tree)


async def test_a_resource_attribute_finds_the_trace_of_a_real_export(
    client: httpx.AsyncClient, storage: Storage
) -> None:
    await storage.write_spans([decode_export_request(captured_request("msgflux-agent-1"))])

    found = await client.get("/api/v1/traces", params={"attr": "service.name=travel-bot"})
    nothing = await client.get("/api/v1/traces", params={"attr": "service.name=other"})

    assert (found.json()["total"], nothing.json()["total"]) == (1, 0)


async def test_spans_are_ordered_by_start_then_span_id(
    client: httpx.AsyncClient, storage: Storage
) -> None:
    spans = [numbered(3), numbered(1, start_ns=NOON_NS + 1), numbered(2)]
    await storage.write_spans([make_batch(*spans)])

    trace = (await client.get(f"/api/v1/traces/{TRACE_A.hex()}")).json()

    assert [int(each["span_id"], 16) for each in trace["spans"]] == [2, 3, 1]


async def test_a_tree_says_how_each_span_came_to_its_place(
    client: httpx.AsyncClient, storage: Storage
) -> None:
    spans = [
        numbered(1),
        numbered(2, parent=span_id(1)),
        numbered(3, parent=span_id(99)),
        numbered(4, parent=span_id(4)),
    ]
    await storage.write_spans([make_batch(*spans)])

    tree = (await client.get(f"/api/v1/traces/{TRACE_A.hex()}/tree")).json()

    assert tree["trace_id"] == TRACE_A.hex()
    assert {int(node["span"]["span_id"], 16): node["relation"] for node in nodes_of(tree)} == {
        1: "root",
        2: "child",
        3: "orphan",
        4: "cycle",
    }


async def test_a_very_deep_trace_has_a_tree(client: httpx.AsyncClient, storage: Storage) -> None:
    chain = [numbered(1), *(numbered(n, parent=span_id(n - 1)) for n in range(2, 2_001))]
    await storage.write_spans([make_batch(*chain)])

    tree = (await client.get(f"/api/v1/traces/{TRACE_A.hex()}/tree")).json()

    relations = [node["relation"] for node in nodes_of(tree)]
    assert len(relations) == 2_000
    assert relations.count("deep") == 1_800


async def test_a_trace_is_found_by_its_id_in_any_case(
    client: httpx.AsyncClient, storage: Storage
) -> None:
    await storage.write_spans([make_batch(numbered(1))])

    response = await client.get(f"/api/v1/traces/{TRACE_A.hex().upper()}")

    assert response.json()["trace_id"] == TRACE_A.hex()


@pytest.mark.parametrize("suffix", ["", "/tree"])
async def test_an_absent_trace_is_404(client: httpx.AsyncClient, suffix: str) -> None:
    response = await client.get(f"/api/v1/traces/{TRACE_A.hex()}{suffix}")

    assert response.status_code == 404
    assert response.json() == {"detail": f"trace {TRACE_A.hex()} not found"}


@pytest.mark.parametrize("suffix", ["", "/tree"])
async def test_a_wrong_trace_id_is_400(client: httpx.AsyncClient, suffix: str) -> None:
    response = await client.get(f"/api/v1/traces/xyz{suffix}")

    assert response.status_code == 400
    assert response.json() == {"detail": "trace_id: must be 32 hex digits"}
