"""What the log shows: our events and fields, and nothing that a sender wrote."""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import asyncpg
import pytest

from msgtrace.errors import StorageError
from msgtrace.settings.table import Settings
from msgtrace.telemetry.logs import ConsoleFormatter, JsonFormatter, configure_logging

FORMATTERS = [ConsoleFormatter(), JsonFormatter()]

every_formatter = pytest.mark.parametrize(
    "formatter", FORMATTERS, ids=lambda formatter: type(formatter).__name__
)


def make_record(
    event: str = "batch_written", error: BaseException | None = None, **fields: Any
) -> Any:
    exc_info = None if error is None else (type(error), error, error.__traceback__)
    record = logging.LogRecord("msgtrace.test", logging.WARNING, "", 0, event, None, exc_info)
    vars(record).update(fields)
    return record


def raised(error: Exception, cause: Exception | None = None) -> Exception:
    """The error as it is caught: with a traceback, and from its cause."""
    try:
        try:
            if cause is not None:
                raise cause
        except Exception as reason:
            raise error from reason
        raise error
    except Exception as caught:  # noqa: BLE001 - that is the point
        return caught


@every_formatter
@pytest.mark.parametrize(
    "foreign",
    [
        sqlite3.IntegrityError("secret prompt"),
        asyncpg.NotNullViolationError("secret prompt"),
        UnicodeDecodeError("utf-8", b"secret prompt", 0, 1, "secret prompt"),
        KeyError("secret prompt"),
        ExceptionGroup("secret prompt", [ValueError("secret prompt")]),
    ],
    ids=lambda error: type(error).__name__,
)
def test_the_text_of_a_foreign_error_is_not_shown_but_its_type_is(
    formatter: logging.Formatter, foreign: Exception
) -> None:
    for error in (raised(foreign), raised(StorageError("ours"), foreign)):
        shown = formatter.format(make_record(error=error))

        assert "secret" not in shown
        assert type(foreign).__qualname__ in shown


@every_formatter
def test_the_text_of_our_error_is_shown_with_where_it_was_raised(
    formatter: logging.Formatter,
) -> None:
    error = raised(StorageError("SQLite refused"), ValueError("secret"))

    shown = formatter.format(make_record(error=error))

    assert "msgtrace.errors.StorageError: SQLite refused" in shown
    assert "in raised" in shown
    assert "ValueError" in shown


@every_formatter
def test_the_text_of_an_error_behind_a_suppressed_one_is_not_shown(
    formatter: logging.Formatter,
) -> None:
    secret = ValueError("secret")
    try:
        try:
            raise secret
        except ValueError:
            raise StorageError("ours") from None
    except StorageError as error:
        shown = formatter.format(make_record(error=error))

    assert "ValueError: " not in shown


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"spans": 3, "took_ms": 1.5, "is_new": True, "nothing": None},
        {"text": 'a "quoted"\nline\0 ␀ é', "odd": "\u2028"},
        {"object": Settings, "bytes": b"\xff", "nan": float("nan"), "cause": ValueError("x")},
        {"list": [1, {"a": (2,)}]},
    ],
)
def test_a_json_line_parses_and_has_every_field(fields: dict[str, Any]) -> None:
    line = JsonFormatter().format(make_record("some_event", **fields))

    assert "\n" not in line
    entry = json.loads(line)
    assert entry.keys() == {"time", "level", "event", "logger"} | fields.keys()
    assert (entry["level"], entry["event"], entry["logger"]) == (
        "warning",
        "some_event",
        "msgtrace.test",
    )
    assert datetime.fromisoformat(entry["time"]).tzinfo is not None
    plain = {name: value for name, value in fields.items() if isinstance(value, str | int | None)}
    assert entry | plain == entry


def test_a_json_line_with_an_error_is_still_one_line() -> None:
    line = JsonFormatter().format(make_record(error=raised(StorageError("ours"))))

    assert "\n" not in line
    assert "StorageError: ours" in json.loads(line)["exception"]


def test_a_console_line_has_the_event_and_its_fields() -> None:
    line = ConsoleFormatter().format(make_record("started", host="127.0.0.1", port=4318))

    clock, rest = line.split(" ", 1)
    assert len(clock) == len("12:00:00")
    assert rest == "warning started host=127.0.0.1 port=4318"


@pytest.mark.parametrize("text", ["two\nlines", "return\rto start", "clear\x1b[2J", "next\x85line"])
def test_a_field_cannot_begin_a_line_or_move_the_cursor(text: str) -> None:
    shown = ConsoleFormatter().format(make_record(reason=text))

    assert shown.isprintable()
    assert repr(text) in shown


@pytest.fixture
def restored_logging() -> Iterator[None]:
    root, uvicorn = logging.getLogger(), logging.getLogger("uvicorn")
    before = root.handlers[:], root.level, uvicorn.level
    yield
    root.handlers[:], root.level, uvicorn.level = before


@pytest.mark.usefixtures("restored_logging")
@pytest.mark.parametrize("log_format", ["console", "json"])
def test_the_log_goes_to_standard_error_from_its_level_on(
    capsys: pytest.CaptureFixture[str], log_format: str
) -> None:
    configure_logging(Settings(log_level="warning", log_format=log_format))
    logging.getLogger("msgtrace.test").info("quiet")
    logging.getLogger("msgtrace.test").warning("loud", extra={"spans": 2})

    out, err = capsys.readouterr()

    assert out == ""
    assert "quiet" not in err
    [line] = err.splitlines()
    if log_format == "json":
        assert json.loads(line)["spans"] == 2
    else:
        assert line.endswith("loud spans=2")
