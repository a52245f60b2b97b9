"""The proof through the database itself: nothing lost, nothing twice, every total right.

Spans and summaries are read in one snapshot, so that an audit may run under load. A summary is
right if it is what `storage.recompute` makes of the stored spans of its trace.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import asyncpg

from msgtrace.model.span import Row
from msgtrace.storage.recompute import (
    SUMMED_COLUMNS,
    drifted_columns,
    plain_trace,
    summarize_stored,
)
from msgtrace.storage.summary import TRACE_COLUMNS
from tests.faults.load import Load, SpanKey

_SPANS = f"SELECT {', '.join(SUMMED_COLUMNS)} FROM spans"
_TRACES = f"SELECT {', '.join(TRACE_COLUMNS)} FROM traces"

_SHOWN = 5


@dataclass
class Audit:
    """What was found. `problems` says it in words, the first few of each kind."""

    acknowledged: int = 0
    stored: int = 0
    traces: int = 0
    lost: int = 0
    duplicated: int = 0
    unknown: int = 0
    wrong_totals: int = 0
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.acknowledged} acknowledged, {self.stored} stored in {self.traces} traces:"
            f" {self.lost} lost, {self.duplicated} duplicated, {self.unknown} never sent,"
            f" {self.wrong_totals} wrong totals"
        )

    @property
    def is_clean(self) -> bool:
        return not (self.lost or self.duplicated or self.unknown or self.wrong_totals)

    def require_clean(self) -> None:
        assert self.is_clean, "\n".join([str(self), *self.problems])


def audit(database_url: str, load: Load, *, kept_since_ns: int = 0) -> Audit:
    """Compare what the senders know with what the database holds.

    kept_since_ns: spans that start before it are to be gone.
    """
    acknowledged = {key for key in load.snapshot()[0] if key[3] >= kept_since_ns}
    spans, traces = _read(database_url)
    sent = {key for key in load.sent_now() if key[3] >= kept_since_ns}
    found = Audit(acknowledged=len(acknowledged), stored=len(spans), traces=len(traces))
    keys = Counter(_key(row) for row in spans)
    found.lost = _note(found, "lost", acknowledged - keys.keys())
    found.duplicated = _note(found, "duplicated", [key for key, n in keys.items() if n > 1])
    found.unknown = _note(found, "never sent", keys.keys() - sent)
    found.wrong_totals = _note(found, "wrong total", _wrong_totals(spans, traces))
    return found


def check_integrity(path: str) -> None:
    """SQLite's own opinion of the file."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def _note(found: Audit, what: str, each: Iterable[Any]) -> int:
    listed = list(each)
    found.problems += [f"{what}: {one!r}" for one in listed[:_SHOWN]]
    return len(listed)


def _key(row: Row) -> SpanKey:
    return row[0], row[1], row[2], row[4]


def _wrong_totals(spans: list[Row], traces: list[Row]) -> list[str]:
    expected = summarize_stored(spans)
    stored = {(row[0], row[1]): row for row in traces}
    wrong = [f"summary without spans {key!r}" for key in stored.keys() - expected.keys()]
    wrong += [f"spans without summary {key!r}" for key in expected.keys() - stored.keys()]
    for key in expected.keys() & stored.keys():
        different = drifted_columns(stored[key], key, expected[key])
        wrong += [f"{key[1].hex()}: {', '.join(different)}"] if different else []
    return wrong


def _read(database_url: str) -> tuple[list[Row], list[Row]]:
    if database_url.startswith("sqlite"):
        spans, traces = _read_sqlite(database_url.removeprefix("sqlite:///"))
        return spans, [plain_trace(row, json.loads) for row in traces]
    spans, traces = asyncio.run(_read_postgres(database_url))
    return spans, [plain_trace(row, list) for row in traces]


def _read_sqlite(path: str) -> tuple[list[Row], list[Row]]:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None, timeout=30)) as connection:
        connection.execute("BEGIN")
        spans = connection.execute(_SPANS).fetchall()
        return spans, connection.execute(_TRACES).fetchall()


async def _read_postgres(url: str) -> tuple[list[Row], list[Row]]:
    connection = await asyncpg.connect(url, timeout=30)
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            spans = [tuple(row) for row in await connection.fetch(_SPANS)]
            return spans, [tuple(row) for row in await connection.fetch(_TRACES)]
    finally:
        await connection.close()
