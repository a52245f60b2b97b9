"""gRPC messages that are not whole: how many of them go on when memory or time runs out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from grpc import StatusCode

from msgtrace.receivers import grpc as receiver
from msgtrace.receivers import messages
from msgtrace.receivers.budget import ByteBudget
from msgtrace.receivers.export import TraceExport
from msgtrace.receivers.grpc import serve_grpc
from msgtrace.receivers.memory import ProcessMemory
from msgtrace.receivers.messages import MessageReader
from msgtrace.receivers.turns import Turns
from msgtrace.serving import StopRequest
from msgtrace.telemetry.collector_metrics import CollectorMetrics
from tests.http2 import Call, Connection, prefix
from tests.sinks import Nowhere

MAX_BYTES = 1000

UNAVAILABLE: int = StatusCode.UNAVAILABLE.value[0]
UNIMPLEMENTED: int = StatusCode.UNIMPLEMENTED.value[0]


class Memory(ProcessMemory):
    """Memory of which the test says how much there is."""

    def __init__(self) -> None:
        super().__init__()
        self.used_bytes = 5_000
        self.freed_bytes = 0

    def private_bytes(self) -> int:
        return self.used_bytes

    def give_back(self) -> None:
        self.used_bytes -= self.freed_bytes
        self.freed_bytes = 0


@pytest.fixture
def memory() -> Memory:
    return Memory()


@pytest.fixture
def budget() -> ByteBudget:
    return ByteBudget(1_000_000)


@asynccontextmanager
async def served(memory: Memory, budget: ByteBudget) -> AsyncIterator[Connection]:
    export = TraceExport(Nowhere(), max_request_bytes=1_000_000, budget=budget)
    reader = MessageReader(MAX_BYTES, CollectorMetrics(), memory)
    async with serve_grpc(export, reader, "127.0.0.1", 0, stop=StopRequest()) as port:
        connection = await Connection.open(port)
        try:
            yield connection
        finally:
            connection.close()


async def stalled(connection: Connection) -> Call:
    """A call whose message is announced and does not come."""
    call = connection.begin()
    await connection.send(call, prefix(500_000) + bytes(100))
    return call


async def looks(count: int) -> None:
    await asyncio.sleep(count * messages.LOOK_INTERVAL_S)


async def in_order_of_end(calls: list[Call]) -> AsyncIterator[Call]:
    async def ended(call: Call) -> Call:
        await call.ended.wait()
        return call

    for each in asyncio.as_completed([ended(call) for call in calls], timeout=10):
        yield await each


async def whole(connection: Connection) -> Call:
    """A call with all there is to it."""
    call = connection.begin()
    await connection.send(call, prefix(0), ends=True)
    return call


async def export_is_taken(connection: Connection) -> bool:
    call = await whole(connection)
    await asyncio.wait_for(call.ended.wait(), 10)
    return call.status == 0


async def test_slow_messages_end_oldest_first_when_memory_grows_and_the_last_goes_on(
    memory: Memory, budget: ByteBudget
) -> None:
    async with served(memory, budget) as connection:
        slow = [await stalled(connection) for _ in range(8)]
        await looks(2 * messages.SLOW_AFTER_LOOKS)
        assert [call.status for call in slow] == [None] * 8

        memory.used_bytes += 10 * MAX_BYTES
        ended = [call.stream_id async for call in in_order_of_end(slow[:-1])]
        await looks(5)

        halves = [ended[:4], ended[4:6], ended[6:]]
        assert [sorted(half) for half in halves] == [
            [call.stream_id for call in half] for half in (slow[:4], slow[4:6], slow[6:7])
        ]
        assert [call.status for call in slow] == [UNAVAILABLE] * 7 + [None]
        assert await export_is_taken(connection)


async def test_a_connection_that_was_told_to_come_back_waits_its_turn_and_no_other_does(
    memory: Memory, budget: ByteBudget, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with served(memory, budget) as connection:
        slow = [await stalled(connection) for _ in range(4)]
        await looks(2 * messages.SLOW_AFTER_LOOKS)
        memory.used_bytes += 10 * MAX_BYTES
        async for _ in in_order_of_end(slow[:-1]):
            pass
        with monkeypatch.context() as nobody:
            nobody.setattr(Turns, "give", lambda _: None)
            again = [await whole(connection) for _ in range(3)]
            other = await Connection.open(connection.port)
            try:
                assert await export_is_taken(other)
            finally:
                other.close()
            await looks(2 * messages.SLOW_AFTER_LOOKS)
            assert [call.status for call in again] == [None] * 3

        async for each in in_order_of_end(again):
            assert each.status == 0


async def test_a_turn_comes_also_when_nobody_else_is_there(
    memory: Memory, budget: ByteBudget
) -> None:
    async with served(memory, budget) as connection:
        other = await Connection.open(connection.port)
        try:
            slow = {each: await stalled(each) for each in (connection, other)}
            await looks(2 * messages.SLOW_AFTER_LOOKS)
            memory.used_bytes += 10 * MAX_BYTES
            # Whichever call gRPC took up first: it is told to come back, and the other one leaves.
            ended = await anext(in_order_of_end(list(slow.values())))
            told, left = (connection, other) if ended is slow[connection] else (other, connection)
            left.close()
            await looks(10)

            assert await export_is_taken(told)
        finally:
            other.close()


async def test_memory_that_can_be_given_back_ends_nothing(
    memory: Memory, budget: ByteBudget
) -> None:
    async with served(memory, budget) as connection:
        slow = [await stalled(connection) for _ in range(4)]
        await looks(2 * messages.SLOW_AFTER_LOOKS)

        memory.freed_bytes = 2 * MAX_BYTES
        memory.used_bytes += 2 * MAX_BYTES
        await looks(5)

        assert memory.freed_bytes == 0
        assert [call.status for call in slow] == [None] * 4


async def test_memory_that_others_take_ends_no_message_that_comes_at_once(
    memory: Memory, budget: ByteBudget
) -> None:
    async with served(memory, budget) as connection:
        for _ in range(50):
            memory.used_bytes += MAX_BYTES
            assert await export_is_taken(connection)


async def test_what_was_ended_is_given_back_to_the_system(
    memory: Memory, budget: ByteBudget
) -> None:
    async with served(memory, budget) as connection:
        slow = [await stalled(connection) for _ in range(2)]
        await looks(2 * messages.SLOW_AFTER_LOOKS)
        memory.used_bytes += 2 * MAX_BYTES
        await asyncio.wait_for(slow[0].ended.wait(), 10)

        memory.freed_bytes = 2 * MAX_BYTES
        connection.close()
        for _ in range(100):
            if not memory.freed_bytes:
                break
            await looks(1)

        assert memory.freed_bytes == 0


async def test_what_grpc_frees_late_is_given_back_too(
    memory: Memory, budget: ByteBudget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(messages, "LAST_LOOKS_S", (0.01, 0.5))
    async with served(memory, budget) as connection:
        slow = [await stalled(connection) for _ in range(2)]
        await looks(2 * messages.SLOW_AFTER_LOOKS)
        memory.used_bytes += 2 * MAX_BYTES
        await asyncio.wait_for(slow[0].ended.wait(), 10)
        memory.used_bytes -= MAX_BYTES  # so that nothing looks for its own sake
        await asyncio.sleep(0.1)

        memory.freed_bytes = MAX_BYTES
        await asyncio.sleep(1)

        assert memory.freed_bytes == 0


async def test_a_message_that_takes_too_long_is_ended(
    memory: Memory, budget: ByteBudget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(messages, "MESSAGE_TIMEOUT_S", 0.2)
    async with served(memory, budget) as connection:
        call = await stalled(connection)

        await asyncio.wait_for(call.ended.wait(), 10)

        assert call.status == UNAVAILABLE
        assert await export_is_taken(connection)


async def test_a_call_without_a_message_and_one_with_two_are_refused(
    memory: Memory, budget: ByteBudget
) -> None:
    async with served(memory, budget) as connection:
        none, two = connection.begin(), connection.begin()
        connection.end(none)
        await connection.send(two, prefix(0) + prefix(0), ends=True)
        for call in (none, two):
            await asyncio.wait_for(call.ended.wait(), 10)

        assert (none.status, two.status) == (UNIMPLEMENTED, UNIMPLEMENTED)
        assert budget.held_bytes == 0


async def test_a_call_that_is_ended_while_it_is_refused_is_answered_once(
    memory: Memory,
    budget: ByteBudget,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(messages, "REFUSAL_S", 0.6)
    async with served(memory, budget) as connection:
        empty = connection.begin()
        connection.end(empty)
        await stalled(connection)
        await looks(2 * messages.SLOW_AFTER_LOOKS)

        memory.used_bytes += 2 * MAX_BYTES
        await asyncio.wait_for(empty.ended.wait(), 10)
        await asyncio.sleep(2 * messages.REFUSAL_S)

        assert empty.status == UNAVAILABLE
    assert not [each for each in caplog.records if each.levelname == "ERROR"]


async def test_a_client_that_leaves_in_the_midst_of_a_message_leaves_nothing(
    memory: Memory, budget: ByteBudget
) -> None:
    async with served(memory, budget) as connection:
        left = await Connection.open(connection.port)
        for _ in range(10):
            await stalled(left)
        left.close()

        assert await export_is_taken(connection)
        assert budget.held_bytes == 0


async def test_connections_beyond_the_limit_are_closed(
    memory: Memory, budget: ByteBudget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiver, "MAX_CONNECTIONS", 3)
    async with served(memory, budget) as connection:
        assert await export_is_taken(connection)
        others = [await Connection.open(connection.port) for _ in range(4)]
        try:
            taken = [await export_is_taken(each) for each in others]
        finally:
            for each in others:
                each.close()

        assert taken == [True, True, False, False]
        assert await export_is_taken(connection)


def test_this_process_knows_its_memory() -> None:
    memory = ProcessMemory()
    before = memory.private_bytes()
    if not before:
        pytest.skip("this system does not tell")
    block = bytearray(b"x") * (64 * 1024 * 1024)

    assert memory.private_bytes() - before > 0.9 * len(block)
    del block
    memory.give_back()
    assert memory.private_bytes() - before < 32 * 1024 * 1024
