"""Filters of attributes change how long a search takes, and nothing about what it finds."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

import pytest

from msgtrace.model.units import NS_PER_S
from msgtrace.storage import filter_maker
from msgtrace.storage.protocol import Storage
from tests.batches import NOON_NS, make_batch, span, trace_id_of
from tests.contract.reading import TENANT, find, write_traces
from tests.contract.test_find_traces import CASES, every_page, write_three_traces


@pytest.fixture(autouse=True)
def small_stretches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filter_maker, "STRETCH_SPANS", 4)


async def make_all(storage: Storage) -> int:
    """The first call only finds where to begin."""
    made = 0
    for _ in range(50):
        made += await storage.make_attribute_filters()
    return made


def numbered(number: int, **attributes: Any) -> dict[str, Any]:
    """A trace of two spans."""
    start_ns = NOON_NS + number * NS_PER_S
    return {
        f"{number}": [
            span("a", start_ns=start_ns, attributes={"n": number, **attributes}),
            span("b", start_ns=start_ns + 1, parent="a", attributes={"half": number // 2}),
        ]
    }


async def found(storage: Storage, key: str, value: str, **wanted: Any) -> set[str]:
    traces = await every_page(storage, 3, attributes=((key, value),), **wanted)
    return {each.trace_id.hex() for each in traces}


def ids(*numbers: int) -> set[str]:
    return {trace_id_of(f"{number}").hex() for number in numbers}


async def test_all_filters_match_the_same_with_filters_made(storage: Storage) -> None:
    await write_three_traces(storage)
    for number in range(100, 120):
        await write_traces(storage, numbered(number, text="other"))
    before = [await find(storage, **each.wanted) for each in CASES]
    assert await make_all(storage) > 5

    after = [await find(storage, **each.wanted) for each in CASES]

    assert [page.traces for page in after] == [page.traces for page in before]


async def test_a_rare_and_a_common_pair_are_found_page_by_page(storage: Storage) -> None:
    for number in range(60):
        await write_traces(storage, numbered(number, parity=number % 2))
    assert await make_all(storage) > 20

    for number in (0, 17, 59):
        assert await found(storage, "n", f"{number}") == ids(number)
    assert await found(storage, "half", "11") == ids(22, 23)
    assert await found(storage, "parity", "1") == ids(*range(1, 60, 2))
    window = {"start_ns": NOON_NS + 10 * NS_PER_S, "end_ns": NOON_NS + 15 * NS_PER_S}
    assert await found(storage, "parity", "1", **window) == ids(11, 13)
    assert await found(storage, "n", "70") == set()


async def test_spans_that_come_late_are_found(storage: Storage) -> None:
    for number in range(20):
        await write_traces(storage, numbered(number))
    await make_all(storage)

    late = span("late", start_ns=NOON_NS + 5 * NS_PER_S, attributes={"was": "late"})
    await write_traces(storage, {"5": [late], "new": [late]})
    early = span("early", start_ns=NOON_NS - 5 * NS_PER_S, attributes={"was": "early"})
    await write_traces(storage, {"7": [early], "before all": [early]})

    for _ in range(2):
        assert await found(storage, "was", "late") == ids(5) | {trace_id_of("new").hex()}
        assert await found(storage, "was", "early") == ids(7) | {trace_id_of("before all").hex()}
        await make_all(storage)


async def test_a_span_written_while_a_filter_is_made_is_found(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(20):
        await write_traces(storage, numbered(number))
    made_of, is_first = filter_maker.FilterMaker._filter_of, True

    async def make_and_be_late(self: Any, *arguments: Any) -> bytes:
        nonlocal is_first
        made = await made_of(self, *arguments)
        if is_first:
            late = span("late", start_ns=NOON_NS + NS_PER_S, attributes={"was": "late"})
            await write_traces(storage, {"1": [late]})
        is_first = False
        return made

    monkeypatch.setattr(filter_maker.FilterMaker, "_filter_of", make_and_be_late)
    await make_all(storage)

    assert not is_first
    assert await found(storage, "was", "late") == ids(1)


async def test_makers_and_writers_at_the_same_time_overlook_nothing(storage: Storage) -> None:
    random = Random(1)
    numbers = [*range(80)]
    random.shuffle(numbers)

    async def write() -> None:
        while numbers:
            await write_traces(storage, numbered(numbers.pop()))

    async def make() -> None:
        while numbers:
            await storage.make_attribute_filters()

    await asyncio.gather(write(), write(), make(), make())
    await make_all(storage)

    for number in range(80):
        assert await found(storage, "n", f"{number}") == ids(number), number


async def test_what_is_deleted_is_not_found(storage: Storage) -> None:
    for number in range(20):
        await write_traces(storage, numbered(number))
    await make_all(storage)
    for number in range(10):
        await storage.delete_trace(TENANT, trace_id_of(f"{number}"))

    await make_all(storage)

    assert await found(storage, "n", "5") == set()
    assert await found(storage, "n", "15") == ids(15)


async def test_traces_too_large_for_a_filter_are_found(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filter_maker, "MAX_STRETCH_SPANS", 5)
    spans = [span(f"{n}", trace_id=trace_id_of("large"), attributes={"m": n}) for n in range(9)]
    await storage.write_spans([make_batch(*spans)])
    await write_traces(storage, numbered(1))
    await make_all(storage)

    assert await found(storage, "m", "7") == {trace_id_of("large").hex()}


async def test_resources_are_searched_as_well(storage: Storage) -> None:
    for number in range(12):
        sent = span(trace_id=trace_id_of(f"{number}"), start_ns=NOON_NS + number)
        await storage.write_spans([make_batch(sent, resource={"host": f"h{number}", "cores": 4})])
    await make_all(storage)

    assert await found(storage, "host", "h3") == ids(3)
    assert await found(storage, "cores", "4.0") == ids(*range(12))
