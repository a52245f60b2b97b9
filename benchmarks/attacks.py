"""Hostile senders in a process of their own: `python -m benchmarks.attacks NAME WIRE PORT`.

Prepares what it sends, says "ready", waits for a line on standard input, attacks, and prints one
JSON line: how often which answer came (HTTP status or grpc-status; "broken" for a connection that
was closed, "none" for a sender that still waits).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gzip
import json
import logging
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass

from msgtrace.model.units import KIB, MIB
from msgtrace.serving import raise_open_file_limit
from tests.batches import request, span
from tests.http2 import BROKEN, PREFACE, SETTINGS, Connection, prefix

CLIENTS = 100
SLOW_S = 4.0
"""How long clients go on that send slowly, stall, or come again."""
LONGEST_S = 6.0
"""When clients that send once are left alone, whatever has become of them."""
BROKEN_PAUSE_S = 0.1

PROTOBUF_HEADERS = "Content-Type: application/x-protobuf"


@dataclass(frozen=True, kw_only=True)
class Body:
    """What one request sends. `announced_bytes` may be more than `content` has."""

    content: bytes
    announced_bytes: int
    coding: str = ""

    @classmethod
    def whole(cls, content: bytes, coding: str = "") -> Body:
        return cls(content=content, announced_bytes=len(content), coding=coding)


Pace = Callable[[int], Awaitable[None]]
"""Waits after so many bytes were sent."""


async def at_once(_sent: int) -> None:
    """As fast as they are taken."""


async def slowly(sent: int) -> None:
    """4 MiB a second."""
    await asyncio.sleep(sent / (4 * MIB))


class HttpClient:
    """Posts over a connection of its own."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def send(self, body: Body, pace: Pace) -> str:
        """The status of the answer."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        coding = f"\r\nContent-Encoding: {body.coding}" if body.coding else ""
        head = f"POST /v1/traces HTTP/1.1\r\nHost: x\r\n{PROTOBUF_HEADERS}{coding}"
        answer = asyncio.create_task(self._status(reader))
        try:
            writer.write(f"{head}\r\nContent-Length: {body.announced_bytes}\r\n\r\n".encode())
            for piece in pieces(body.content):
                if answer.done():
                    break
                writer.write(piece)
                await writer.drain()
                await pace(len(piece))
            return await answer
        except (OSError, asyncio.IncompleteReadError):
            return "broken"
        finally:
            answer.cancel()
            writer.close()

    async def _status(self, reader: asyncio.StreamReader) -> str:
        try:
            return (await reader.readuntil(b"\r\n")).split()[1].decode()
        except (OSError, asyncio.IncompleteReadError):
            return "broken"


class GrpcClient:
    """Calls Export over a connection that others may share."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def send(self, body: Body, pace: Pace) -> str:
        """The status of the call."""
        call = self._connection.begin(encoding=body.coding)
        is_whole = len(body.content) == body.announced_bytes
        await self._connection.send(
            call, prefix(body.announced_bytes, is_compressed=bool(body.coding))
        )
        for piece in pieces(body.content):
            await self._connection.send(call, bytes(piece))
            await pace(len(piece))
        if is_whole:
            self._connection.end(call)
        await call.ended.wait()
        return "broken" if call.status == BROKEN else str(call.status)


