"""A whole trace comes back as it was sent."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.common.v1.common_pb2 import EntityRef
from opentelemetry.proto.trace.v1.trace_pb2 import Span as OtlpSpan

from msgtrace.model.span import DEFAULT_TENANT, TenantId
from msgtrace.model.text import MAX_LABEL_CHARS, escape_json
from msgtrace.model.trace import TraceSummary
from msgtrace.model.units import MAX_INT64, NS_PER_DAY
from msgtrace.otlp.decode import decode_export_request
from msgtrace.otlp.values import attributes_from_json
from msgtrace.storage.protocol import Storage
from tests.batches import (
    NOON_NS,
    TRACE_A,
    TRACE_B,
    key_values,
    make_batch,
    request,
    span,
    span_id_of,
)
from tests.contract.reading import TENANT, expected_summaries, find, read_trace

FIXTURES = sorted((Path(__file__).parents[1] / "fixtures").glob("*.binpb"))


async def test_an_unknown_trace_is_none(storage: Storage) -> None:
    await storage.write_spans([make_batch(span())])

    assert await storage.get_trace(TENANT, TRACE_B) is None


async def test_a_trace_of_another_tenant_is_none(storage: Storage) -> None:
    await storage.write_spans([make_batch(span())])

    assert await storage.get_trace(TenantId(DEFAULT_TENANT + 1), TRACE_A) is None


async def test_a_trace_has_its_spans_and_no_others(storage: Storage) -> None:
    await storage.write_spans([make_batch(span("a"), span("b", trace_id=TRACE_B))])

    assert [span.name for span in (await read_trace(storage)).spans] == ["a"]


async def test_spans_are_ordered_by_start_then_id(storage: Storage) -> None:
    batch = make_batch(
        span("late", start_ns=NOON_NS + 9),
        span("second", span_id=b"\xff" * 8),
        span("first", span_id=b"\x01" * 8),
        span("early", start_ns=NOON_NS - 9),
    )
    await storage.write_spans([batch])

    names = [span.name for span in (await read_trace(storage)).spans]
    assert names == ["early", "first", "second", "late"]


async def test_spans_keep_their_own_resource_and_scope(storage: Storage) -> None:
    export = request(span("a", start_ns=NOON_NS), service="shop")
    export.MergeFrom(request(span("b", start_ns=NOON_NS + 1), service="bank"))
    export.resource_spans[1].scope_spans[0].scope.name = "other scope"
    await storage.write_spans([decode_export_request(export.SerializeToString())])

    one, two = (await read_trace(storage)).spans
    assert (one.service_name, one.scope.name) == ("shop", "tests")
    assert (two.service_name, two.scope.name) == ("bank", "other scope")
    assert json.loads(two.resource.attributes) == {"service.name": "bank"}


async def test_attributes_of_every_type_come_back(storage: Storage) -> None:
    attributes: dict[str, Any] = {
        "text": "é ␀ \0 \\u0000 \u202e",
        "\0␀": "key",
        "true": True,
        "one": 1,
        "one and a half": 1.5,
        "whole": 1.0,
        "huge": 1e300,
        "max": 2**63 - 1,
        "min": -(2**63),
        "infinity": float("inf"),
        "bytes": bytes(range(256)),
        "list": [None, [1, [2.0]], {"a": b""}],
        "": {"$bytes": {"$map": "x"}},
        "none": None,
    }
    await storage.write_spans([make_batch(span(attributes=attributes))])

    [stored] = (await read_trace(storage)).spans
    read_again = attributes_from_json(escape_json(stored.attributes))
    assert read_again == key_values(attributes)


async def test_nul_comes_back_in_every_text(storage: Storage) -> None:
    nul = "a\0b␀c␀0"
    export = request(
        span(
            nul,
            status_message=nul,
            trace_state=nul,
            attributes={
                nul: nul,
                "session.id": nul,
                "user.id": nul,
                "workflow.name": nul,
                "gen_ai.request.model": nul,
            },
            events=[OtlpSpan.Event(name=nul, attributes=key_values({nul: nul}))],
            links=[OtlpSpan.Link(trace_state=nul, attributes=key_values({nul: nul}))],
        ),
        service=nul,
    )
    envelope = export.resource_spans[0]
    envelope.schema_url = envelope.scope_spans[0].schema_url = nul
    envelope.scope_spans[0].scope.name = envelope.scope_spans[0].scope.version = nul
    envelope.resource.entity_refs.append(EntityRef(type=nul, id_keys=[nul]))
    await storage.write_spans([decode_export_request(export.SerializeToString())])

    trace = await read_trace(storage)
    [stored] = trace.spans
    plain = (stored.name, stored.status_message, stored.trace_state, stored.service_name)
    assert {*plain, stored.scope.name, stored.scope.version, stored.scope.schema_url} == {nul}
    assert json.loads(stored.attributes)[nul] == nul
    assert json.loads(stored.events)[0]["attributes"] == {nul: nul}
    assert json.loads(stored.links)[0]["trace_state"] == nul
    assert stored.resource.schema_url == nul
    assert json.loads(stored.resource.attributes) == {"service.name": nul}
    assert json.loads(stored.resource.entity_refs)[0]["id_keys"] == [nul]
    summary = trace.summary
    assert (summary.root_span_name, summary.service_name) == (nul, nul)
    assert (summary.session_id, summary.user_id, summary.workflow_name) == (nul, nul, nul)
    assert (summary.services, summary.models) == ([nul], [nul])
    assert await storage.list_services(TENANT) == [nul]
    assert [each.name for each in await storage.list_operations(TENANT, nul)] == [nul]
    for field in (
        "service_name",
        "name",
        "session_id",
        "user_id",
        "workflow_name",
        "model",
        "text",
    ):
        assert (await find(storage, **{field: nul})).total == 1, field
    assert (await find(storage, attributes=((nul, nul),))).total == 1


@pytest.mark.parametrize(
    "odd", ['a"b', "a\\b", "{a,b}", "a,b", " ", "NULL", "é␀💥", "'", "$1 ?", "\x01"]
)
async def test_names_that_mean_something_in_sql_are_only_text(storage: Storage, odd: str) -> None:
    named = {"gen_ai.request.model": odd, "session.id": odd, odd: odd}
    await storage.write_spans([make_batch(span(odd, attributes=named), service=odd)])
    await storage.write_spans([make_batch(span("x", parent=odd), service="other")])

    summary = (await read_trace(storage)).summary
    assert summary.models == [odd]
    assert summary.services == sorted(["other", odd])
    for field in ("service_name", "name", "session_id", "model", "text"):
        assert (await find(storage, **{field: odd})).total == 1, field
    assert (await find(storage, attributes=((odd, odd),))).total == 1


@pytest.mark.parametrize(
    ("start", "end"),
    [
        (0, 0),
        (0, NOON_NS),
        (NOON_NS, 0),
        (NOON_NS, NOON_NS - 1),
        (NOON_NS, NOON_NS + 400 * NS_PER_DAY),
        (1, 2**64 - 1),
        (2**64 - 1, 0),
        (2**64 - 1, 2**64 - 1),
    ],
)
async def test_a_wild_clock_keeps_no_span_from_being_read(
    storage: Storage, start: int, end: int
) -> None:
    wild = span("wild")
    wild.start_time_unix_nano, wild.end_time_unix_nano = start, end

    assert await storage.write_spans([make_batch(wild)]) == 1
    assert await storage.write_spans([make_batch(wild)]) == 0

    trace = await read_trace(storage)
    [stored] = trace.spans
    assert stored.start_time_ns == min(start, MAX_INT64)
    assert stored.end_time_ns == min(end, MAX_INT64)
    assert trace.summary.duration_ns == max(0, stored.duration_ns)
    assert (await find(storage, name="wild")).total == 1
    assert await storage.delete_trace(TENANT, TRACE_A)
    assert await storage.get_trace(TENANT, TRACE_A) is None


async def test_a_trace_over_all_times_is_read_whole(storage: Storage) -> None:
    starts = [0, NOON_NS, NOON_NS + 3 * NS_PER_DAY, 2**63 - 1]
    spans = [span(f"{n}", start_ns=start, duration_ns=0) for n, start in enumerate(starts)]
    for each in reversed(spans):
        await storage.write_spans([make_batch(each)])

    trace = await read_trace(storage)
    assert [span.start_time_ns for span in trace.spans] == starts
    assert trace.summary == expected_summaries([make_batch(*spans)])[TRACE_A]


async def test_texts_of_10_kb_are_stored_and_found_by_their_full_text(storage: Storage) -> None:
    long = {name: name[0] + "é" * 10_000 for name in ("service", "session.id", "user.id")}
    batch = make_batch(
        span(
            "n" * 10_000,
            attributes=long | {"workflow.name": "w" * 10_000, "llm.model": "m" * 10_000},
        ),
        service=long["service"],
    )
    assert await storage.write_spans([batch]) == 1
    assert await storage.write_spans([batch]) == 0

    assert (await find(storage, service_name=long["service"])).total == 1
    assert (await find(storage, session_id=long["session.id"])).total == 1
    assert (await find(storage, user_id=long["user.id"])).total == 1
    assert (await find(storage, workflow_name="w" * 10_000)).total == 1
    assert (await find(storage, model="m" * 10_000)).total == 1
    assert (await find(storage, name="n" * 10_000)).total == 1
    assert (await find(storage, name="n" * 10_000, service_name=long["service"])).total == 1
    [operation] = await storage.list_operations(TENANT, long["service"])
    assert operation.name == "n" * MAX_LABEL_CHARS
    [stored] = (await read_trace(storage)).spans
    assert json.loads(stored.resource.attributes)["service.name"] == long["service"]


async def test_a_text_that_does_not_compress_is_stored_too(storage: Storage) -> None:
    # Indexes of PostgreSQL hold long texts only as far as they compress.
    noise = "".join(chr(0x4E00 + (n * n * 7919) % 20_000) for n in range(5_000))
    named = {"session.id": noise, "user.id": noise}

    assert (
        await storage.write_spans([make_batch(span(noise, attributes=named), service=noise)]) == 1
    )

    assert (await find(storage, service_name=noise, session_id=noise, user_id=noise)).total == 1


async def test_a_large_span_comes_back(storage: Storage) -> None:
    text = "x" * 2_000_000
    events = [OtlpSpan.Event(name=f"{n}") for n in range(1_000)]
    await storage.write_spans([make_batch(span(attributes={"prompt": text}, events=events))])

    [stored] = (await read_trace(storage)).spans
    assert json.loads(stored.attributes) == {"prompt": text}
    assert len(json.loads(stored.events)) == 1_000


async def test_a_span_that_is_its_own_parent_is_read(storage: Storage) -> None:
    await storage.write_spans([make_batch(span("loop", parent="loop"))])

    trace = await read_trace(storage)
    assert trace.spans[0].parent_span_id == span_id_of("loop")
    assert trace.summary.root_span_id is None


async def test_reads_go_on_while_others_write(storage: Storage) -> None:
    batches = [make_batch(span(f"{n}", start_ns=NOON_NS + n)) for n in range(40)]
    await storage.write_spans(batches[:1])

    async def write() -> None:
        for batch in batches[1:]:
            await storage.write_spans([batch])

    async def read() -> None:
        for _ in range(15):
            trace = await read_trace(storage)
            # One snapshot: the summary speaks of exactly these spans.
            assert trace.summary.span_count == len(trace.spans)

    await asyncio.gather(write(), read(), read(), read())

    assert (await read_trace(storage)).summary.span_count == len(batches)


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.stem)
async def test_a_captured_request_is_stored_whole(storage: Storage, path: Path) -> None:
    batch = decode_export_request(await asyncio.to_thread(path.read_bytes))

    assert await storage.write_spans([batch]) == len(batch.spans)
    assert await storage.write_spans([batch]) == 0

    for trace_id, summary in expected_summaries([batch]).items():
        trace = await read_trace(storage, trace_id)
        # Some of their spans repeat the cost of others: test_genai_totals has them by hand.
        assert _without_cost(trace.summary) == _without_cost(summary)
        assert summary.span_count == len(trace.spans)


def _without_cost(summary: TraceSummary) -> TraceSummary:
    return replace(summary, cost=0.0, estimated_cost=0.0)
