"""The proof through the database itself: nothing lost, nothing twice, every total right.

Spans and summaries are read in one snapshot, so that an audit may run under load. A summary is
right if it is what `model.batch.summarize` makes of the stored spans of its trace.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import sqlite3
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import asyncpg

from msgtrace.model.batch import TraceDelta, TraceKey, summarize
from msgtrace.model.genai import read_facts
from msgtrace.model.span import SPAN_COLUMNS, Row
from msgtrace.storage.summary import TRACE_COLUMNS, trace_row
from tests.faults.load import Load, SpanKey

_SPANS = f"SELECT {', '.join(SPAN_COLUMNS)} FROM spans"
_TRACES = f"SELECT {', '.join(TRACE_COLUMNS)} FROM traces"

_ATTRIBUTES = SPAN_COLUMNS.index("attributes")
_COST = TRACE_COLUMNS.index("cost")
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


def audit(database_url: str, load: Load) -> Audit:
    """Compare what the senders know with what the database holds."""
    acknowledged, _ = load.snapshot()
    spans, traces = _read(database_url)
    sent = load.sent_now()
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
    genai = {}
    for position, row in enumerate(spans):
        facts = read_facts(json.loads(row[_ATTRIBUTES] or "{}"))
        if facts is not None:
            genai[position] = facts
    expected = summarize(spans, genai)
    stored = {(row[0], row[1]): row for row in traces}
    wrong = [f"summary without spans {key!r}" for key in stored.keys() - expected.keys()]
    for key, delta in expected.items():
        wrong += _differences(key, delta, stored.get(key))
    return wrong


def _differences(key: TraceKey, delta: TraceDelta, row: Row | None) -> list[str]:
    if row is None:
        return [f"spans without summary {key!r}"]
    should = trace_row(key, delta, json.dumps)
    different = [
        f"{name} is {is_!r}, should be {must!r}"
        for position, (name, is_, must) in enumerate(zip(TRACE_COLUMNS, row, should, strict=True))
        if not (math.isclose(is_, must, abs_tol=1e-6) if position == _COST else is_ == must)
    ]
    return [f"{key[1].hex()}: {'; '.join(different)}"] if different else []


def _read(database_url: str) -> tuple[list[Row], list[Row]]:
    if database_url.startswith("sqlite"):
        spans, traces = _read_sqlite(database_url.removeprefix("sqlite:///"))
    else:
        spans, traces = asyncio.run(_read_postgres(database_url))
    return spans, [_plain(row) for row in traces]


def _plain(row: Row) -> Row:
    """The same whatever the backend: lists as JSON text, truth as bool."""
    services, models = (
        json.dumps(sorted(json.loads(column) if isinstance(column, str) else column))
        for column in row[-2:]
    )
    position = TRACE_COLUMNS.index("root_has_parent")
    return (*row[:position], bool(row[position]), *row[position + 1 : -2], services, models)


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