class IdleClient:
    """Opens a connection, says something that is no request, and then nothing or very little."""

    def __init__(self, port: int, said: bytes, goes_on_with: bytes) -> None:
        self._port = port
        self._said, self._goes_on_with = said, goes_on_with

    async def send(self, _body: Body, _pace: Pace) -> str:
        """Until the connection is closed."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            writer.write(self._said)
            while not reader.at_eof():
                writer.write(self._goes_on_with)
                await writer.drain()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(reader.read(64 * KIB), 1)
        except OSError:
            pass
        finally:
            writer.close()
        return "closed"


Client = HttpClient | GrpcClient | IdleClient


def pieces(content: bytes) -> Iterable[memoryview]:
    """Pieces of 64 KiB."""
    view = memoryview(content)
    return (view[start : start + 64 * KIB] for start in range(0, len(view), 64 * KIB))


@dataclass(frozen=True, kw_only=True)
class Attack:
    """Clients that send the same body, over so many connections."""

    make_body: Callable[[], Body]
    wires: tuple[str, ...] = ("http", "grpc")
    clients: int = CLIENTS
    connections: int = CLIENTS
    pace: Pace = at_once
    lasts_s: float | None = None
    """Until then clients come again and again; None: each sends once."""
    idles: Mapping[str, tuple[bytes, bytes]] | None = None
    """Instead of requests: what is said by wire once, and every second."""


HALF_A_HEAD = b"POST /v1/traces HTTP/1.1\r\nHost: x\r\n"
HTTP2_HANDSHAKE = PREFACE + bytes([0, 0, 0, SETTINGS, 0, 0, 0, 0, 0])
IDLE_CONNECTIONS = 3_000


def empty_links(size: int) -> bytes:
    """One span with links of two bytes each, which parsed take up to 300 times as much."""
    content = b"\x0a\x10" + b"\x01" * 16 + b"\x12\x08" + b"\x01" * 8
    content += b"\x6a\x00" * ((size - 64) // 2)
    for tag in (b"\x12", b"\x12", b"\x0a"):
        count = len(content)
        length = bytes([count & 127 | 128, count >> 7 & 127 | 128, count >> 14 & 127 | 128])
        content = tag + length + bytes([count >> 21]) + content
    return content


def huge_attribute() -> bytes:
    """A valid request of nearly 64 MiB: one span with one attribute."""
    return request(span("huge", attributes={"text": "x" * (64 * MIB - 400)})).SerializeToString()


ATTACKS = {
    "64 MiB of garbage": Attack(make_body=lambda: Body.whole(os.urandom(64 * MIB))),
    "64 MiB of one attribute": Attack(make_body=lambda: Body.whole(huge_attribute())),
    "64 MiB of empty links": Attack(make_body=lambda: Body.whole(empty_links(64 * MIB))),
    "64 MiB over one connection": Attack(
        make_body=lambda: Body.whole(os.urandom(64 * MIB)), wires=("grpc",), connections=1
    ),
    "64 MiB slowly": Attack(
        make_body=lambda: Body.whole(bytes(64 * MIB)), pace=slowly, lasts_s=SLOW_S
    ),
    "64 MiB, stalled after 1 MiB": Attack(
        make_body=lambda: Body(content=bytes(MIB), announced_bytes=64 * MIB), lasts_s=SLOW_S
    ),
    "64 MiB, stalled after 32 KiB": Attack(
        make_body=lambda: Body(content=bytes(32 * KIB), announced_bytes=64 * MIB),
        clients=5_000,
        connections=500,
        wires=("grpc",),
        lasts_s=SLOW_S,
    ),
    "gzip bomb of 1 GiB": Attack(
        make_body=lambda: Body.whole(gzip.compress(bytes(1024 * MIB), 1), "gzip")
    ),
    "gzip bomb of 60 MiB": Attack(
        make_body=lambda: Body.whole(gzip.compress(bytes(60 * MIB), 1), "gzip")
    ),
    "512 KiB of empty links": Attack(
        make_body=lambda: Body.whole(empty_links(512 * KIB)),
        clients=4,
        connections=4,
        lasts_s=SLOW_S,
    ),
    "idle connections": Attack(
        make_body=lambda: Body.whole(b""),
        clients=IDLE_CONNECTIONS,
        idles={"http": (b"", b""), "grpc": (HTTP2_HANDSHAKE, b"")},
        lasts_s=SLOW_S,
    ),
    "slow headers": Attack(
        make_body=lambda: Body.whole(b""),
        clients=IDLE_CONNECTIONS,
        wires=("http",),
        idles={"http": (HALF_A_HEAD, b"X: y\r\n")},
        lasts_s=SLOW_S,
    ),
}


async def run(attack: Attack, wire: str, port: int, body: Body) -> Counter[str]:
    """All clients at once."""
    answers: Counter[str] = Counter()
    loop = asyncio.get_running_loop()
    until = loop.time() + (attack.lasts_s or 0.0)

    async def go_on(client: Client) -> None:
        while True:
            try:
                answer = await client.send(body, attack.pace)
            except asyncio.CancelledError:
                answers["none"] += 1
                raise
            answers[answer] += 1
            if answer == "broken":
                await asyncio.sleep(BROKEN_PAUSE_S)
            if loop.time() >= until:
                return

    clients = [client async for client in _clients(attack, wire, port)]
    tasks = [asyncio.create_task(go_on(client)) for client in clients]
    await asyncio.wait(tasks, timeout=attack.lasts_s or LONGEST_S)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return answers


async def _clients(attack: Attack, wire: str, port: int) -> AsyncIterator[Client]:
    if attack.idles is not None:
        for _ in range(attack.clients):
            yield IdleClient(port, *attack.idles[wire])
        return
    if wire == "http":
        for _ in range(attack.clients):
            yield HttpClient(port)
        return
    connections = [await Connection.open(port) for _ in range(attack.connections)]
    for number in range(attack.clients):
        yield GrpcClient(connections[number % attack.connections])


def main() -> None:
    """Attack once."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("attack", choices=ATTACKS)
    parser.add_argument("wire", choices=["http", "grpc"])
    parser.add_argument("port", type=int)
    options = parser.parse_args()
    attack = ATTACKS[options.attack]
    body = attack.make_body()
    raise_open_file_limit()
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # each write to a broken connection
    print("ready", flush=True)
    sys.stdin.readline()
    print(json.dumps(asyncio.run(run(attack, options.wire, options.port, body))))


if __name__ == "__main__":
    main()
