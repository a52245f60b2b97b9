"""How soon is a small request acknowledged, and what do hostile ones cost?

    python -m benchmarks.receiver [--seconds 2] [--attacks gzip]      # less than four minutes

One-span requests at 1, 16 and 256 connections: requests/s and acknowledgement times, protobuf
beside JSON over HTTP and protobuf over gRPC. Then attacks from a process of their own over either
wire, with a well-behaved client on each wire beside them: peak resident memory of the collector,
and the clients' acknowledgement p99, a wait for a second try included, beside the goals. SQLite;
the machine is shared by all of them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import grpc

from benchmarks.attacks import ATTACKS, PROTOBUF_HEADERS
from benchmarks.load import EXPORT
from benchmarks.processes import running_collector, sampled_memory, wait_for_port

CONNECTIONS = (1, 16, 256)
PAUSE_S = 0.02
CALM_S = 0.7
"""Before an attack, for comparison."""
AFTERMATH_S = 0.5
"""So that an attack that was over at once shows what it left."""

GOAL_MB = 400
GOAL_P99_MS = 500

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
    print(f"{'one-span requests':18}{'connections':>12}{'a second':>12}{'p50 ms':>9}{'p99 ms':>9}")
    for name, (wire, open_sender, make_body, headers) in WIRES.items():
        for count in CONNECTIONS:
            senders = [await open_sender(ports[wire], make_body, headers) for _ in range(count)]
            took_s: list[float] = []
            until = time.perf_counter() + seconds
            await asyncio.gather(*(offer(send, took_s, until) for send in senders))
            p50, p99 = percentiles_ms(took_s)
            rate = len(took_s) / seconds
            print(f"{name:18}{count:12}{rate:12,.0f}{p50:9.1f}{p99:9.1f}", flush=True)


def percentiles_ms(took_s: list[float]) -> tuple[float, float]:
    """p50 and p99 in milliseconds."""
    ranked = sorted(took_s) or [0.0]
    return ranked[len(ranked) // 2] * 1e3, ranked[len(ranked) * 99 // 100] * 1e3


class Neighbour:
    """A well-behaved client: one span every 20 ms, sent again in a second if it is told so."""

    def __init__(self) -> None:
        self.calm_s: list[float] = []
        self.took_s: list[float] = []
        self.refused = 0

    async def run(self, send: Send) -> None:
        """Until cancelled."""
        while True:
            started = time.perf_counter()
            while not await self._is_taken(send):
                self.refused += 1
                await asyncio.sleep(1)
            self.took_s.append(time.perf_counter() - started)
            await asyncio.sleep(PAUSE_S)

    async def _is_taken(self, send: Send) -> bool:
        try:
            return await send() == 200
        except grpc.aio.AioRpcError:
            return False


async def measure_attack(
    name: str, wire: str, ports: dict[str, int]
) -> tuple[dict[str, int], dict[str, Neighbour]]:
    """Answers to the attackers, and what became of a neighbour on each wire."""
    attackers = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.attacks", name, wire, str(ports[wire])),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert attackers.stdout is not None
    await attackers.stdout.readline()
    neighbours = {"http": Neighbour(), "grpc": Neighbour()}
    senders = {
        "http": await http_sender(ports["http"], protobuf_body, PROTOBUF_HEADERS),
        "grpc": await grpc_sender(ports["grpc"], protobuf_body, ""),
    }
    running = [asyncio.create_task(neighbours[each].run(send)) for each, send in senders.items()]
    await asyncio.sleep(CALM_S)
    for neighbour in neighbours.values():
        neighbour.calm_s, neighbour.took_s = neighbour.took_s, []
    answers, _ = await attackers.communicate(b"go\n")
    await asyncio.sleep(AFTERMATH_S)
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    return json.loads(answers), neighbours


def measure_attacks(folder: Path, only: str) -> None:
    """Print one line for each attack and wire, with the goals above."""
    print(f"\ngoals: memory below {GOAL_MB} MB, p99 of others below {GOAL_P99_MS} ms")
    print(ATTACK_HEADING)
    for name, attack in ATTACKS.items():
        for wire in attack.wires if only in name else ():
            url = f"sqlite:///{folder / 'attack.db'}"
            # What it refuses is counted by those whom it refuses.
            with running_collector(url, log_level="error") as (process, ports):
                for port in ports.values():
                    wait_for_port(port)
                with sampled_memory(process) as resident_bytes:
                    answers, neighbours = asyncio.run(measure_attack(name, wire, ports))
                process.kill()  # a clean stop would first answer what is left of the attack
            print_attack(name, wire, max(resident_bytes) / 1e6, answers, neighbours)


ATTACK_HEADING = (
    f"{'':44}{'peak':>7}   {'p99 of others, ms':^26}   {'refused':^9}\n"
    f"{'clients, attack':38}{'wire':6}{'MB':>7}   {'http':>8}{'grpc':>9}{'before':>9}"
    f"   {'http':>4} {'grpc':>4}   goals    answers to the attackers"
)


def print_attack(
    name: str,
    wire: str,
    peak_mb: float,
    answers: dict[str, int],
    neighbours: dict[str, Neighbour],
) -> None:
    """One line."""
    p99_ms = {each: percentiles_ms(they.took_s)[1] for each, they in neighbours.items()}
    calm_ms = max(percentiles_ms(they.calm_s)[1] for they in neighbours.values())
    is_met = peak_mb < GOAL_MB and max(p99_ms.values()) < GOAL_P99_MS
    counts = ", ".join(f"{count} x {answer}" for answer, count in sorted(answers.items()))
    print(
        f"{ATTACKS[name].clients:5} x {name:30}{wire:6}{peak_mb:7.0f}   {p99_ms['http']:8.0f}"
        f"{p99_ms['grpc']:9.0f}{calm_ms:9.0f}   {neighbours['http'].refused:4}"
        f" {neighbours['grpc'].refused:4}   {'met' if is_met else 'MISSED':8} {counts}",
        flush=True,
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2, help="0: attacks only")
    parser.add_argument("--attacks", default="", help="only those with this in their name")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="msgtrace-bench-") as folder:
        if options.seconds:
            with running_collector(f"sqlite:///{Path(folder) / 'small.db'}") as (_, ports):
                for port in ports.values():
                    wait_for_port(port)
                asyncio.run(measure_small(ports, options.seconds))
        measure_attacks(Path(folder), options.attacks)


if __name__ == "__main__":
    main()
