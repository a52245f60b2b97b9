"""Tokens and cost of traces: each model call once, whatever the order and the split of requests."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from itertools import permutations
from pathlib import Path
from random import Random
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as OtlpSpan

from msgtrace.model.search import TraceFilter
from msgtrace.model.trace import TraceSummary
from msgtrace.otlp.decode import decode_export_request
from msgtrace.settings.table import Settings
from msgtrace.storage.factory import open_storage
from msgtrace.storage.protocol import Storage
from msgtrace.storage.usage import MAX_SETTLED
from tests.batches import NOON_NS, TRACE_A, make_batch, span, trace_id_of
from tests.contract.purging import midnight, purge
from tests.contract.reading import TENANT, find, read_trace

FIXTURES = Path(__file__).parents[1] / "fixtures"


def totals(summary: TraceSummary) -> dict[str, Any]:
    """What is not nothing of a trace's tokens, cost and names."""
    fields = (
        "input_tokens",
        "output_tokens",
        "cached_tokens",
        "reasoning_tokens",
        "cost",
        "estimated_cost",
        "models",
        "providers",
        "agents",
        "tools",
        "session_id",
        "user_id",
        "workflow_name",
    )
    return {name: value for name in fields if (value := getattr(summary, name))}


async def totals_of(storage: Storage, fixture: str) -> dict[str, dict[str, Any]]:
    """Totals by the beginning of the trace id, after the fixture's spans came one by one."""
    request = (FIXTURES / f"{fixture}.binpb").read_bytes()
    await storage.write_spans([decode_export_request(request)])
    await storage.write_spans([decode_export_request(request)])
    return {each.trace_id.hex()[:4]: totals(each) for each in (await find(storage)).traces}


# Real requests, by hand from the JSON next to each and the built-in prices


async def test_totals_of_requests_in_five_conventions(storage: Storage) -> None:
    assert await totals_of(storage, "otelpy-genai-1") == {
        # Two chats (200 and 220 in, 25 and 40 out) and an embedding (9 in); the agent's own 420 and
        # 65 say the chats' again. One chat states its cost. The other: 72 fresh tokens at 1.25,
        # 128 cached ones at 0.125 and 25 at 10; the embedding: 9 at 0.02 a million.
        "25b9": {
            "input_tokens": 429,
            "output_tokens": 65,
            "cached_tokens": 128,
            "reasoning_tokens": 12,
            "cost": pytest.approx(0.00131 + 0.000356 + 0.00000018),
            "estimated_cost": pytest.approx(0.00035618),
            "models": ["gpt-5-2025-08-07", "text-embedding-3-small"],
            "providers": ["openai"],
            "agents": ["planner"],
            "tools": ["get_weather"],
            "session_id": "conv-1",
            "user_id": "user-42",
            "workflow_name": "trip",
        },
        "0f17": {"models": ["gpt-5"], "providers": ["openai"]},
        # Of this model there is no price.
        "1782": {
            "input_tokens": 33,
            "output_tokens": 11,
            "models": ["claude-3-5-sonnet"],
            "providers": ["anthropic"],
        },
        "b0a0": {
            "input_tokens": 80,
            "output_tokens": 12,
            "cached_tokens": 64,
            "cost": 0.00032,
            "models": ["gpt-4o"],
            "providers": ["azure"],
            "tools": ["get_weather"],
            "session_id": "sess-7",
            "user_id": "user-42",
        },
        # 10 tokens at 2.50 and 4 at 10 a million.
        "c298": {
            "input_tokens": 10,
            "output_tokens": 4,
            "cost": pytest.approx(0.000065),
            "estimated_cost": pytest.approx(0.000065),
            "models": ["gpt-4o"],
            "providers": ["OpenAI"],
            "session_id": "sess-7",
            "workflow_name": "trip",
        },
    }


async def test_totals_of_an_agent_turn(storage: Storage) -> None:
    # Five chats of 120 in (64 cached) and 31 out (8 reasoning). Only the flow around them states a
    # cost, in two parts: it replaces what would be estimated for each chat.
    assert await totals_of(storage, "msgflux-agent-1") == {
        "48cc": {
            "input_tokens": 600,
            "output_tokens": 155,
            "cached_tokens": 320,
            "reasoning_tokens": 40,
            "cost": pytest.approx(0.00043),
            "models": ["gpt-5-mini-2025-08-07"],
            "providers": ["openai"],
            "agents": ["Translator", "Travel Agent"],
            "tools": ["add", "flaky_lookup", "get_weather", "translator"],
            "session_id": "sess-7",
            "user_id": "user-42",
            "workflow_name": "trip_planner",
        }
    }


