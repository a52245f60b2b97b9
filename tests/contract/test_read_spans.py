"""The spans of many traces, a few at a time."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest

from msgtrace.model.search import TraceFilter, TracePlace, TraceSearch
from msgtrace.model.span import Span
from msgtrace.model.units import KIB, NS_PER_MS
from msgtrace.storage import span_stream
from msgtrace.storage.protocol import Storage
from tests.batches import NOON_NS, TRACE_A, make_batch, span, trace_id_of
from tests.contract.reading import TENANT, read_trace


async def chunks_of(storage: Storage, places: Sequence[TracePlace]) -> list[list[Span]]:
    return [chunk async for chunk in storage.read_spans(TENANT, places)]


async def places_of(storage: Storage, limit: int = 1_000) -> list[TracePlace]:
    return await storage.find_places(TENANT, TraceSearch(limit=limit))


async def store_traces(storage: Storage, count: int, spans_each: int) -> None:
    """Trace number n starts n ms after noon."""
    for number in range(count):
        trace_id = trace_id_of(str(number))
        start_ns = NOON_NS + number * NS_PER_MS
        spans = [
            span(f"{number}.{place}", trace_id=trace_id, start_ns=start_ns + place)
            for place in range(spans_each)
        ]
        await storage.write_spans([make_batch(*spans, service=f"service {number % 3}")])


async def test_places_come_newest_first_with_the_count_of_their_spans(storage: Storage) -> None:
    await store_traces(storage, 3, 2)

    places = await places_of(storage)
    first = await storage.find_places(TENANT, TraceSearch(limit=1))
    rest = await storage.find_places(TENANT, TraceSearch(after=first[0].cursor))

    assert [place.trace_id for place in places] == [trace_id_of(name) for name in "210"]
    assert {place.span_count for place in places} == {2}
    assert places == first + rest


async def test_every_span_of_the_places_comes_once_as_the_trace_has_it(storage: Storage) -> None:
    await store_traces(storage, span_stream.GROUP_TRACES + 3, 5)
    places = await places_of(storage)

    read = [each for chunk in await chunks_of(storage, places) for each in chunk]

    keys = {(each.trace_id, each.span_id, each.start_time_ns) for each in read}
    assert len(read) == len(keys) == 5 * len(places)
    trace = await read_trace(storage, trace_id_of("7"))
    of_trace = [each for each in read if each.trace_id == trace.summary.trace_id]
    assert sorted(of_trace, key=lambda each: each.start_time_ns) == trace.spans


async def test_the_spans_of_one_trace_stand_together(storage: Storage) -> None:
    await store_traces(storage, 10, 20)

    read = [each for chunk in await chunks_of(storage, await places_of(storage)) for each in chunk]

    changes = sum(a.trace_id != b.trace_id for a, b in pairwise(read))
    assert changes == 9


async def test_a_large_trace_comes_in_chunks(storage: Storage) -> None:
    many = [span(f"{number}", start_ns=NOON_NS + number % 7) for number in range(1_200)]
    await storage.write_spans([make_batch(*many)])

    chunks = await chunks_of(storage, await places_of(storage))

    assert max(map(len, chunks)) == span_stream.MAX_CHUNK_SPANS
    assert {each.name for chunk in chunks for each in chunk} == {each.name for each in many}
    assert sum(map(len, chunks)) == len(many)


async def test_chunks_of_long_spans_are_short(storage: Storage) -> None:
    prompt = "x" * (64 * KIB)
    many = [span(f"{number}", attributes={"prompt": prompt}) for number in range(100)]
    await storage.write_spans([make_batch(*many)])

    chunks = await chunks_of(storage, await places_of(storage))

    assert sum(map(len, chunks)) == len(many)
    assert max(map(len, chunks[1:])) <= span_stream.CHUNK_TEXT_BYTES // (64 * KIB)


async def test_what_is_deleted_meanwhile_is_left_out(storage: Storage) -> None:
    await store_traces(storage, 3, 1)
    places = await places_of(storage)
    await storage.delete_trace(TENANT, trace_id_of("1"))

    [chunk] = await chunks_of(storage, places)

    assert {each.name for each in chunk} == {"0.0", "2.0"}


async def test_places_follow_the_filter_and_nothing_is_read_for_none(storage: Storage) -> None:
    await storage.write_spans([make_batch(span("a"))])
    nothing = TraceSearch(filter=TraceFilter(name="b"))

    assert await storage.find_places(TENANT, nothing) == []
    assert await chunks_of(storage, []) == []
    [place] = await storage.find_places(TENANT, TraceSearch(filter=TraceFilter(name="a")))
    assert (place.trace_id, place.start_time_ns) == (TRACE_A, NOON_NS)


async def test_more_resources_than_are_remembered_all_come(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(span_stream, "MAX_REMEMBERED", 2)
    for number in range(20):
        each = span(f"{number}", start_ns=NOON_NS + number)
        await storage.write_spans([make_batch(each, service=f"service {number}")])

    chunks = await chunks_of(storage, await places_of(storage))

    read = {each.name: each.service_name for chunk in chunks for each in chunk}
    assert read == {f"{number}": f"service {number}" for number in range(20)}
