"""Senders that want all the memory: it stays bounded, and everybody else is served meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import secrets
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from msgtrace.model.units import KIB, MIB
from msgtrace.receivers.messages import LAST_LOOKS_S
from tests.batches import request, span
from tests.end_to_end.processes import RunningProcess, running, wait_until
from tests.end_to_end.senders import export
from tests.http2 import CHECK, EXPORT, Connection, prefix

MAX_MEMORY_BYTES = 400_000_000
SLACK_BYTES = 48 * MIB
"""How much the memory of a process may vary for other reasons."""

PATIENCE_S = 30.0
INVALID_ARGUMENT = 3
UNAVAILABLE = 14

Attack = Callable[[RunningProcess], Coroutine[Any, Any, Counter[str]]]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningProcess]:
    path: Path = tmp_path_factory.mktemp("memory") / "msgtrace.db"
    with running("start", f"sqlite:///{path}") as process:
        yield process


@contextlib.asynccontextmanager
async def connections(service: RunningProcess, count: int) -> AsyncIterator[list[Connection]]:
    opened = [await Connection.open(service.ports.grpc) for _ in range(count)]
    try:
        yield opened
    finally:
        for each in opened:
            each.close()


async def grpc_flood(
    service: RunningProcess,
    body: bytes,
    *,
    announced_bytes: int = 64 * MIB,
    clients: int = 40,
    encoding: str = "",
    method: str = EXPORT,
) -> Counter[str]:
    """Clients that all send the same; the answers of those that were ended."""
    answers: Counter[str] = Counter()

    async def send(connection: Connection) -> None:
        call = connection.begin(encoding=encoding, method=method)
        head = prefix(announced_bytes, is_compressed=bool(encoding))
        await connection.send(call, head)
        await connection.send(call, body, ends=len(body) == announced_bytes)
        await call.ended.wait()
        answers[str(call.status)] += 1

    async with connections(service, clients) as opened:
        tasks = [asyncio.create_task(send(each)) for each in opened]
        if len(body) == announced_bytes:
            await asyncio.wait(tasks, timeout=PATIENCE_S)
        else:
            # One may wait for the rest of its message for a minute, and harms nobody.
            await for_a_while_after_the_first(answers)
        for task in tasks:
            task.cancel()
    return answers


async def for_a_while_after_the_first(answers: Counter[str]) -> None:
    """Return when there are answers, and others had time to come."""
    async with asyncio.timeout(PATIENCE_S):
        while not answers:  # noqa: ASYNC110 - many senders count
            await asyncio.sleep(0.02)
    await asyncio.sleep(2)


async def of_whole_messages(service: RunningProcess) -> Counter[str]:
    return await grpc_flood(service, b"\xff" * (64 * MIB))


async def of_stalled_messages(service: RunningProcess) -> Counter[str]:
    return await grpc_flood(service, bytes(4 * MIB))


async def of_health_checks(service: RunningProcess) -> Counter[str]:
    return await grpc_flood(service, bytes(4 * MIB), method=CHECK)


async def of_bombs(service: RunningProcess) -> Counter[str]:
    bomb = gzip.compress(b"\xff" * (60 * MIB), 1)
    return await grpc_flood(service, bomb, announced_bytes=len(bomb), clients=8, encoding="gzip")


async def of_stalled_bodies(service: RunningProcess) -> Counter[str]:
    """HTTP: more is held than all requests together may."""
    return await http_flood(service, bytes(4 * MIB))


async def of_whole_bodies(service: RunningProcess) -> Counter[str]:
    return await http_flood(service, b"\xff" * (64 * MIB))


async def http_flood(service: RunningProcess, body: bytes) -> Counter[str]:
    head = (
        b"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-protobuf\r\n"
        b"Content-Length: %d\r\n\r\n" % (64 * MIB)
    )
    answers: Counter[str] = Counter()

    async def send() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", service.ports.http)
        with contextlib.closing(writer):
            try:
                writer.write(head)
                for start in range(0, len(body), 64 * KIB):
                    writer.write(memoryview(body)[start : start + 64 * KIB])
                    await writer.drain()
                answers[(await reader.readline()).decode()[9:12]] += 1
            except OSError:
                answers["closed"] += 1

    tasks = [asyncio.create_task(send()) for _ in range(40)]
    await for_a_while_after_the_first(answers)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return answers


async def of_returning_calls(service: RunningProcess) -> Counter[str]:
    """Stalled calls by the thousand; whoever is told to retry does so in the same moment."""
    answers: Counter[str] = Counter()
    loop = asyncio.get_running_loop()
    until_s = loop.time() + 3

    async def send(connection: Connection) -> None:
        while loop.time() < until_s:
            call = connection.begin()
            await connection.send(call, prefix(64 * MIB) + bytes(64 * KIB))
            await call.ended.wait()
            answers[str(call.status)] += 1

    async with connections(service, 200) as opened:
        tasks = [asyncio.create_task(send(each)) for each in opened for _ in range(10)]
        await asyncio.wait(tasks, timeout=3)
        for task in tasks:
            task.cancel()
    assert answers.total() < 2 * len(tasks)  # they wait instead of keeping the collector busy
    return answers


ATTACKS: dict[str, tuple[Attack, str]] = {
    "whole messages": (of_whole_messages, str(UNAVAILABLE)),
    "stalled messages": (of_stalled_messages, str(UNAVAILABLE)),
    "stalled calls that come again": (of_returning_calls, str(UNAVAILABLE)),
    "messages to the health service": (of_health_checks, str(UNAVAILABLE)),
    "gzip bombs over gRPC": (of_bombs, str(INVALID_ARGUMENT)),
    "whole bodies": (of_whole_bodies, "closed"),
    "stalled bodies": (of_stalled_bodies, "503"),
}


@contextlib.contextmanager
def peak_memory(process: psutil.Process) -> Iterator[Callable[[], int]]:
    """What a process has at most while the block runs, looked at a hundred times a second."""
    resident_bytes = [process.memory_info().rss]
    is_over = threading.Event()

    def watch() -> None:
        while not is_over.wait(0.01):
            resident_bytes.append(process.memory_info().rss)

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield lambda: max(resident_bytes)
    finally:
        is_over.set()
        watching.join()


@pytest.mark.parametrize("name", ATTACKS)
def test_memory_is_bounded_and_others_are_served(service: RunningProcess, name: str) -> None:
    attack, refusal = ATTACKS[name]
    trace_ids = [secrets.token_bytes(16) for _ in range(20)]

    def neighbours() -> None:
        for number, trace_id in enumerate(trace_ids):
            body = request(span("neighbour", trace_id=trace_id)).SerializeToString()
            export(service, body, ("grpc", "http")[number % 2])

    async def main() -> Counter[str]:
        answers, _ = await asyncio.gather(attack(service), asyncio.to_thread(neighbours))
        return answers

    with peak_memory(psutil.Process(service.popen.pid)) as peak:
        answers = asyncio.run(main())

    assert answers[refusal] > 0
    assert peak() < MAX_MEMORY_BYTES
    for trace_id in trace_ids:
        assert service.get_trace(trace_id)["span_count"] == 1


def test_memory_comes_back(sqlite_url: str) -> None:
    with running("collector", sqlite_url) as collector:
        process = psutil.Process(collector.popen.pid)
        before = process.memory_info().rss
        with peak_memory(process) as peak:
            asyncio.run(of_stalled_messages(collector))
        assert peak() > before + 64 * MIB

        wait_until(
            lambda: process.memory_info().rss < before + SLACK_BYTES,
            "the memory to come back",
            LAST_LOOKS_S[-1] + PATIENCE_S,
        )


@pytest.mark.parametrize("wire", ["grpc", "http"])
def test_a_large_attribute_takes_little_more_than_its_size(storage_url: str, wire: str) -> None:
    size = 24 * MIB
    with running("collector", storage_url) as collector:
        process = psutil.Process(collector.popen.pid)
        before = process.memory_info().rss
        for text in ("x" * size, "x" * (size - 4) + "\U0001f600"):
            body = request(span("large", attributes={"text": text})).SerializeToString()

            with peak_memory(process) as peak:
                export(collector, body, wire)

            assert peak() - before < 5 * size + SLACK_BYTES
        wait_until(
            lambda: process.memory_info().rss < before + SLACK_BYTES,
            "the memory to come back",
            PATIENCE_S,
        )
