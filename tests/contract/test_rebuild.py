"""A rebuild ends in the summaries that the stored spans have, and goes on where it was ended."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as OtlpSpan

from msgtrace.model.genai import ALIASES_VERSION
from msgtrace.model.prices import BUILT_IN, NO_PRICES, Price, PriceTable
from msgtrace.model.search import TraceFilter
from msgtrace.model.trace import TraceSummary
from msgtrace.settings.table import Settings
from msgtrace.storage import rebuild
from msgtrace.storage.factory import open_storage
from msgtrace.storage.protocol import Storage
from msgtrace.storage.rebuild import rebuild_summaries
from tests.batches import NOON_NS, make_batch, span, trace_id_of
from tests.contract.reading import TENANT, find
from tests.poison import execute

GARBLED = (
    "UPDATE traces SET start_time_ns = start_time_ns + 7, error_count = 99, input_tokens = 1,"
    " cost = 3, root_span_name = 'x', session_id = 'x', tools = NULL, usage_count = 0,"
    " has_usage = {}, aliases_version = 0",
    "DELETE FROM model_usage",
)


def a_trace(number: int) -> list[OtlpSpan]:
    """An agent with two nested calls of the same model and a tool."""
    trace_id = trace_id_of(f"{number}")
    call = {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "gpt-5",
        "gen_ai.usage.input_tokens": 1_000 * number,
        "gen_ai.conversation.id": f"session-{number}",
    }
    tool = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "search"}
    sent: Iterable[tuple[str, str | None, dict[str, Any]]] = (
        ("agent", None, {"gen_ai.operation.name": "invoke_agent", "user.id": "u\0␀"}),
        ("outer", "agent", call),
        ("between", "outer", {}),
        ("inner", "between", call),
        ("tool", "agent", tool),
    )
    return [
        span(
            name,
            trace_id=trace_id,
            parent=parent,
            start_ns=NOON_NS + number * 10 + at,
            attributes=attributes,
        )
        for at, (name, parent, attributes) in enumerate(sent)
    ]


async def summaries(storage: Storage) -> list[TraceSummary]:
    return list((await find(storage)).traces)


async def rebuild_all(storage: Storage, prices: PriceTable = BUILT_IN, **how: Any) -> list[int]:
    return [
        progress.done
        async for progress in rebuild_summaries(storage, prices, **{"is_of_all": True} | how)
    ]


async def garble(settings: Settings) -> None:
    false = "0" if settings.database_url.startswith("sqlite") else "false"
    statements = [each.format(false) for each in GARBLED]
    await asyncio.to_thread(execute, settings.database_url, *statements)


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rebuild, "BATCH_SPANS", 12)  # two traces of five spans


@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize("is_of_all", [True, False])
async def test_summaries_are_rebuilt_from_the_spans(
    settings: Settings, storage: Storage, is_of_all: bool
) -> None:
    for number in range(5):
        await storage.write_spans([make_batch(*a_trace(number))])
    right, stats = await summaries(storage), await storage.get_stats(TENANT, TraceFilter())
    await garble(settings)
    assert await summaries(storage) != right

    done = await rebuild_all(storage, is_of_all=is_of_all)

    assert done == [0, 2, 4, 5]
    assert await summaries(storage) == right
    assert await storage.get_stats(TENANT, TraceFilter()) == stats
    assert await rebuild_all(storage, is_of_all=False) == [0]


async def test_new_prices_change_what_is_estimated(storage: Storage) -> None:
    await storage.write_spans([make_batch(*a_trace(2))])
    [before] = await summaries(storage)
    dear = PriceTable(models={"gpt-5": Price(input=100)})

    await rebuild_all(storage, dear)
    [after] = await summaries(storage)
    await rebuild_all(storage, NO_PRICES)
    [without] = await summaries(storage)

    assert (before.cost, before.estimated_cost) == (0.0025, 0.0025)
    assert (after.cost, after.estimated_cost) == (0.2, 0.2)
    assert (without.cost, without.input_tokens) == (0.0, 2_000)


@pytest.mark.usefixtures("small_batches")
async def test_an_interrupted_rebuild_of_all_goes_on_where_it_ended(storage: Storage) -> None:
    for number in range(5):
        await storage.write_spans([make_batch(*a_trace(number))])
    interrupted = rebuild_summaries(storage, BUILT_IN, is_of_all=True)
    assert [(await anext(interrupted)).done for _ in range(2)] == [0, 2]
    await interrupted.aclose()

    assert await rebuild_all(storage) == [2, 4, 5]
    assert await rebuild_all(storage) == [0, 2, 4, 5]


@pytest.mark.usefixtures("small_batches")
async def test_a_rebuild_of_all_may_begin_anew(storage: Storage) -> None:
    for number in range(3):
        await storage.write_spans([make_batch(*a_trace(number))])
    interrupted = rebuild_summaries(storage, BUILT_IN, is_of_all=True)
    assert [(await anext(interrupted)).done for _ in range(2)] == [0, 2]
    await interrupted.aclose()

    assert await rebuild_all(storage, restarts=True) == [0, 2, 3]


@pytest.mark.usefixtures("small_batches")
async def test_totals_stay_right_under_writes(settings: Settings) -> None:
    """Two collectors write the spans of the same traces in pieces, while a third rebuilds."""
    traces = [a_trace(number) for number in range(12)]
    pieces = [make_batch(each) for at in range(5) for each in (trace[at] for trace in traces)]
    async with (
        open_storage(settings) as one,
        open_storage(settings) as two,
        open_storage(settings) as admin,
    ):
        await one.write_spans(pieces[:12])

        async def write(storage: Storage, own: list[Any]) -> None:
            for piece in own:
                await storage.write_spans([piece])

        writing = asyncio.gather(write(one, pieces[12::2]), write(two, pieces[13::2]))
        while not writing.done():
            await rebuild_all(admin)
        await writing
        written = await summaries(admin)
        await rebuild_all(admin)

        assert written == await summaries(admin)
        assert [each.span_count for each in written] == [5] * 12
        assert sorted(each.input_tokens for each in written) == [1_000 * n for n in range(12)]


def test_the_alias_table_has_a_version() -> None:
    assert ALIASES_VERSION >= 1
