"""Offer ready-made requests to a collector from a process of its own: `python -m benchmarks.load`.

Prepares everything, says "ready", waits for a line on standard input, sends over `connections`
connections, and prints one JSON line: seconds, spans, refused, CPU seconds and acknowledgement
times. A refused request is an error: it is counted and not sent again.
Sends as fast as the answers come or, with `--rate`, so many requests a second, whether answers
come or not; times then count from the moment at which a request was due.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import itertools
import json
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import grpc

from benchmarks.export_requests import SPANS_PER_REQUEST, Renewed, to_otlp_json

EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"

TRACES_PATH = "/v1/traces"
PROTOBUF = "application/x-protobuf"

TEMPLATES = 200
"""Requests that are made from nothing; more are made from these."""

Send = Callable[[bytes], bool]
"""Sends one request; returns whether it was accepted."""


def main() -> None:
    """Run one load and print what happened."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wire", choices=list(SENDERS))
    parser.add_argument("port", type=int)
    parser.add_argument("--requests", type=int, required=True)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--rate", type=float, default=0.0, help="requests a second; 0: no limit")
    parser.add_argument("--path", default=TRACES_PATH, help="where traces are posted over HTTP")
    parser.add_argument("--samples", action="store_true", help="also print when each was due")
    options = parser.parse_args()
    bodies: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    requests = Renewed(min(options.requests, TEMPLATES), options.seed)
    for body in requests.take(options.requests):
        bodies.put(to_otlp_json(body) if options.wire == "json" else body)
    make_sender = SENDERS[options.wire]
    senders = [make_sender(options.port, options.path) for _ in range(options.connections)]
    print("ready", flush=True)
    sys.stdin.readline()
    result, samples = _offer(bodies, senders, options.rate)
    if options.samples:
        result |= {"samples": samples}
    print(json.dumps(result), flush=True)


def _offer(
    bodies: queue.SimpleQueue[bytes], senders: list[Send], rate: float
) -> tuple[dict[str, Any], list[tuple[float, float]]]:
    """What happened, and for each request when it was due (Unix time) and how long it took."""
    samples: list[tuple[float, float]] = []
    refused: list[bytes] = []
    numbers = itertools.count()

    def run(send: Send) -> None:
        while True:
            try:
                body = bodies.get_nowait()
            except queue.Empty:
                return
            sent_at = time.perf_counter()
            if rate:
                sent_at = started_at + next(numbers) / rate
                time.sleep(max(0.0, sent_at - time.perf_counter()))
            if not send(body):
                refused.append(body)
            took_s = time.perf_counter() - sent_at
            samples.append((began_at + sent_at - started_at, took_s))

    threads = [threading.Thread(target=run, args=(send,)) for send in senders]
    cpu_before_s, began_at, started_at = time.process_time(), time.time(), time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - started_at
    took_s = sorted(each for _, each in samples)
    result = {
        "seconds": seconds,
        "spans": (len(took_s) - len(refused)) * SPANS_PER_REQUEST,
        "refused": len(refused),
        "cpu_s": time.process_time() - cpu_before_s,
        "p50_ms": took_s[len(took_s) // 2] * 1e3,
        "p99_ms": took_s[len(took_s) * 99 // 100] * 1e3,
    }
    return result, samples


def run_load(
    wire: str,
    port: int,
    requests: int,
    seed: int,
    *,
    rate: float = 0.0,
    connections: int = 16,
    path: str = TRACES_PATH,
) -> dict[str, float]:
    """What this program measures, in a process of its own."""
    arguments = [wire, str(port), "--requests", str(requests), "--seed", str(seed), "--path", path]
    arguments += ["--rate", str(rate), "--connections", str(connections)]
    command = [sys.executable, "-m", "benchmarks.load", *arguments]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        result: dict[str, float] = json.loads(child.communicate("go\n")[0])
    return result


def grpc_sender(port: int, _path: str = TRACES_PATH) -> Send:
    """A sender over a gRPC connection of its own."""
    # Without a pool of its own each channel would share one connection.
    channel = grpc.insecure_channel(
        f"127.0.0.1:{port}", options=[("grpc.use_local_subchannel_pool", 1)]
    )
    export: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(EXPORT)

    def send(body: bytes) -> bool:
        try:
            export(body, timeout=60)
        except grpc.RpcError:
            return False
        return True

    return send


def send_one(port: int, body: bytes) -> bool:
    """Send one request over an HTTP connection that is then closed."""
    with contextlib.closing(
        http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    ) as connection:
        return _post(connection, TRACES_PATH, body, PROTOBUF)


def http_sender(port: int, path: str = TRACES_PATH, media_type: str = PROTOBUF) -> Send:
    """A sender over an HTTP connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    return lambda body: _post(connection, path, body, media_type)


def _post(connection: http.client.HTTPConnection, path: str, body: bytes, media_type: str) -> bool:
    connection.request("POST", path, body, {"Content-Type": media_type})
    response = connection.getresponse()
    response.read()
    return response.status == http.client.OK


SENDERS: dict[str, Callable[[int, str], Send]] = {
    "grpc": grpc_sender,
    "http": http_sender,
    "json": lambda port, path: http_sender(port, path, "application/json"),
}


if __name__ == "__main__":
    main()