async def test_totals_of_a_turn_whose_spans_are_not_nested(storage: Storage) -> None:
    # 56 fresh tokens at 0.25, 64 cached ones at 0.025 and 31 at 2 a million.
    chat = {
        "input_tokens": 120,
        "output_tokens": 31,
        "cached_tokens": 64,
        "reasoning_tokens": 8,
        "cost": pytest.approx(0.0000776),
        "estimated_cost": pytest.approx(0.0000776),
        "models": ["gpt-5-mini-2025-08-07"],
        "providers": ["openai"],
    }

    found = await totals_of(storage, "msgflux-stock-1")

    assert [found["83ef"], found["90e5"]] == [chat, chat]
    assert len(found) == 9
    assert all(not each.get("input_tokens") for key, each in found.items() if key[0] not in "89")


# The innermost once


def call(name: str, parent: str | None = None, **stated: Any) -> OtlpSpan:
    """A chat span with input tokens and a cost."""
    attributes: dict[str, Any] = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "m"}
    attributes |= {
        {"tokens": "gen_ai.usage.input_tokens", "cost": "gen_ai.usage.cost.amount"}[key]: value
        for key, value in stated.items()
    }
    return span(name, parent=parent, attributes=attributes)


def nested_calls() -> list[OtlpSpan]:
    """An agent; an SDK's chat around a plain span around an instrumentor's chat; one more chat."""
    return [
        span("agent", attributes={"gen_ai.operation.name": "invoke_agent"}),
        call("sdk chat", "agent", tokens=100, cost=0.5),
        span("http", parent="sdk chat"),
        call("instrumentor chat", "http", tokens=104, cost=0.25),
        call("other chat", "agent", tokens=1_000, cost=1.0),
    ]


NESTED_TOTALS = (1_104, 1.25)


async def stated_totals(storage: Storage) -> tuple[int, float]:
    summary = (await read_trace(storage)).summary
    stats = await storage.get_stats(TENANT, TraceFilter())
    by_model = stats.by_model["m"]
    assert (stats.input_tokens, stats.cost) == (summary.input_tokens, summary.cost)
    assert (by_model.input_tokens, by_model.cost) == (summary.input_tokens, summary.cost)
    return summary.input_tokens, summary.cost


async def test_nested_calls_count_once_in_one_request(storage: Storage) -> None:
    await storage.write_spans([make_batch(*nested_calls())])

    assert await stated_totals(storage) == NESTED_TOTALS


@pytest.mark.parametrize("seed", range(4))
async def test_nested_calls_count_once_however_they_arrive(storage: Storage, seed: int) -> None:
    """Also when the span between them, which alone says that they are nested, comes last."""
    orders = list(permutations(nested_calls()))
    for number, order in enumerate(Random(seed).sample(orders, 6)):
        trace_id = trace_id_of(f"{number}")
        for each in order:
            each.trace_id = trace_id
            await storage.write_spans([make_batch(each)])
            await storage.write_spans([make_batch(each)])  # sent again
        trace = await read_trace(storage, trace_id)
        assert (trace.summary.input_tokens, trace.summary.cost) == NESTED_TOTALS


async def test_nested_calls_count_once_through_several_collectors(settings: Settings) -> None:
    async with AsyncExitStack() as stack:
        storages = [await stack.enter_async_context(open_storage(settings)) for _ in range(3)]
        batches = [make_batch(each) for each in nested_calls()]
        writes = [
            storages[n % 3].write_spans([batch])
            for n, batch in enumerate([*batches, *reversed(batches), *batches])
        ]
        new = await asyncio.gather(*writes)

        assert sum(new) == len(batches)
        assert await stated_totals(storages[0]) == NESTED_TOTALS


async def test_a_deleted_trace_leaves_nothing_to_count(storage: Storage) -> None:
    await storage.write_spans([make_batch(*nested_calls())])
    await storage.delete_trace(TENANT, TRACE_A)
    await storage.write_spans([make_batch(call("late", "agent", tokens=3, cost=0.5))])

    assert await stated_totals(storage) == (3, 0.5)


