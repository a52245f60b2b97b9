"""Senders that never give up, and remember exactly what was acknowledged.

Several threads, half of them over HTTP, half over gRPC. Each sends a request until it is
acknowledged, at last after everything that a fault may do to it. Some requests are sent again on
purpose, some spans travel in two requests.
"""

from __future__ import annotations

import contextlib
import http.client
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.batches import request, span, trace_id_of
from tests.end_to_end.processes import Ports
from tests.end_to_end.senders import EXPORT_METHOD, PROTOBUF

SpanKey = tuple[int, bytes, bytes, int]
"""(tenant, trace id, span id, start): what makes a span that span."""

PAUSE_S = (0.1, 0.3)
"""Before a refused request is sent again."""

PATIENCE_S = 45.0
"""How long a sender may take after a fault to get an answer of success."""

OPEN_TRACES = 12
"""Traces that get spans at the same time, from all senders."""

DAY_NS = 86_400 * 10**9

_RETRYABLE_HTTP = (429, 502, 503, 504)
_RETRYABLE_GRPC = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.ABORTED,
)
_CHANNEL_OPTIONS = [
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 300),
]

REFUSED, CONNECTION, DEADLINE, WRONG = "refused", "connection", "deadline", "wrong"
Answer = str | None
"""Why a request was not acknowledged; None if it was."""


