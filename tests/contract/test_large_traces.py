"""Traces that are too large to be read as a whole."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as OtlpSpan

from msgtrace.errors import StorageUnavailable
from msgtrace.model.span import Span
from msgtrace.model.terms import MAX_TERMS
from msgtrace.model.trace import Trace, TraceOutline
from msgtrace.model.units import KIB
from msgtrace.storage.protocol import Storage
from tests.batches import NOON_NS, TRACE_A, TRACE_B, make_batch, span
from tests.contract.reading import TENANT, find, read_trace
from tests.stored import span_id


def tangled_spans(count: int, seed: int) -> list[OtlpSpan]:
    """Spans in no order, some at one moment, some under the id of another, some of them long."""
    random = Random(seed)
    spans = []
    for number in range(count):
        attributes: dict[str, Any] = {"n": number}
        if random.random() < 0.02:
            attributes["prompt"] = "p" * random.randrange(100 * KIB)
        spans.append(
            span(
                f"{number}",
                span_id=span_id(random.randrange(1, count)),
                parent=span_id(random.randrange(1, count)),
                start_ns=NOON_NS + random.randrange(count),
                attributes=attributes,
            )
        )
    return spans


async def read_outlined(storage: Storage, outline: TraceOutline) -> list[list[Span]]:
    chunks = storage.read_outlined(TENANT, outline.summary.trace_id, outline.places)
    return [chunk async for chunk in chunks]


async def outline_of(storage: Storage) -> TraceOutline:
    outline = await storage.get_trace_or_outline(TENANT, TRACE_A, max_spans=1)
    assert isinstance(outline, TraceOutline)
    return outline


async def write_tangled(storage: Storage, count: int, seed: int) -> None:
    spans = tangled_spans(count, seed)
    for service, first in (("one", 0), ("two", 1), ("three", 2)):
        batch = make_batch(*spans[first::3], service=service, resource={"zone": service})
        await storage.write_spans([batch])


@pytest.mark.parametrize("seed", range(2))
async def test_outline_and_chunks_are_the_trace(storage: Storage, seed: int) -> None:
    await write_tangled(storage, 1_500, seed)

    outline = await outline_of(storage)
    chunks = await read_outlined(storage, outline)

    whole = await read_trace(storage)
    assert outline.summary == whole.summary
    assert [each for chunk in chunks for each in chunk] == whole.spans
    assert [(each.span_id, each.parent_span_id, each.start_time_ns) for each in whole.spans] == (
        outline.places
    )


async def test_chunks_of_long_spans_are_small(storage: Storage) -> None:
    long = {"prompt": "p" * (100 * KIB)}
    spans = [span(f"{n}", start_ns=NOON_NS + n, attributes=long) for n in range(100)]
    await storage.write_spans([make_batch(*spans)])

    chunks = await read_outlined(storage, await outline_of(storage))

    sizes = [sum(len(each.attributes) for each in chunk) for chunk in chunks]
    assert max(sizes[1:]) < 400 * KIB
    assert sum(map(len, chunks)) == 100


async def test_a_trace_is_read_as_a_whole_up_to_the_limit(storage: Storage) -> None:
    await storage.write_spans([make_batch(*(span(f"{n}") for n in range(5)))])

    for max_spans, kind in ((4, TraceOutline), (5, Trace)):
        found = await storage.get_trace_or_outline(TENANT, TRACE_A, max_spans=max_spans)
        assert isinstance(found, kind)
    assert await storage.get_trace_or_outline(TENANT, TRACE_B, max_spans=1) is None


async def test_a_trace_that_is_deleted_while_it_is_read_is_not_taken_for_whole(
    storage: Storage,
) -> None:
    await write_tangled(storage, 600, 1)
    outline = await outline_of(storage)
    chunks = storage.read_outlined(TENANT, outline.summary.trace_id, outline.places)
    await anext(chunks)

    await storage.delete_trace(TENANT, TRACE_A)

    with pytest.raises(StorageUnavailable, match="deleted"):
        async for _ in chunks:
            pass


async def test_spans_that_come_while_a_trace_is_read_are_left_out(storage: Storage) -> None:
    await write_tangled(storage, 600, 1)
    outline = await outline_of(storage)
    before = await read_trace(storage)

    await storage.write_spans([make_batch(span("late", start_ns=NOON_NS + 3))])

    assert [each for chunk in await read_outlined(storage, outline) for each in chunk] == (
        before.spans
    )


# Traces with more names than are kept as terms


async def test_every_name_of_a_trace_finds_it_however_many_there_are(storage: Storage) -> None:
    names = [
        f"operation {n}" for n in range(MAX_TERMS)
    ]  # a term for each, and one with its service
    for start in range(0, len(names), 500):
        spans = [span(name) for name in names[start : start + 500]]
        await storage.write_spans([make_batch(*spans, service="shop")])
        for name in (names[0], names[start], names[start + 250]):
            assert (await find(storage, name=name)).total == 1
            assert (await find(storage, name=name, service_name="shop")).total == 1
            assert (await find(storage, name=name, service_name="bank")).total == 0

    assert (await find(storage, name="operation")).total == 0
