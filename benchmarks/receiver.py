"""How soon is a small request acknowledged, and what do hostile ones cost?

    python -m benchmarks.receiver [--seconds 3]

One-span requests at 1, 16 and 256 connections: requests/s and acknowledgement times, protobuf
beside JSON over HTTP and protobuf over gRPC. Then attacks from a process of their own, with a
well-behaved client beside them: peak resident memory of the collector, and the client's
acknowledgement p99. SQLite; the machine is shared by all of them.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import grpc

from benchmarks.ingest import sampled_memory
from benchmarks.load import EXPORT
from benchmarks.processes import running_collector, wait_for_port
from msgtrace.model.units import MIB

CONNECTIONS = (1, 16, 256)
ATTACKERS = 100

Send = Callable[[], Awaitable[int]]
"""Sends one request over a connection of its own; returns the HTTP status, 200 for success."""


async def http_sender(port: int, make_body: Callable[[], bytes], headers: str) -> Send:
    """A connection that posts a fresh body each time."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    async def send() -> int:
        body = make_body()
        head = f"POST /v1/traces HTTP/1.1\r\nHost: x\r\n{headers}\r\nContent-Length: {len(body)}"
        writer.write(f"{head}\r\n\r\n".encode() + body)
        return await read_status(reader)

    return send


async def read_status(reader: asyncio.StreamReader) -> int:
    """The status of one answer; its body is read and dropped."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    length = next(line for line in head.split("\r\n") if line.startswith("content-length"))
    await reader.readexactly(int(length.partition(":")[2]))
    return int(head.split(" ", 2)[1])


async def grpc_sender(port: int, make_body: Callable[[], bytes], _headers: str) -> Send:
    """The same over gRPC."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options)
    export: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(EXPORT)

    async def send() -> int:
        await export(make_body())
        return 200

    return send


def protobuf_body() -> bytes:
    """One span with an id of its own, without the cost of building a message."""
    ids = b"\x0a\x10" + os.urandom(16) + b"\x12\x08" + os.urandom(8)
    now = time.time_ns().to_bytes(8, "little")
    span = ids + b"\x2a\x04work" + b"\x39" + now + b"\x41" + now
    scope_spans = b"\x12" + bytes([len(span)]) + span
    resource_spans = b"\x12" + bytes([len(scope_spans)]) + scope_spans
    return b"\x0a" + bytes([len(resource_spans)]) + resource_spans


def json_body() -> bytes:
    """The same in OTLP/JSON."""
    now = str(time.time_ns())
    span = {
        "traceId": os.urandom(16).hex(),
        "spanId": os.urandom(8).hex(),
        "name": "work",
        "startTimeUnixNano": now,
        "endTimeUnixNano": now,
    }
    return json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}).encode()


PROTOBUF_HEADERS = "Content-Type: application/x-protobuf"
JSON_HEADERS = "Content-Type: application/json"

WIRES = {
    "http/protobuf": ("http", http_sender, protobuf_body, PROTOBUF_HEADERS),
    "http/json": ("http", http_sender, json_body, JSON_HEADERS),
    "grpc": ("grpc", grpc_sender, protobuf_body, ""),
}


async def offer(send: Send, took_s: list[float], until: float) -> None:
    """Send one request after the other."""
    while (sent_at := time.perf_counter()) < until:
        if await send() == 200:
            took_s.append(time.perf_counter() - sent_at)


async def measure_small(ports: dict[str, int], seconds: float) -> None:
    """Print one line for each wire and number of connections."""
    for name, (wire, open_sender, make_body, headers) in WIRES.items():
        for count in CONNECTIONS:
            senders = [await open_sender(ports[wire], make_body, headers) for _ in range(count)]
            took_s: list[float] = []
            until = time.perf_counter() + seconds
            await asyncio.gather(*(offer(send, took_s, until) for send in senders))
            p50, p99 = percentiles_ms(took_s)
            rate = len(took_s) / seconds
            print(
                f"{name:14} {count:4} connections {rate:8,.0f} requests/s"
                f"  p50 {p50:6.1f} ms  p99 {p99:6.1f} ms"
            )


