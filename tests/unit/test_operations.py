"""What a writer remembers of the operations that it has told the database of."""

from __future__ import annotations

import pytest

from msgtrace.model.batch import SeenOperation, SpanBatch
from msgtrace.model.span import TenantId
from msgtrace.storage import operations
from msgtrace.storage.operations import REMEMBERED_S, ToldOperations, last_days, within_bounds


def seen(name: str, day: int = 7, *, service: str = "shop", tenant: int = 0) -> SeenOperation:
    return TenantId(tenant), service, name, 1, day


class Clock:
    now_s = 5.0

    def __call__(self) -> float:
        return self.now_s


def batch(*said: SeenOperation) -> SpanBatch:
    return SpanBatch(operations=set(said))


def test_what_was_told_is_not_told_again_until_it_is_forgotten() -> None:
    clock = Clock()
    told = ToldOperations(clock)
    first = told.untold([batch(seen("b")), batch(seen("a"), seen("b"))])
    assert first == [seen("a"), seen("b")]
    assert told.untold([batch(seen("a"))]) == [seen("a")]  # nobody has committed it

    told.remember(first, [])
    assert told.untold([batch(seen("a"), seen("b"), seen("c"))]) == [seen("c")]
    clock.now_s += REMEMBERED_S - 0.1
    assert told.untold([batch(seen("a"))]) == []
    clock.now_s += 0.2
    assert told.untold([batch(seen("a"))]) == [seen("a")]


def test_a_new_day_is_told() -> None:
    told = ToldOperations(Clock())
    told.remember(told.untold([batch(seen("a", 7))]), [])

    assert told.untold([batch(seen("a", 7), seen("a", 8))]) == [seen("a", 8)]
    assert told.untold([batch(seen("a", 6))]) == [seen("a", 6)]


def test_each_operation_is_told_once_with_its_last_day_in_order_of_keys() -> None:
    said = {seen("b", 8), seen("b", 9), seen("a", 10), seen("b", 2), seen("a", service="bank")}

    assert last_days(said) == [seen("a", service="bank"), seen("a", 10), seen("b", 9)]


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations, "_MAX_REMEMBERED", 100)
    told = ToldOperations(Clock())
    assert told.untold([]) == []

    for n in range(1_000):
        told.remember([seen(f"{n}")], [(TenantId(0), f"{n}")])
        assert len(told._told) + len(told._full) <= 101

    assert told.untold([batch(seen("999"), seen("0"))]) == [seen("0")]


def test_a_service_without_room_is_left_alone_until_it_is_forgotten() -> None:
    clock = Clock()
    told = ToldOperations(clock)
    told.remember(told.untold([batch(seen("a"))]), [(TenantId(0), "shop")])

    others = [seen("a", service="bank"), seen("a", tenant=1)]
    assert told.untold([batch(seen("a", 9), seen("new"), *others)]) == others
    clock.now_s += REMEMBERED_S
    assert told.untold([batch(seen("a", 9), seen("new"))]) == [seen("a", 9), seen("new")]


def test_new_rows_are_taken_within_the_bounds_of_service_and_tenant(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(operations, "MAX_OF_SERVICE", 3)
    monkeypatch.setattr(operations, "MAX_OF_TENANT", 5)
    counts = [(0, "shop", 2), (0, "bank", 1), (1, "shop", 3)]
    new = [
        *(seen(f"{n}") for n in range(3)),
        *(seen(f"{n}", service="bank") for n in range(3)),
        seen("x", tenant=1),
        seen("x", service="other", tenant=1),
    ]

    taken, full = within_bounds(new, counts)

    assert taken == [
        seen("0"),
        seen("0", service="bank"),
        seen("x", service="other", tenant=1),
    ]
    assert full == {(0, "shop"), (0, "bank"), (1, "shop")}
