"""Senders that never give up, and know exactly what was acknowledged.

Several threads, half of them over HTTP, half over gRPC. Each sends a request until it is
acknowledged, at last after everything that a fault may do to it, and only then the next. Some
requests are sent again on purpose, some spans travel in two requests. What a request holds follows
from its number (`supply`), so a sender need not remember more than how far it came.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from tests.end_to_end.processes import Ports
from tests.faults.supply import LAST_EPOCH, Supply
from tests.faults.wires import WRONG, Wire, wire_to

PAUSE_S = (0.1, 0.3)
"""Before a refused request is sent again."""

PATIENCE_S = 45.0
"""How long a sender may take after a fault to get an answer of success."""

RESENT_SHARE = 0.15
TWICE_SHARE = 0.03
"""Of requests that also hold all spans of the one before."""


@dataclass
class Sent:
    """How far one sender came. Its requests are numbered from 0, without gaps.

    first_serials: of each epoch. padded: requests of another size.
    """

    begun: int = 0
    acknowledged: int = 0
    first_serials: list[int] = field(default_factory=list)
    padded: set[int] = field(default_factory=set)

    def serials(self, epoch: int | None) -> range:
        """The requests of one epoch, or all, that were acknowledged."""
        if epoch is None:
            return range(self.acknowledged)
        known = self.acknowledged
        first, end, *_ = [*self.first_serials[epoch : epoch + 2], known, known]
        return range(first, min(end, known))

    def copy(self) -> Sent:
        return Sent(self.begun, self.acknowledged, list(self.first_serials), set(self.padded))


@dataclass
class Load:
    """What all senders share."""

    targets: Sequence[Ports]
    seed: int
    senders: int = 6
    pace_s: float = 0.004
    is_race: bool = False
    """Whether each request goes to all targets at the same time."""
    most_spans: int = 6
    """Spans in one request."""

    acknowledged_spans: int = 0
    requests: int = 0
    resent: int = 0
    troubles: Counter[str] = field(default_factory=Counter)
    wrong_answers: list[str] = field(default_factory=list)
    deadlines_s: tuple[float, float] = (20.0, 20.0)
    is_paused: bool = False
    is_padded: bool = False
    """Whether new requests are large, to fill a disk."""
    epoch: int = 0
    """What is sent in different epochs is in different traces, and can be audited by itself."""
    supply: Supply = field(init=False)
    _sent: list[Sent] = field(init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stopping: threading.Event = field(default_factory=threading.Event)
    _last_success: dict[int, float] = field(default_factory=dict)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.supply = Supply(self.seed, self.most_spans, time.time_ns())
        self._sent = [Sent() for _ in range(self.senders)]

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

    def begin_epoch(self) -> int:
        """Senders begin new traces with their next requests; return the epoch before."""
        before = self.epoch
        self.epoch = min(before + 1, LAST_EPOCH)
        return before

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

    def snapshot(self) -> list[Sent]:
        """How far each sender came up to now."""
        with self._lock:
            return [each.copy() for each in self._sent]

    def summary(self) -> str:
        troubles = ", ".join(f"{name} {count}" for name, count in sorted(self.troubles.items()))
        return (
            f"{self.requests} requests with {self.acknowledged_spans} spans acknowledged,"
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
        wires = [wire_to(ports, is_http=number % 2 == 0) for ports in self.targets]
        previous = b""
        with ThreadPoolExecutor(len(wires)) as pool:
            while not self._stopping.is_set():
                if self.is_paused:
                    time.sleep(0.05)
                    continue
                body = self._begin_request(number)
                # Protobuf: two messages one after the other are one with the lists of both.
                sent = body + previous if chance.random() < TWICE_SHARE else body
                self._send(chance, pool, wires, sent)
                self._end_request(number)
                if chance.random() < RESENT_SHARE:
                    self.resent += 1
                    self._send(chance, pool, wires, body)
                self._last_success[number] = time.monotonic()
                previous = body
                time.sleep(self.pace_s)
        for wire in wires:
            wire.close()

    def _begin_request(self, number: int) -> bytes:
        sent = self._sent[number]
        with self._lock:
            epoch, is_padded, serial = self.epoch, self.is_padded, sent.begun
            while len(sent.first_serials) <= epoch:
                sent.first_serials.append(serial)
            if is_padded:
                sent.padded.add(serial)
            sent.begun += 1
        return self.supply.body(number, epoch, serial, is_padded=is_padded)

    def _end_request(self, number: int) -> None:
        sent = self._sent[number]
        with self._lock:
            serial = sent.acknowledged
            sent.acknowledged += 1
            self.requests += 1
            self.acknowledged_spans += self.supply.span_count(
                number, serial, is_padded=serial in sent.padded
            )

    def _send(
        self, chance: random.Random, pool: ThreadPoolExecutor, wires: Sequence[Wire], body: bytes
    ) -> None:
        if self.is_race:
            chances = [random.Random(chance.random()) for _ in wires]
            list(pool.map(self._send_to, chances, wires, [body] * len(wires)))
        else:
            self._send_to(chance, chance.choice(wires), body)

    def _send_to(self, chance: random.Random, wire: Wire, body: bytes) -> None:
        while (trouble := wire.export(body, chance.uniform(*self.deadlines_s))) is not None:
            kind, _, detail = trouble.partition(": ")
            with self._lock:
                self.troubles[kind] += 1
                if kind == WRONG and len(self.wrong_answers) < 20:
                    self.wrong_answers.append(detail)
            time.sleep(chance.uniform(*PAUSE_S))
