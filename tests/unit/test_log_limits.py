"""Repeated events are counted instead of written, and the count is told."""

from __future__ import annotations

import io
import json
import logging
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from msgtrace.settings.table import Settings
from msgtrace.telemetry.logs import REPEATS, RepeatLimit, configure_logging

WINDOW_S = 0.1


class Lines(logging.Handler):
    """Keeps what it was given as (event, suppressed)."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, int | None]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.seen.append((record.getMessage(), getattr(record, "suppressed", None)))


@pytest.fixture
def lines() -> Lines:
    return Lines()


@pytest.fixture
def log(lines: Lines) -> Iterator[logging.Logger]:
    """A logger with a limit of 3 in a tenth of a second."""
    logger = logging.getLogger("tests.limited")
    lines.addFilter(RepeatLimit(lines, count=3, window_s=WINDOW_S))
    logger.addHandler(lines)
    yield logger
    logger.removeHandler(lines)


def eventually(is_true: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 5
    while not is_true() and time.monotonic() < deadline:
        time.sleep(0.01)
    return is_true()


def test_a_repeated_event_is_written_some_times_and_then_counted(
    log: logging.Logger, lines: Lines
) -> None:
    for number in range(8):
        log.warning("refused", extra={"number": number})

    assert lines.seen == [("refused", None)] * 3
    assert eventually(lambda: len(lines.seen) > 3)
    assert lines.seen == [("refused", None)] * 3 + [("refused", 5)]


def test_after_the_window_the_event_is_written_again(log: logging.Logger, lines: Lines) -> None:
    for _ in range(4):
        log.warning("refused")
    assert eventually(lambda: ("refused", 1) in lines.seen)

    log.warning("refused")

    assert lines.seen == [*[("refused", None)] * 3, ("refused", 1), ("refused", None)]


def test_an_event_within_its_limit_is_never_counted(log: logging.Logger, lines: Lines) -> None:
    for _ in range(3):
        log.warning("refused")
    time.sleep(2 * WINDOW_S)

    assert lines.seen == [("refused", None)] * 3


def test_other_events_and_other_levels_have_limits_of_their_own(
    log: logging.Logger, lines: Lines
) -> None:
    for _ in range(3):
        log.warning("refused")
    log.error("refused")
    log.warning("unreachable")

    assert lines.seen[3:] == [("refused", None), ("unreachable", None)]


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_the_configured_log_is_limited(log_format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", root.level)
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)

    configure_logging(Settings(log_format=log_format))
    for _ in range(2 * REPEATS):
        logging.getLogger("tests.configured").warning("refused", extra={"reason": "overloaded"})

    written = stream.getvalue().splitlines()
    assert len(written) == REPEATS
    if log_format == "json":
        line = json.loads(written[0])
        assert (line["event"], line["reason"]) == ("refused", "overloaded")
    else:
        assert written[0].endswith("warning refused reason=overloaded")
