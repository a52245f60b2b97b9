"""What a writer promises: nothing lost, nothing twice, and summaries that agree with the spans."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Sequence
from contextlib import AsyncExitStack
from random import Random
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as OtlpSpan

from msgtrace.errors import DataRefused, StorageUnavailable
from msgtrace.model.batch import SpanBatch
from msgtrace.model.span import SPAN_COLUMNS
from msgtrace.settings.table import Settings
from msgtrace.storage.factory import open_storage
from msgtrace.storage.protocol import Storage
from msgtrace.telemetry.logs import ConsoleFormatter, JsonFormatter
from tests.batches import NOON_NS, TRACE_A, TRACE_B, make_batch, span, trace_id_of
from tests.contract.reading import TENANT, expected_summaries, find, read_trace

# Each span once


async def test_new_spans_are_counted(storage: Storage) -> None:
    one, two = make_batch(span("a"), span("b")), make_batch(span("c", trace_id=TRACE_B))

    assert await storage.write_spans([one, two]) == 3


async def test_a_resent_batch_is_stored_once(storage: Storage) -> None:
    batch = make_batch(span("root"), span("child", parent="root", start_ns=NOON_NS + 1))

    assert await storage.write_spans([batch]) == 2
    assert await storage.write_spans([batch]) == 0

    trace = await read_trace(storage)
    assert [span.name for span in trace.spans] == ["root", "child"]
    assert trace.summary == expected_summaries([batch])[TRACE_A]


async def test_the_new_part_of_a_partly_resent_flush_is_stored(storage: Storage) -> None:
    tokens = {"gen_ai.usage.input_tokens": 3, "gen_ai.request.model": "m"}
    spans = [span(f"{n}", start_ns=NOON_NS + n, attributes=tokens) for n in range(6)]
    await storage.write_spans([make_batch(*spans[:3])])

    assert await storage.write_spans([make_batch(*spans[2:4]), make_batch(*spans[1:])]) == 3

    trace = await read_trace(storage)
    assert [span.name for span in trace.spans] == [f"{n}" for n in range(6)]
    assert trace.summary == expected_summaries([make_batch(*spans)])[TRACE_A]


async def test_of_equal_spans_in_one_flush_the_first_stays(storage: Storage) -> None:
    same = {"span_id": b"same-id!"}
    flush = [
        make_batch(span("first", **same), span("second", **same)),  # type: ignore[arg-type]  # only the id
        make_batch(span("third", **same), span("other")),  # type: ignore[arg-type]
    ]

    assert await storage.write_spans(flush) == 2

    trace = await read_trace(storage)
    assert sorted(span.name for span in trace.spans) == ["first", "other"]
    assert trace.summary.span_count == 2


async def test_the_first_write_of_a_span_stays(storage: Storage) -> None:
    await storage.write_spans([make_batch(span("old", span_id=b"same-id!"), service="shop")])
    later = span("new", span_id=b"same-id!", status_code=2)

    assert await storage.write_spans([make_batch(later, service="bank")]) == 0

    trace = await read_trace(storage)
    assert [span.name for span in trace.spans] == ["old"]
    assert trace.summary.services == ["shop"]
    assert trace.summary.error_count == 0


@pytest.mark.parametrize(
    "other",
    [{"trace_id": TRACE_B}, {"start_ns": NOON_NS + 1}, {"span_id": b"other-id"}],
    ids=["trace", "start", "id"],
)
async def test_spans_that_differ_in_trace_id_or_start_are_two(
    storage: Storage, other: dict[str, Any]
) -> None:
    batch = make_batch(span(span_id=b"same-id!"), span(**{"span_id": b"same-id!", **other}))

    assert await storage.write_spans([batch]) == 2
    assert await storage.write_spans([batch]) == 0


async def test_a_batch_without_spans_is_no_trouble(storage: Storage) -> None:
    assert await storage.write_spans([]) == 0
    assert await storage.write_spans([SpanBatch()]) == 0


async def test_a_flush_of_many_chunks_is_stored_whole(storage: Storage) -> None:
    spans = [
        span(f"{n}", trace_id=trace_id_of(f"{n % 7}"), start_ns=NOON_NS + n) for n in range(3001)
    ]

    assert await storage.write_spans([make_batch(*spans[:2000])]) == 2000
    assert await storage.write_spans([make_batch(*spans[:1500]), make_batch(*spans[1500:])]) == 1001

    page = await find(storage)
    assert {s.trace_id: s for s in page.traces} == expected_summaries([make_batch(*spans)])


# Summaries whatever the order


def a_lively_trace() -> list[SpanBatch]:
    """Requests of several services whose spans say different things about the same trace."""
    spans = [
        span("root", start_ns=NOON_NS + 50, duration_ns=900),
        span("second root", start_ns=NOON_NS + 60),
        span("early child", parent="root", start_ns=NOON_NS + 1, duration_ns=0),
        span("orphan", parent="gone", start_ns=NOON_NS, duration_ns=-NOON_NS),
        span("failed", parent="root", start_ns=NOON_NS + 70, status_code=2),
        span("late", parent="root", start_ns=NOON_NS + 5_000_000, duration_ns=-1),
        span("other trace", trace_id=TRACE_B),
    ]
    says: list[dict[str, Any]] = [
        {"session.id": "s2", "workflow.name": "w"},
        {"gen_ai.request.model": "m1", "gen_ai.usage.input_tokens": 7},
        {"session.id": "s1", "user.id": "u1", "gen_ai.usage.cost.amount": 0.5},
        {"gen_ai.request.model": "m0", "gen_ai.usage.output_tokens": 11},
        {"user.id": "u0"},
        {"gen_ai.usage.cost.amount": 0.25, "workflow.name": "later"},
        {"session.id": "b"},
    ]
    batches = []
    for number, (each, attributes) in enumerate(zip(spans, says, strict=True)):
        described = span(each.name, attributes=attributes)
        each.attributes.extend(described.attributes)
        batches.append(make_batch(each, service=f"service-{number % 3}"))
    return batches


@pytest.mark.parametrize("seed", range(12))
async def test_summaries_do_not_depend_on_the_order_of_arrival(storage: Storage, seed: int) -> None:
    random = Random(seed)
    batches = a_lively_trace()
    expected = expected_summaries(batches)
    arriving = random.sample(batches, len(batches)) + random.choices(batches, k=3)
    while arriving:
        size = random.randint(1, 3)
        flush, arriving = arriving[:size], arriving[size:]
        await storage.write_spans(flush)

    for trace_id, summary in expected.items():
        assert (await read_trace(storage, trace_id)).summary == summary


async def test_the_root_is_known_when_it_arrives_last(storage: Storage) -> None:
    child = span("child", parent="root", start_ns=NOON_NS + 5)
    await storage.write_spans([make_batch(child, service="cart")])

    before = (await read_trace(storage)).summary
    await storage.write_spans([make_batch(span("root", start_ns=NOON_NS + 9), service="front")])
    after = (await read_trace(storage)).summary

    assert (before.root_span_id, before.root_span_name, before.service_name) == (
        None,
        "child",
        "cart",
    )
    assert (after.root_span_name, after.service_name) == ("root", "front")
    assert after.root_span_id == (await read_trace(storage)).spans[1].span_id
    assert after.services == ["cart", "front"]


async def test_a_span_that_ends_before_it_starts_is_within_its_trace(storage: Storage) -> None:
    # The second ends later than the first, but starts later still.
    first = span("first", start_ns=NOON_NS, duration_ns=10)
    backwards = span("backwards", start_ns=NOON_NS + 100, duration_ns=-50)
    await storage.write_spans([make_batch(first, backwards)])

    trace = await read_trace(storage)
    assert [span.name for span in trace.spans] == ["first", "backwards"]
    assert trace.summary.end_time_ns == NOON_NS + 100


# Many writers


def spans_of_five_traces() -> list[OtlpSpan]:
    return [
        span(
            f"{n}",
            trace_id=trace_id_of(f"{n % 5}"),
            start_ns=NOON_NS + n,
            attributes={"gen_ai.usage.input_tokens": 1},
        )
        for n in range(200)
    ]


def overlapping_batches(seed: int) -> list[SpanBatch]:
    """Twenty requests; each span is in about three of them, in any order."""
    random, spans = Random(seed), spans_of_five_traces()
    chosen: list[list[OtlpSpan]] = [random.sample(spans, 30) for _ in range(19)]
    sent = {each.name for some in chosen for each in some}
    chosen.append([each for each in spans if each.name not in sent])
    return [make_batch(*some) for some in chosen]


async def write_all_at_once(writers: Sequence[Storage], batches: Sequence[SpanBatch]) -> int:
    """Every batch by some writer, all at the same time; the sum of what they say was new."""
    writes = [
        writers[number % len(writers)].write_spans([batch]) for number, batch in enumerate(batches)
    ]
    return sum(await asyncio.gather(*writes))


async def all_are_stored_once(storage: Storage) -> None:
    spans = spans_of_five_traces()
    page = await find(storage)
    assert {s.trace_id: s for s in page.traces} == expected_summaries([make_batch(*spans)])
    traces = [await read_trace(storage, summary.trace_id) for summary in page.traces]
    stored = [each.name for trace in traces for each in trace.spans]
    assert sorted(stored) == sorted(each.name for each in spans)


@pytest.mark.parametrize("seed", range(3))
async def test_writes_at_the_same_time_lose_nothing(storage: Storage, seed: int) -> None:
    assert await write_all_at_once([storage], overlapping_batches(seed)) == 200

    await all_are_stored_once(storage)


@pytest.mark.parametrize("seed", range(3))
async def test_two_collectors_on_one_database_lose_nothing(settings: Settings, seed: int) -> None:
    async with AsyncExitStack() as stack:
        writers = [await stack.enter_async_context(open_storage(settings)) for _ in range(2)]

        assert await write_all_at_once(writers, overlapping_batches(seed)) == 200

        for each in writers:
            await all_are_stored_once(each)


async def test_a_read_sees_what_another_process_wrote(settings: Settings) -> None:
    async with open_storage(settings) as one, open_storage(settings) as two:
        assert (await find(two)).total == 0

        await one.write_spans([make_batch(span())])

        assert (await find(two)).total == 1


async def test_what_was_written_is_there_after_a_restart(settings: Settings) -> None:
    batch = make_batch(span())
    async with open_storage(settings) as storage:
        await storage.write_spans([batch])
    async with open_storage(settings) as storage:
        assert await storage.write_spans([batch]) == 0
        assert (await read_trace(storage)).summary.span_count == 1


async def test_a_cancelled_write_is_whole_or_absent(storage: Storage) -> None:
    spans = [span(f"{n}") for n in range(2_000)]
    write = asyncio.create_task(storage.write_spans([make_batch(*spans)]))
    await asyncio.sleep(0.01)
    write.cancel()
    await asyncio.gather(write, return_exceptions=True)

    await storage.write_spans([make_batch(span("after"))])

    trace = await read_trace(storage)
    assert trace.summary.span_count == len(trace.spans)
    assert len(trace.spans) in (1, 2_001)


# A refused batch


def with_field(batch: SpanBatch, column: str, value: Any) -> SpanBatch:
    """The batch, its last span changed in one column as no decoder would."""
    row = list(batch.spans[-1])
    row[SPAN_COLUMNS.index(column)] = value
    return dataclasses.replace(batch, spans=[*batch.spans[:-1], tuple(row)])


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("name", None),
        ("kind", "server"),
        ("start_time_ns", 2**63),
        ("flags", object()),
        ("name", "\ud800"),
    ],
    ids=["null", "text for a number", "too large", "no value", "surrogate"],
)
async def test_a_refused_flush_leaves_nothing_of_any_batch(
    storage: Storage, column: str, value: Any
) -> None:
    await storage.write_spans([make_batch(span("before"))])
    good = make_batch(span("good"), span("good too", trace_id=TRACE_B), service="new")
    bad = with_field(make_batch(span("x"), span("y")), column, value)

    with pytest.raises(DataRefused):
        await storage.write_spans([good, bad])

    page = await find(storage)
    assert [(s.trace_id, s.span_count) for s in page.traces] == [(TRACE_A, 1)]
    assert await storage.list_services(TENANT) == ["shop"]
    assert await storage.write_spans([good]) == 2
    assert await storage.write_spans([good]) == 0


@pytest.mark.parametrize("formatter", [ConsoleFormatter(), JsonFormatter()])
async def test_neither_a_refusal_nor_the_log_of_it_quotes_a_span(
    storage: Storage, formatter: logging.Formatter
) -> None:
    # PostgreSQL's own message holds the whole row.
    private = make_batch(span(attributes={"prompt": "my secret"}, status_message="my secret"))

    for column, value in (("name", None), ("trace_state", "my secret \ud800")):
        with pytest.raises(DataRefused) as refusal:
            await storage.write_spans([with_field(private, column, value)])

        assert "secret" not in str(refusal.value)
        record = logging.makeLogRecord({"exc_info": (refusal.type, refusal.value, refusal.tb)})
        assert "secret" not in formatter.format(record)


async def test_a_bad_resource_is_refused_like_a_bad_span(storage: Storage) -> None:
    batch = make_batch(span())
    [(resource_id, row)] = batch.resources.items()
    broken = dataclasses.replace(batch, resources={resource_id: (*row[:2], None, *row[3:])})

    with pytest.raises(DataRefused):
        await storage.write_spans([broken])

    assert await storage.write_spans([batch]) == 1
    assert len((await read_trace(storage)).spans) == 1


async def test_a_write_after_the_storage_closed_fails_at_once(settings: Settings) -> None:
    async with open_storage(settings) as storage:
        await storage.write_spans([make_batch(span())])

    with pytest.raises(StorageUnavailable):
        await asyncio.wait_for(storage.write_spans([make_batch(span())]), 5)
