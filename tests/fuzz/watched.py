"""Try out inputs in a process of their own, which may crash, hang or grow without ending the run.

The input at hand lies in memory that both processes share, so that it is known whatever ends the
one that tries it.
"""

from __future__ import annotations

import contextlib
import mmap
import multiprocessing
import random
import resource
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection

from tests.fuzz.batches import NATIVELY, TAKEN
from tests.fuzz.mutations import MAX_BYTES
from tests.fuzz.targets import Target

SLOW_S = 2.0
"""CPU time that an input of at most two mebibytes may take."""

HANG_S = 60.0
"""After so long on one input the process is ended."""

LOOK_S = 0.2
"""How often one looks whether it is still the same one."""

MAX_GROWTH_BYTES = 512 * 1024 * 1024
"""Memory that a process may take beyond what it had before the first input."""

MAX_CORPUS = 400
MAX_KEPT_BYTES = 20_000

KEPT_SHARE = 0.05
"""Inputs that join the corpus, so that damage adds up, of those that were taken."""

SHRINKING_TRIES = 2_000

_HEAD_BYTES = 16


@dataclass
class Report:
    """What came of one target.

    outcomes: how many inputs were taken, refused and the like. faults: what went wrong, once each,
    with a small input that makes it.
    """

    inputs: int = 0
    cpu_s: float = 0.0
    outcomes: Counter[str] = field(default_factory=Counter)
    faults: dict[str, bytes] = field(default_factory=dict)
    slowest_s: float = 0.0
    slowest: bytes = b""
    growth_bytes: int = 0


class _Desk:
    """The input at hand and its number, shared between two processes."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _HEAD_BYTES + MAX_BYTES)

    def put(self, number: int, body: bytes) -> None:
        self._memory[:_HEAD_BYTES] = number.to_bytes(8) + len(body).to_bytes(8)
        self._memory[_HEAD_BYTES : _HEAD_BYTES + len(body)] = body

    def number(self) -> int:
        return int.from_bytes(self._memory[:8])

    def body(self) -> bytes:
        size = int.from_bytes(self._memory[8:_HEAD_BYTES])
        return self._memory[_HEAD_BYTES : _HEAD_BYTES + size]


class _Run:
    def __init__(self, target: Target, chance: random.Random, desk: _Desk) -> None:
        self._target, self._chance, self._desk = target, chance, desk
        self._corpus = list(target.corpus)
        self._start_bytes = _peak_bytes()
        self.report = Report()

    def for_seconds(self, seconds: float) -> Report:
        until, started = time.monotonic() + seconds, time.process_time()
        while time.monotonic() < until:
            self._step()
        self.report.cpu_s = time.process_time() - started
        self.report.growth_bytes = _peak_bytes() - self._start_bytes
        if self.report.growth_bytes > MAX_GROWTH_BYTES:
            self.report.faults["took too much memory"] = b""
        if self.report.slowest_s > SLOW_S:
            self.report.faults["took too long"] = self.report.slowest
        return self.report

    def _step(self) -> None:
        chance, report = self._chance, self.report
        # The smaller of two: more of the time goes to what is tried, less to copying.
        known = min(chance.choice(self._corpus), chance.choice(self._corpus), key=len)
        body = self._target.mutate(chance, known, self._corpus)
        report.inputs += 1
        self._desk.put(report.inputs, body)
        started = time.thread_time()
        outcome = try_out(self._target, body)
        took_s = time.thread_time() - started
        if took_s > report.slowest_s:
            report.slowest_s, report.slowest = took_s, body
        if outcome.startswith(FAULT):
            if outcome not in report.faults:
                report.faults[outcome] = shrunk(self._target, body, outcome, chance)
            outcome = "at fault"
        elif outcome in (TAKEN, NATIVELY) and chance.random() < KEPT_SHARE:
            self._keep(body)
        report.outcomes[outcome] += 1

    def _keep(self, body: bytes) -> None:
        if len(body) > MAX_KEPT_BYTES:
            return
        if len(self._corpus) < MAX_CORPUS:
            self._corpus.append(body)
        else:
            known = len(self._target.corpus)
            self._corpus[self._chance.randrange(known, max(known + 1, MAX_CORPUS))] = body


FAULT = "fault: "


def try_out(target: Target, body: bytes) -> str:
    """What became of an input; what begins with FAULT should not have."""
    try:
        return target.try_out(body)
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001 - every one; a panic of the native decoder is no Exception
        lines = traceback.format_exc().strip().splitlines()
        return FAULT + "\n".join(lines[-3:])


def shrunk(target: Target, body: bytes, outcome: str, chance: random.Random) -> bytes:
    """A smaller input with the same outcome, found by damaging it further."""
    for _ in range(SHRINKING_TRIES):
        smaller = target.mutate(chance, body, [body])
        if len(smaller) < len(body) and try_out(target, smaller) == outcome:
            body = smaller
    return body


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def run_watched(target: Target, *, seconds: float, seed: str) -> Report:
    """Try out a target for so long. What ends the process is a fault, and ends the run."""
    desk = _Desk()
    fork = multiprocessing.get_context("fork")  # so that the desk is shared
    receiving, sending = fork.Pipe(duplex=False)
    process = fork.Process(target=_try_out_apart, args=(target, seconds, seed, desk, sending))
    with warnings.catch_warnings():
        # A process with threads may hold locks when it is forked. pytest's has some, of which
        # nothing here needs any.
        warnings.simplefilter("ignore", DeprecationWarning)
        process.start()
    sending.close()
    with contextlib.closing(receiving):
        for _ in _waits(process, desk):
            if receiving.poll(LOOK_S):
                break
        try:
            report: Report = receiving.recv()
        except EOFError:
            report = Report(inputs=desk.number())
            report.faults[f"the process ended with {_ended(process)}"] = desk.body()
        process.join()
    return report


def _waits(process: multiprocessing.process.BaseProcess, desk: _Desk) -> Iterator[None]:
    """As often as one looks; ends the process when it stays with one input for too long."""
    number, since = desk.number(), time.monotonic()
    while True:
        yield
        if desk.number() != number:
            number, since = desk.number(), time.monotonic()
        elif time.monotonic() - since > HANG_S:
            process.kill()


def _ended(process: multiprocessing.process.BaseProcess) -> int | None:
    process.join(HANG_S)
    return process.exitcode


def _try_out_apart(
    target: Target, seconds: float, seed: str, desk: _Desk, sending: Connection
) -> None:
    limit = _peak_bytes() + 8 * MAX_GROWTH_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    sending.send(_Run(target, random.Random(seed), desk).for_seconds(seconds))
