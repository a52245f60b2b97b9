"""msgtrace's own log.

An event name and fields, one line each, for people or for programs. Never span contents.
"""

from __future__ import annotations

import logging
import sys
import traceback
from datetime import UTC, datetime
from typing import Any

import msgspec

from msgtrace.errors import MsgtraceError
from msgtrace.settings import Settings

_OWN_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def configure_logging(settings: Settings) -> None:
    """Log to standard error as the settings say; standard output stays free for results."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if settings.log_format == "json" else ConsoleFormatter())
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler], force=True)


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
    """`12:00:00 info    collector_started host=127.0.0.1 grpc_port=4317`."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, and the traceback if there is one."""
        fields = "".join(f" {name}={value}" for name, value in _fields(record).items())
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


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in vars(record).items() if name not in _OWN_FIELDS}
