"""Deletion takes whole traces, and only those it was asked for."""

from __future__ import annotations

import asyncio

from msgtrace.model.search import MAX_LIMIT, TraceFilter
from msgtrace.settings.table import Settings
from msgtrace.storage.factory import open_storage
from msgtrace.storage.protocol import Storage
from tests.batches import NOON_NS, TRACE_A, TRACE_B, make_batch, span, trace_id_of
from tests.contract.reading import TENANT, expected_summaries, find, found_names, read_trace


async def test_a_deleted_trace_is_gone_with_all_its_spans(storage: Storage) -> None:
    spans = [span(f"{n}", start_ns=start) for n, start in enumerate((0, NOON_NS, 2**63 - 1))]
    await storage.write_spans([make_batch(*spans, span("other", trace_id=TRACE_B))])

    assert await storage.delete_trace(TENANT, TRACE_A) is True
    assert await storage.delete_trace(TENANT, TRACE_A) is False

    assert await storage.get_trace(TENANT, TRACE_A) is None
    assert await found_names(storage) == ["other"]
    # Nothing of it is left: all its spans are new again.
    assert await storage.write_spans([make_batch(*spans)]) == 3
    assert (await read_trace(storage)).summary == expected_summaries([make_batch(*spans)])[TRACE_A]


async def test_deleting_an_unknown_trace_is_false(storage: Storage) -> None:
    assert await storage.delete_trace(TENANT, TRACE_A) is False


async def test_the_matching_traces_are_deleted_and_counted(storage: Storage) -> None:
    for name in ("a", "b", "c"):
        await storage.write_spans(
            [
                make_batch(span(f"{name} one", trace_id=trace_id_of(name)), service=name),
                make_batch(
                    span("shared", trace_id=trace_id_of(name), start_ns=NOON_NS + 1), service="bank"
                ),
            ]
        )

    assert await storage.delete_traces(TENANT, TraceFilter(service_name="a")) == 1
    assert await storage.delete_traces(TENANT, TraceFilter(service_name="a")) == 0
    assert await found_names(storage) == ["b one", "c one"]
    assert await storage.delete_traces(TENANT, TraceFilter(name="shared", attributes=())) == 2
    assert await storage.list_services(TENANT) == []


async def test_more_traces_than_a_page_are_deleted(storage: Storage) -> None:
    count = 2 * MAX_LIMIT + 3
    spans = [
        span("x", trace_id=trace_id_of(f"{n}"), start_ns=NOON_NS + n % 3) for n in range(count)
    ]
    await storage.write_spans([make_batch(*spans, span("keep"))])

    assert await storage.delete_traces(TENANT, TraceFilter(name="x")) == count

    assert await found_names(storage) == ["keep"]


async def test_deleting_everything_ends_while_traces_arrive(storage: Storage) -> None:
    stop = asyncio.Event()
    written = 0

    async def write() -> None:
        nonlocal written
        while not stop.is_set():
            new = span(trace_id=trace_id_of(f"{written}"), start_ns=NOON_NS + written)
            await storage.write_spans([make_batch(new)])
            written += 1

    writer = asyncio.create_task(write())
    while not written:  # noqa: ASYNC110 - a write that is late on a busy machine fails nothing
        await asyncio.sleep(0.01)
    deleted = await asyncio.wait_for(storage.delete_traces(TENANT, TraceFilter()), 45)
    stop.set()
    await writer

    assert deleted > 0
    assert (await find(storage)).total == written - deleted


async def test_a_summary_counts_exactly_its_spans_whatever_is_deleted_meanwhile(
    settings: Settings,
) -> None:
    async with open_storage(settings) as one, open_storage(settings) as two:

        async def write(writer: Storage, name: str) -> None:
            for n in range(25):
                spans = [span(f"{name}{n}.{m}", start_ns=NOON_NS + n) for m in range(4)]
                await writer.write_spans([make_batch(*spans)])

        async def delete() -> None:
            for _ in range(25):
                await two.delete_trace(TENANT, TRACE_A)
                await asyncio.sleep(0.002)

        await asyncio.gather(write(one, "a"), write(two, "b"), write(one, "c"), delete())
        await one.write_spans([make_batch(span("last"))])

        trace = await read_trace(one)
        assert trace.summary.span_count == len(trace.spans)
        stored = make_batch(*(span(each.name, start_ns=each.start_time_ns) for each in trace.spans))
        assert trace.summary == expected_summaries([stored])[TRACE_A]
