"""msgtrace's own log.

An event name and fields, one line each, for people or for programs. Never span contents.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
import traceback
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import msgspec

from msgtrace.errors import MsgtraceError
from msgtrace.settings.table import Settings

REPEATS = 10
REPEATS_WINDOW_S = 10.0
"""An event of one level is logged so many times within this time; the rest is counted."""

_OWN_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


logger = logging.getLogger(__name__)


def configure_logging(settings: Settings, *, worker: int | None = None) -> None:
    """Log to standard error as the settings say; standard output stays free for results.

    worker: its number, which each line then carries, if the process is one of several.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if settings.log_format == "json" else ConsoleFormatter())
    if worker is not None:
        handler.addFilter(_WorkerNumber(worker))
    handler.addFilter(RepeatLimit(handler))
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler], force=True)
    # Its lines about starting and stopping say what ours say, once for each port.
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    # gRPC writes past this log, and by default a line for each TLS handshake that fails.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")


def log_started(
    settings: Settings, service: str, database: str, **details: int | str | None
) -> None:
    """The one line of a start. service: the command; database: the backend in use.

    details: ports and the like; None for what there is not, of which nothing is said.
    """
    logger.info(
        "started",
        extra={
            "service": service,
            "version": version("msgtrace"),
            "database": database,
            "host": settings.host,
            **{name: detail for name, detail in details.items() if detail is not None},
        },
    )


class _WorkerNumber(logging.Filter):
    def __init__(self, number: int) -> None:
        super().__init__()
        self._number = number

    def filter(self, record: logging.LogRecord) -> bool:
        """Give the record its worker."""
        record.worker = self._number
        return True


class RepeatLimit(logging.Filter):
    """Lets an event through `count` times in `window_s`, and then says how many were held back.

    Events are told apart by name and level, not by their fields. Once the window is over, one line
    with `suppressed=n` is given to `handler`, and the event may be logged again.
    """

    def __init__(
        self,
        handler: logging.Handler,
        *,
        count: int = REPEATS,
        window_s: float = REPEATS_WINDOW_S,
    ) -> None:
        super().__init__()
        self._handler = handler
        self._count = count
        self._window_s = window_s
        self._lock = threading.Lock()
        self._windows: dict[tuple[str, int], _Window] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is to be logged."""
        if hasattr(record, "suppressed"):
            return True
        key = (str(record.msg), record.levelno)
        with self._lock:
            window = self._windows.get(key)
            if window is None or window.is_over():
                window = self._windows[key] = _Window(time.monotonic() + self._window_s)
            window.seen += 1
            if window.seen == self._count + 1:
                self._close_later(key, window, record)
            return window.seen <= self._count

    def _close_later(
        self, key: tuple[str, int], window: _Window, record: logging.LogRecord
    ) -> None:
        timer = threading.Timer(window.left_s(), self._close, (key, window, record.name))
        timer.daemon = True
        timer.start()

    def _close(self, key: tuple[str, int], window: _Window, logger_name: str) -> None:
        with self._lock:
            if self._windows.get(key) is window:
                del self._windows[key]
        event, level = key
        record = logging.LogRecord(logger_name, level, "", 0, event, None, None)
        record.suppressed = window.seen - self._count
        self._handler.handle(record)


@dataclass(slots=True)
class _Window:
    ends_at: float
    seen: int = 0

    def is_over(self) -> bool:
        return self.left_s() <= 0

    def left_s(self) -> float:
        return self.ends_at - time.monotonic()


class _SafeFormatter(logging.Formatter):
    """Formats exceptions without their texts, except our own.

    A driver's or codec's may quote what a sender sent.
    """

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name
        """Where it happened and of what type, for the exception and its causes."""
        lines: list[str] = []
        error: BaseException | None = ei[1]
        while error is not None:
            text = f": {error}" if isinstance(error, MsgtraceError) else ""
            lines.append(f"{type(error).__module__}.{type(error).__qualname__}{text}")
            lines += [line.rstrip() for line in traceback.format_tb(error.__traceback__)]
            error = error.__cause__ or error.__context__
        return "\n".join(lines)


class ConsoleFormatter(_SafeFormatter):
    """`12:00:00 info    started service=collector host=127.0.0.1 grpc_port=4317`."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, and the traceback if there is one."""
        fields = "".join(f" {name}={_one_line(value)}" for name, value in _fields(record).items())
        clock = f"{datetime.fromtimestamp(record.created):%H:%M:%S}"  # noqa: DTZ006 - people read their own clock
        line = f"{clock} {record.levelname.lower():<7} {record.getMessage()}{fields}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JsonFormatter(_SafeFormatter):
    """`{"time": …, "level": "info", "event": …, …fields}`."""

    def format(self, record: logging.LogRecord) -> str:
        """One JSON object."""
        entry: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            "logger": record.name,
        } | _fields(record)
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(entry, enc_hook=str).decode()


def _one_line(value: Any) -> str:
    """The value as text that neither begins a line of its own nor moves the cursor."""
    text = str(value)
    return text if text.isprintable() else repr(text)


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in vars(record).items() if name not in _OWN_FIELDS}