def percentiles_ms(took_s: list[float]) -> tuple[float, float]:
    """p50 and p99 in milliseconds."""
    ranked = sorted(took_s)
    return ranked[len(ranked) // 2] * 1e3, ranked[len(ranked) * 99 // 100] * 1e3


def empty_links() -> bytes:
    """64 MiB of links of two bytes each, which parsed would take 20 GB."""
    content = b"\x6a\x00" * (32 * MIB - 32)
    for tag in (b"\x12", b"\x12", b"\x0a"):
        size = len(content)
        length = bytes([size & 127 | 128, size >> 7 & 127 | 128, size >> 14 & 127 | 128])
        content = tag + length + bytes([size >> 21]) + content
    return content


def huge_attribute() -> bytes:
    """A valid request of nearly 64 MiB: one span with one attribute."""
    from tests.batches import request, span  # noqa: PLC0415 - only this attack needs it

    return request(span("huge", attributes={"text": "x" * (64 * MIB - 400)})).SerializeToString()


ATTACKS: dict[str, Callable[[], tuple[str, bytes]]] = {
    "garbage of 64 MiB": lambda: (PROTOBUF_HEADERS, os.urandom(64 * MIB)),
    "one attribute of 64 MiB": lambda: (PROTOBUF_HEADERS, huge_attribute()),
    "empty links of 64 MiB": lambda: (PROTOBUF_HEADERS, empty_links()),
    "gzip bomb of 1 GiB": lambda: (
        f"{PROTOBUF_HEADERS}\r\nContent-Encoding: gzip",
        gzip.compress(bytes(1024 * MIB), 1),
    ),
}


async def attack(port: int, headers: str, body: bytes) -> int:
    """One attacker; returns the status it got, 0 for a closed connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = (
        f"POST /v1/traces HTTP/1.1\r\nHost: x\r\n{headers}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    try:
        writer.write(head.encode())
        for start in range(0, len(body), MIB):
            writer.write(body[start : start + MIB])
            await writer.drain()
        return await read_status(reader)
    except (OSError, asyncio.IncompleteReadError):
        return 0
    finally:
        writer.close()


async def attack_all(port: int, headers: str, body: bytes) -> list[int]:
    """All attackers at once."""
    return await asyncio.gather(*(attack(port, headers, body) for _ in range(ATTACKERS)))


async def measure_attack(name: str, port: int) -> tuple[dict[str, int], list[float]]:
    """Statuses of the attackers, and the times of a well-behaved client beside them."""
    attackers = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.receiver", "--attack", name, "--port", str(port)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert attackers.stdout is not None
    await attackers.stdout.readline()
    send = await http_sender(port, protobuf_body, PROTOBUF_HEADERS)
    took_s: list[float] = []
    client = asyncio.create_task(offer(send, took_s, time.perf_counter() + 600))
    answers, _ = await attackers.communicate(b"go\n")
    client.cancel()
    return Counter(json.loads(answers)), took_s


def run_attack(name: str, port: int) -> None:
    """The attackers' process."""
    headers, body = ATTACKS[name]()
    print("ready", flush=True)
    sys.stdin.readline()
    print(json.dumps(asyncio.run(attack_all(port, headers, body))))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--attack", choices=ATTACKS)
    parser.add_argument("--port", type=int)
    options = parser.parse_args()
    if options.attack:
        run_attack(options.attack, options.port)
        return
    with tempfile.TemporaryDirectory(prefix="msgtrace-bench-") as folder:
        with running_collector(f"sqlite:///{Path(folder) / 'small.db'}") as (_, ports):
            wait_for_port(ports["http"])
            asyncio.run(measure_small(ports, options.seconds))
        for name in ATTACKS:
            with running_collector(f"sqlite:///{Path(folder) / 'attack.db'}") as (process, ports):
                wait_for_port(ports["http"])
                with sampled_memory(process) as resident_bytes:
                    statuses, took_s = asyncio.run(measure_attack(name, ports["http"]))
            _, p99 = percentiles_ms(took_s)
            counts = ", ".join(f"{count} x {status}" for status, count in sorted(statuses.items()))
            print(
                f"{ATTACKERS} x {name:24} peak {max(resident_bytes) / MIB:5.0f} MiB"
                f"  other client p99 {p99:6.1f} ms  answers {counts}"
            )


if __name__ == "__main__":
    main()