async def test_a_shortened_trace_keeps_what_its_later_spans_state(storage: Storage) -> None:
    """Retention takes the outer call of the day before, and leaves the calls within it."""
    edge_ns = midnight(-2)
    spans = nested_calls()
    for at, each in enumerate(spans):
        each.start_time_unix_nano = edge_ns + (at if at > 1 else at - 10)
        each.end_time_unix_nano = each.start_time_unix_nano + 1
    estimated = span(
        "estimated",
        parent="agent",
        start_ns=edge_ns + 9,
        attributes={"gen_ai.request.model": "gpt-5", "gen_ai.usage.output_tokens": 100},
    )
    await storage.write_spans([make_batch(*spans, estimated)])
    assert await storage.maintenance.sample_drift(10) == (1, [])

    purged = await purge(storage, edge_ns)

    summary = (await read_trace(storage)).summary
    stats = await storage.get_stats(TENANT, TraceFilter())
    assert (purged.shortened, summary.span_count) == (1, 4)
    assert (summary.input_tokens, summary.output_tokens) == (1_104, 100)
    assert summary.cost == pytest.approx(1.251)
    assert summary.estimated_cost == pytest.approx(0.001)
    assert {name: each.model_calls for name, each in stats.by_model.items()} == {"m": 2, "gpt-5": 1}
    assert await storage.maintenance.sample_drift(10) == (1, [])


async def test_a_trace_with_very_many_calls_is_summed_plainly(storage: Storage) -> None:
    inner = [call(f"{n}", "sdk chat", tokens=1) for n in range(MAX_SETTLED)]
    await storage.write_spans([make_batch(call("sdk chat", tokens=9), *inner)])

    assert (await read_trace(storage)).summary.input_tokens == MAX_SETTLED + 9


# Sums by model, service and day


async def test_stats_tell_tokens_and_cost_by_model_service_and_day(storage: Storage) -> None:
    day = 86_400 * 10**9
    attributes = {
        "gen_ai.request.model": "gpt-5",
        "gen_ai.usage.input_tokens": 1_000,
        "gen_ai.usage.cost.amount": 0.5,
    }
    late = attributes | {"gen_ai.request.model": "gpt-4o", "gen_ai.usage.cost.amount": 2.0}
    await storage.write_spans(
        [
            make_batch(span("a", attributes=attributes), service="bot"),
            make_batch(span("b", attributes=attributes, parent="a"), service="search"),
            make_batch(
                span("c", trace_id=trace_id_of("c"), start_ns=NOON_NS + day, attributes=late),
                service="bot",
            ),
        ]
    )

    stats = await storage.get_stats(TENANT, TraceFilter())
    filtered = await storage.get_stats(TENANT, TraceFilter(model="gpt-4o"))

    assert [(name, each.model_calls, each.cost) for name, each in stats.by_model.items()] == [
        ("gpt-4o", 1, 2.0),
        ("gpt-5", 1, 0.5),  # a is around b, for the same call
    ]
    assert [(name, each.cost) for name, each in stats.by_service.items()] == [
        ("bot", 2.0),
        ("search", 0.5),
    ]
    assert [(name, each.input_tokens) for name, each in stats.by_day.items()] == [
        ("2026-03-01", 1_000),
        ("2026-03-02", 1_000),
    ]
    assert list(filtered.by_model) == ["gpt-4o"]


# Filters


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        ({"min_tokens": 100}, ["big"]),
        ({"min_tokens": 10}, ["big", "small"]),
        ({"min_tokens": 101}, []),
        ({"min_cost": 0.5}, ["big"]),
        ({"min_cost": 0.51}, []),
        ({"tool": "search"}, ["small"]),
        ({"tool": "sear"}, []),
        ({"tool": "search", "min_tokens": 100}, []),
    ],
)
async def test_traces_are_found_by_tokens_cost_and_tool(
    storage: Storage, wanted: dict[str, Any], names: list[str]
) -> None:
    tool = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "search"}
    traces = {
        "big": [call("big", tokens=100, cost=0.5)],
        "small": [call("small", tokens=10), span("t", parent="small", attributes=tool)],
        "none": [span("none")],
    }
    for name, spans in traces.items():
        for each in spans:
            each.trace_id = trace_id_of(name)
        await storage.write_spans([make_batch(*spans)])

    page = await find(storage, **wanted)

    assert sorted(each.root_span_name for each in page.traces) == names
