"""A refused batch is cut until its offenders stand alone, within bounds."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msgtrace.errors import DataRefused, StorageUnavailable
from msgtrace.model.batch import SpanBatch
from msgtrace.pipeline.isolate import MAX_WRITES, Isolated, store_all_but_refused
from tests.batches import make_batch, span
from tests.letters import PickyWriter, names_in

WHOLE = DataRefused("the whole batch")


def batch_of(count: int) -> SpanBatch:
    """Spans named after their places."""
    return make_batch(*(span(f"{n}") for n in range(count)))


async def isolate(count: int, offenders: set[int], **bounds: float) -> tuple[Isolated, PickyWriter]:
    writer = PickyWriter({f"{n}" for n in offenders})
    isolated = await store_all_but_refused(writer.write_spans, batch_of(count), WHOLE, **bounds)  # type: ignore[arg-type]  # int or float
    return isolated, writer


@st.composite
def some_places(draw: st.DrawFn) -> tuple[int, set[int]]:
    count = draw(st.integers(1, 40))
    return count, draw(st.sets(st.integers(0, count - 1), min_size=1))


@given(some_places())
async def test_exactly_the_offenders_are_left_out(case: tuple[int, set[int]]) -> None:
    count, offenders = case

    isolated, writer = await isolate(count, offenders)

    assert isolated.refused == sorted(offenders)
    assert isolated.new_spans == count - len(offenders)
    assert sorted(writer.stored) == sorted(f"{n}" for n in range(count) if n not in offenders)


@given(some_places(), st.integers(0, 30))
async def test_with_few_writes_no_span_is_lost_and_no_more_are_made(
    case: tuple[int, set[int]], max_writes: int
) -> None:
    count, offenders = case

    isolated, writer = await isolate(count, offenders, max_writes=max_writes)

    assert len(writer.writes) <= max_writes
    assert offenders <= set(isolated.refused)
    assert sorted([*writer.stored, *(f"{n}" for n in isolated.refused)]) == sorted(
        f"{n}" for n in range(count)
    )


async def test_one_offender_among_512_takes_18_writes() -> None:
    isolated, writer = await isolate(512, {300})

    assert isolated.refused == [300]
    assert len(writer.writes) == 18


async def test_20_offenders_among_512_are_told_apart() -> None:
    isolated, writer = await isolate(512, set(range(0, 500, 25)))

    assert isolated.refused == list(range(0, 500, 25))
    assert len(writer.writes) <= MAX_WRITES


async def test_where_the_writes_do_not_suffice_small_parts_are_refused_not_large_ones() -> None:
    isolated, writer = await isolate(512, set(range(0, 512, 8)))

    assert len(writer.writes) <= MAX_WRITES
    assert len(isolated.refused) <= 4 * 64
    assert len(writer.stored) >= 256


async def test_without_time_the_batch_is_refused_as_a_whole() -> None:
    isolated, writer = await isolate(10, {3}, max_s=-1)

    assert isolated.refused == list(range(10))
    assert writer.writes == []
    assert isolated.error is WHOLE


async def test_a_single_span_is_not_tried_again() -> None:
    isolated, writer = await isolate(1, {0})

    assert isolated.refused == [0]
    assert writer.writes == []


async def test_parts_that_are_taken_alone_leave_nothing_refused() -> None:
    """What was refused together may be no trouble apart, a sum that is too large for example."""
    isolated, _ = await isolate(6, set())

    assert isolated.refused == []
    assert isolated.new_spans == 6


async def test_the_error_is_that_of_the_smallest_part() -> None:
    isolated, _ = await isolate(8, {1, 2, 3})

    assert str(isolated.error) == "1 refused"


async def test_an_unavailable_database_ends_it_at_once() -> None:
    writer = PickyWriter()
    writer.error = StorageUnavailable("gone")

    with pytest.raises(StorageUnavailable, match="gone"):
        await store_all_but_refused(writer.write_spans, batch_of(100), WHOLE)

    assert len(writer.writes) == 1


async def test_a_fault_of_ours_counts_as_a_refusal() -> None:
    class FaultyWriter(PickyWriter):
        async def write_spans(self, batches: Sequence[SpanBatch]) -> int:
            if "2" in names_in(batches[0]):
                raise KeyError("a bug")
            return await super().write_spans(batches)

    writer = FaultyWriter()

    isolated = await store_all_but_refused(writer.write_spans, batch_of(5), WHOLE)

    assert isolated.refused == [2]
    assert sorted(writer.stored) == ["0", "1", "3", "4"]
    assert isinstance(isolated.error, KeyError)
