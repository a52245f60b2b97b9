"""Who gives way when requests under way hold as much as they may."""

from __future__ import annotations

import asyncio

import pytest

from msgtrace.errors import Overloaded
from msgtrace.receivers.budget import ByteBudget, ByteLease


class Sender:
    """A body that arrives piece by piece."""

    def __init__(self, budget: ByteBudget) -> None:
        self.lease = budget.lease()
        self._pieces: asyncio.Queue[int] = asyncio.Queue()
        self.task = asyncio.create_task(self._read())

    async def send(self, *pieces: int) -> None:
        for piece in pieces:
            self._pieces.put_nowait(piece)
        await settled()

    async def _read(self) -> None:
        with self.lease, self.lease.reading():
            while piece := await self._pieces.get():
                self.lease.hold(piece)


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.fixture
def budget() -> ByteBudget:
    return ByteBudget(100)


async def test_the_unfinished_body_that_holds_most_gives_way(budget: ByteBudget) -> None:
    large, larger, small = Sender(budget), Sender(budget), Sender(budget)
    await large.send(40)
    await larger.send(55)

    await small.send(10, 0)

    assert small.task.done()
    small.task.result()
    with pytest.raises(Overloaded):
        await larger.task
    assert not large.task.done()
    assert budget.held_bytes == 40


async def test_as_many_give_way_as_are_needed(budget: ByteBudget) -> None:
    stalled = [Sender(budget) for _ in range(10)]
    for each in stalled:
        await each.send(10)
    with budget.lease() as lease:
        for _ in range(9):
            lease.hold(1)

        await settled()
        assert sum(each.task.done() for each in stalled) == 1
        assert budget.held_bytes == 99


async def test_who_asks_for_more_than_anybody_holds_is_refused(budget: ByteBudget) -> None:
    others = [Sender(budget), Sender(budget)]
    for each in others:
        await each.send(50)

    with budget.lease() as lease, pytest.raises(Overloaded):
        lease.hold(60)

    assert not any(each.task.done() for each in others)


async def test_a_body_that_holds_most_is_refused_when_it_grows(budget: ByteBudget) -> None:
    large, small = Sender(budget), Sender(budget)
    await small.send(40)
    await large.send(60)

    await large.send(1)

    with pytest.raises(Overloaded):
        await large.task
    assert not small.task.done()


async def test_a_whole_body_does_not_give_way(budget: ByteBudget) -> None:
    with budget.lease() as whole:
        whole.hold(95)
        with budget.lease() as lease, pytest.raises(Overloaded):
            lease.hold(6)

        assert whole.held_bytes == 95


async def test_what_gave_way_holds_nothing_and_is_given_back_once(budget: ByteBudget) -> None:
    large = Sender(budget)
    await large.send(90)
    with budget.lease() as lease:
        lease.hold(20)
        with pytest.raises(Overloaded):
            await large.task

        assert budget.held_bytes == 20
    assert budget.held_bytes == 0


async def test_who_is_cancelled_as_well_is_cancelled(budget: ByteBudget) -> None:
    large = Sender(budget)
    await large.send(90)

    large.task.cancel()
    with budget.lease() as lease:
        lease.hold(20)

    with pytest.raises(asyncio.CancelledError):
        await large.task


def test_a_request_that_is_alone_passes_however_small_the_budget() -> None:
    alone: ByteLease
    budget = ByteBudget(10)
    with budget.lease() as alone:
        for _ in range(5):
            alone.hold(7)

        assert budget.held_bytes == 35
