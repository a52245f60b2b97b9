"""Calls of connections that were told to come back later: who waits, and in which order they go."""

from __future__ import annotations

import asyncio

import pytest

from msgtrace.errors import MessageTooSlow, Overloaded
from msgtrace.receivers import turns
from msgtrace.receivers.turns import Turns

LONG_S = 10.0


@pytest.fixture
async def queue() -> Turns:
    made = Turns()
    for peer in ("a", "b"):
        made.add(peer)
    return made


async def begin(queue: Turns, *peers: str) -> tuple[list[str], list[asyncio.Task[None]]]:
    """Calls that wait, and a list of whose turn came."""
    had_turn: list[str] = []

    async def call(peer: str) -> None:
        await queue.wait(peer, LONG_S)
        had_turn.append(peer)

    tasks = [asyncio.create_task(call(peer)) for peer in peers]
    await asyncio.sleep(0)
    return had_turn, tasks


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_connection_that_was_not_told_to_come_back_never_waits(queue: Turns) -> None:
    had_turn, _ = await begin(queue, "another")
    await settle()

    assert had_turn == ["another"]


async def test_connections_take_turns_however_many_calls_they_have(queue: Turns) -> None:
    had_turn, _ = await begin(queue, "a", "a", "a", "b", "b")
    assert queue.waiting_count == 5

    for _ in range(5):
        queue.give()
    await settle()

    assert had_turn == ["a", "b", "a", "b", "a"]
    assert queue.waiting_count == 0


@pytest.mark.parametrize("is_known", [True, False], ids=["known", "not yet known"])
async def test_the_turn_of_a_client_that_left_goes_to_the_next(
    queue: Turns, is_known: bool
) -> None:
    had_turn, tasks = await begin(queue, "a", "b")
    tasks[0].cancel()
    if is_known:
        await settle()

    queue.give()
    await settle()

    assert had_turn == ["b"]
    assert tasks[0].cancelled()
    assert queue.waiting_count == 0


async def test_no_more_wait_than_there_is_memory_for(
    queue: Turns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "MAX_WAITING", 2)
    _, tasks = await begin(queue, "a", "b")

    with pytest.raises(Overloaded):
        await queue.wait("a", LONG_S)
    tasks[0].cancel()
    await settle()
    await begin(queue, "a")
    assert queue.waiting_count == 2


async def test_a_call_does_not_wait_for_ever(queue: Turns) -> None:
    with pytest.raises(MessageTooSlow):
        await queue.wait("a", 0.01)
    assert queue.waiting_count == 0


async def test_a_connection_that_keeps_quiet_is_like_any_other_again(
    queue: Turns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "TURNS_FOR_S", 0.0)
    for peer in ("a", "b"):
        queue.add(peer)
    await asyncio.sleep(0.01)

    had_turn, _ = await begin(queue, "a")
    await settle()

    assert had_turn == ["a"]
    assert not queue.has_peers