@dataclass
class Load:
    """What all senders share."""

    targets: Sequence[Ports]
    seed: int
    senders: int = 6
    pace_s: float = 0.004
    is_race: bool = False
    """Whether each request goes to all targets at the same time."""

    acknowledged: set[SpanKey] = field(default_factory=set)
    sent: set[SpanKey] = field(default_factory=set)
    requests: int = 0
    resent: int = 0
    troubles: Counter[str] = field(default_factory=Counter)
    wrong_answers: list[str] = field(default_factory=list)
    deadlines_s: tuple[float, float] = (20.0, 20.0)
    is_paused: bool = False
    padding_bytes: int = 0
    """Random text in each span, to fill a disk."""
    most_spans: int = 6
    """Spans in one request."""
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stopping: threading.Event = field(default_factory=threading.Event)
    _last_success: dict[int, float] = field(default_factory=dict)
    _threads: list[threading.Thread] = field(default_factory=list)

    @contextlib.contextmanager
    def running(self) -> Iterator[Load]:
        """Send while the block runs; then each sender goes on until its last request is taken."""
        self._threads = [
            threading.Thread(target=self._send_until_stopped, args=(number,), daemon=True)
            for number in range(self.senders)
        ]
        for thread in self._threads:
            thread.start()
        try:
            yield self
        finally:
            self._stopping.set()
            deadline = time.monotonic() + PATIENCE_S
            for thread in self._threads:
                thread.join(max(0.0, deadline - time.monotonic()))
        assert not any(thread.is_alive() for thread in self._threads), (
            f"senders are still refused {PATIENCE_S:g} s after the fault: {self.summary()}"
        )

    def wait_for_requests(self, count: int, timeout_s: float = PATIENCE_S) -> None:
        """Return when so many more requests were acknowledged."""
        goal = self.requests + count
        self._wait(lambda: self.requests >= goal, timeout_s)

    def wait_until_all_succeed(self, timeout_s: float = PATIENCE_S) -> float:
        """Return when every sender has had a success from now on; the seconds that took."""
        now = time.monotonic()
        self._wait(
            lambda: all(self._last_success.get(n, 0.0) > now for n in range(self.senders)),
            timeout_s,
        )
        return time.monotonic() - now

    @contextlib.contextmanager
    def short_deadlines(self, least_s: float, most_s: float) -> Iterator[None]:
        """Meanwhile the senders hardly wait for an answer."""
        before, self.deadlines_s = self.deadlines_s, (least_s, most_s)
        try:
            yield
        finally:
            self.deadlines_s = before

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Meanwhile nothing new is sent; what is under way may go on."""
        self.is_paused = True
        try:
            yield
        finally:
            self.is_paused = False

    def snapshot(self) -> tuple[set[SpanKey], set[SpanKey]]:
        """What was acknowledged, and what was sent, up to now."""
        with self._lock:
            return set(self.acknowledged), set(self.sent)

    def sent_now(self) -> set[SpanKey]:
        with self._lock:
            return set(self.sent)

    def summary(self) -> str:
        troubles = ", ".join(f"{name} {count}" for name, count in sorted(self.troubles.items()))
        return (
            f"{self.requests} requests with {len(self.acknowledged)} spans acknowledged,"
            f" {self.resent} resent on purpose; {troubles or 'no trouble'}"
        )

    def _wait(self, is_true: Callable[[], bool], timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while not is_true():
            assert time.monotonic() < deadline, (
                f"senders are still refused after {timeout_s:g} s: {self.summary()}"
            )
            time.sleep(0.02)

    def _send_until_stopped(self, number: int) -> None:
        chance = random.Random(f"{self.seed} {number}")
        wires = [_wire(number % 2 == 0, ports) for ports in self.targets]
        previous: list[Span] = []
        serial = 0
        with ThreadPoolExecutor(len(wires)) as pool:
            while not self._stopping.is_set():
                if self.is_paused:
                    time.sleep(0.05)
                    continue
                spans = self._make_spans(chance, serial)
                again = chance.sample(previous, 1) if previous and chance.random() < 0.1 else []
                export = request(*spans, *again, service=chance.choice(("shop", "bank", "post")))
                self._send(chance, pool, wires, export)
                if chance.random() < 0.15:
                    self.resent += 1
                    self._send(chance, pool, wires, export)
                self._last_success[number] = time.monotonic()
                previous, serial = spans, serial + 1
                time.sleep(self.pace_s)
        for wire in wires:
            wire.close()

    def _send(
        self,
        chance: random.Random,
        pool: ThreadPoolExecutor,
        wires: Sequence[Wire],
        export: ExportTraceServiceRequest,
    ) -> None:
        keys = _keys(export)
        body = export.SerializeToString()
        with self._lock:
            self.sent |= keys
        if self.is_race:
            chances = [random.Random(chance.random()) for _ in wires]
            list(pool.map(self._send_to, chances, wires, [body] * len(wires)))
        else:
            self._send_to(chance, chance.choice(wires), body)
        with self._lock:
            self.acknowledged |= keys
            self.requests += 1

    def _send_to(self, chance: random.Random, wire: Wire, body: bytes) -> None:
        while (trouble := wire.export(body, chance.uniform(*self.deadlines_s))) is not None:
            kind, _, detail = trouble.partition(": ")
            with self._lock:
                self.troubles[kind] += 1
                if kind == WRONG and len(self.wrong_answers) < 20:
                    self.wrong_answers.append(detail)
            time.sleep(chance.uniform(*PAUSE_S))

    def _make_spans(self, chance: random.Random, serial: int) -> list[Span]:
        """A few spans; the traces that are open move on with the number of requests sent."""
        first_trace = serial // 20
        now_ns = time.time_ns()
        spans = []
        for _ in range(chance.randint(1, self.most_spans)):
            days_ago = chance.choice((0, 0, 0, 0, 1, 40))
            spans.append(
                span(
                    f"step {chance.randrange(50)}",
                    trace_id=trace_id_of(
                        f"{self.seed} {first_trace + chance.randrange(OPEN_TRACES)}"
                    ),
                    span_id=chance.randbytes(8),
                    parent=chance.randbytes(8) if chance.random() < 0.8 else None,
                    start_ns=now_ns - days_ago * DAY_NS - chance.randrange(10**9),
                    duration_ns=chance.randrange(10**9),
                    status_code=chance.choice((0, 1, 2)),
                    attributes=_attributes(chance) | self._padding(chance),
                )
            )
        return spans

    def _padding(self, chance: random.Random) -> dict[str, str]:
        size = self.padding_bytes
        return {"padding": chance.randbytes(size // 2).hex()} if size else {}


def _attributes(chance: random.Random) -> dict[str, Any]:
    if chance.random() < 0.4:
        return {"step": chance.randrange(1000)}
    return {
        "gen_ai.operation.name": chance.choice(("chat", "embeddings", "execute_tool")),
        "gen_ai.request.model": f"model-{chance.randrange(5)}",
        "gen_ai.usage.input_tokens": chance.randrange(5000),
        "gen_ai.usage.output_tokens": chance.randrange(1000),
        "gen_ai.usage.cost.amount": chance.randrange(1000) / 1000,
        "session.id": f"session-{chance.randrange(5)}",
        "user.id": f"user-{chance.randrange(5)}",
        "workflow.name": f"workflow-{chance.randrange(5)}",
    }


def _keys(export: ExportTraceServiceRequest) -> set[SpanKey]:
    return {
        (0, each.trace_id, each.span_id, each.start_time_unix_nano)
        for each in export.resource_spans[0].scope_spans[0].spans
    }


class Wire:
    """One connection to one collector."""

    def export(self, body: bytes, timeout_s: float) -> Answer:
        """Send the request once."""
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


class HttpWire(Wire):
    """A connection that is made anew after any trouble."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._connection: http.client.HTTPConnection | None = None

    def export(self, body: bytes, timeout_s: float) -> Answer:
        try:
            status, headers, content = self._post(body, timeout_s)
        except TimeoutError:
            self.close()
            return DEADLINE
        except (OSError, http.client.HTTPException) as error:
            self.close()
            return f"{CONNECTION}: {error}"
        if status == 200:
            return _rejection(content)
        if status in _RETRYABLE_HTTP and headers.get("retry-after"):
            return REFUSED
        return f"{WRONG}: HTTP {status} {content[:200]!r}"

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _post(self, body: bytes, timeout_s: float) -> tuple[int, Any, bytes]:
        if self._connection is None:
            self._connection = http.client.HTTPConnection("127.0.0.1", self._port)
        self._connection.timeout = timeout_s
        if self._connection.sock is not None:
            self._connection.sock.settimeout(timeout_s)
        self._connection.request("POST", "/v1/traces", body, PROTOBUF)
        response = self._connection.getresponse()
        content = response.read()
        if response.will_close:
            self.close()
        return response.status, response.headers, content


class GrpcWire(Wire):
    """A channel, which connects again by itself."""

    def __init__(self, port: int) -> None:
        self._channel = grpc.insecure_channel(f"127.0.0.1:{port}", options=_CHANNEL_OPTIONS)
        self._call: Any = self._channel.unary_unary(EXPORT_METHOD)

    def export(self, body: bytes, timeout_s: float) -> Answer:
        try:
            return _rejection(self._call(body, timeout=timeout_s))
        except grpc.RpcError as error:
            code, details = error.code(), error.details() or ""
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return DEADLINE
        if code in _RETRYABLE_GRPC:
            return REFUSED
        return f"{WRONG}: {code} {details[:200]}"

    def close(self) -> None:
        self._channel.close()


def _wire(is_http: bool, ports: Ports) -> Wire:
    return HttpWire(ports.http) if is_http else GrpcWire(ports.grpc)


def _rejection(content: bytes) -> Answer:
    response = ExportTraceServiceResponse.FromString(content)
    if response.partial_success.rejected_spans:
        return f"{WRONG}: {response.partial_success.error_message}"
    return None
