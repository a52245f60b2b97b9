"""`make fuzz` finds what is wrong: faults, crashes, and inputs that take too long or too much."""

from __future__ import annotations

import faulthandler
import os
import signal
import time
from collections.abc import Callable

import pytest

from tests.fuzz import watched
from tests.fuzz.long import fuzz
from tests.fuzz.targets import TARGETS, Target
from tests.fuzz.watched import Report, run_watched


def found(run: Callable[[bytes], str | None]) -> Report:
    """What is found in a moment, of inputs that are at fault when they hold an x."""

    def at_x(body: bytes) -> str | None:
        return run(body) if b"x" in body else None

    return run_watched(Target(run=at_x, corpus=[b"a", b"axa"]), seconds=0.3, seed="1")


class Panic(BaseException):
    """As what a panic of the native decoder becomes: no Exception."""


def panic(_: bytes) -> None:
    raise Panic


def crash(_: bytes) -> None:
    faulthandler.disable()  # it would print where, into the tests' own output
    os.kill(os.getpid(), signal.SIGSEGV)


def hang(_: bytes) -> None:
    time.sleep(60)


def work(_: bytes) -> None:
    until = time.thread_time() + 0.05
    while time.thread_time() < until:
        pass


def hold(body: bytes) -> None:
    HELD.append(b"h" * 1_000_000)


HELD: list[bytes] = []


def test_a_short_run_over_everything_finds_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert fuzz(0.1 * len(TARGETS), seed=1, names=list(TARGETS)), capsys.readouterr().out

    printed = capsys.readouterr().out
    assert all(f"{name}: " in printed for name in TARGETS)


def test_a_panic_is_found_with_the_smallest_input_that_makes_it() -> None:
    report = found(panic)

    [(fault, body)] = report.faults.items()
    assert "Panic" in fault
    assert body == b"x"
    assert report.outcomes["at fault"] > 1
    assert report.outcomes["taken"] > 1


def test_an_input_that_ends_the_process_is_found() -> None:
    [(fault, body)] = found(crash).faults.items()

    assert fault == f"the process ended with {-signal.SIGSEGV}"
    assert b"x" in body


def test_an_input_that_hangs_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watched, "HANG_S", 0.3)
    [(fault, body)] = found(hang).faults.items()

    assert fault == f"the process ended with {-signal.SIGKILL}"
    assert b"x" in body


def test_an_input_that_takes_too_long_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watched, "SLOW_S", 0.02)
    [(fault, body)] = found(work).faults.items()

    assert fault == "took too long"
    assert b"x" in body


def test_memory_that_is_not_given_back_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watched, "MAX_GROWTH_BYTES", 50_000_000)

    assert found(hold).faults
