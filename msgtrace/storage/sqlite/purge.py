"""Delete expired spans from a SQLite file, in transactions of a few milliseconds.

Each step takes the oldest traces that begin before the edge, so nothing needs to be remembered
between steps, or between a kill and the next start.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import msgspec

from msgtrace.model.batch import TraceKey
from msgtrace.model.maintenance import Purged
from msgtrace.model.span import Row, TenantId, TraceId
from msgtrace.model.units import NS_PER_DAY
from msgtrace.storage.recompute import SUMMED_COLUMNS, summarize_stored, take_usage
from msgtrace.storage.sqlite.connection import translated_write_errors, write_transaction
from msgtrace.storage.sqlite.operations import DELETE_BEFORE
from msgtrace.storage.sqlite.writer import insert_usage
from msgtrace.storage.summary import TRACE_COLUMNS, trace_row
from msgtrace.storage.usage import KEPT_USAGE, by_trace

STEP_SPANS = 500
"""Spans that one transaction deletes: the write lock is held for a few milliseconds."""

STEP_TRACES = 250
"""Traces that one transaction looks at."""

STEP_PAGES = 256
"""Pages that one transaction moves when it gives space back."""

FREE_SHARE = 0.1
"""Part of a file that may be free: space that what comes next will take."""

INCREMENTAL = 2
"""PRAGMA auto_vacuum of a file that can give space back bit by bit."""

_TENANTS = "SELECT tenant_id FROM tenants ORDER BY tenant_id"

_OLDEST = """
SELECT tenant_id, trace_id, end_time_ns, span_count FROM traces
WHERE tenant_id = ? AND start_time_ns < ? ORDER BY start_time_ns LIMIT ?
"""

_DELETE_SOME = """
DELETE FROM spans WHERE rowid IN (
    SELECT rowid FROM spans WHERE tenant_id = ? AND trace_id = ? AND start_time_ns < ? LIMIT ?
)
"""

_DELETE_EXPIRED = """
DELETE FROM spans WHERE tenant_id = ? AND trace_id IN ({marks}) AND start_time_ns < ?
"""

_DELETE_TRACES = "DELETE FROM traces WHERE tenant_id = ? AND trace_id IN ({marks})"

_KEPT_SPANS = f"""
SELECT {", ".join(SUMMED_COLUMNS)} FROM spans WHERE tenant_id = ? AND trace_id = ?
"""  # noqa: S608 - built from constants

_INSERT_TRACE = (
    f"INSERT INTO traces ({', '.join(TRACE_COLUMNS)})"  # noqa: S608 - built from constants
    f" VALUES ({', '.join('?' * len(TRACE_COLUMNS))})"
)


def list_tenants(connection: sqlite3.Connection) -> list[int]:
    """All tenants."""
    return [tenant_id for (tenant_id,) in connection.execute(_TENANTS)]


def purge_step(connection: sqlite3.Connection, tenant_id: int, before_ns: int) -> Purged | None:
    """Delete some of what begins before `before_ns`, None if there is nothing."""
    with translated_write_errors(), write_transaction(connection):
        rows = connection.execute(_OLDEST, (tenant_id, before_ns, STEP_TRACES)).fetchall()
        if not rows:
            return None
        _, trace_id, _, span_count = rows[0]
        if span_count > STEP_SPANS:
            values = (tenant_id, trace_id, before_ns, STEP_SPANS)
            deleted = connection.execute(_DELETE_SOME, values).rowcount
            if deleted == STEP_SPANS:  # its summary goes, or shrinks, with the last of them
                return Purged(spans=deleted)
            return Purged(spans=deleted) + _finish(connection, rows[:1], before_ns)
        return _finish(connection, _as_many_as_fit(rows), before_ns)


def purge_operations(connection: sqlite3.Connection, before_ns: int) -> None:
    """Delete the operations of which all days are before `before_ns`."""
    with translated_write_errors(), write_transaction(connection):
        connection.execute(DELETE_BEFORE, (before_ns // NS_PER_DAY,))


def give_back_step(connection: sqlite3.Connection, keep_share: float) -> int:
    """Move some free pages to the end of the file and cut them off; return by how many it shrank.

    0 when no more than `keep_share` of the file is free, or the file was not made for it.
    """
    (mode,) = connection.execute("PRAGMA auto_vacuum").fetchone()
    (free,) = connection.execute("PRAGMA freelist_count").fetchone()
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    excess = free - int(pages * keep_share)
    if mode != INCREMENTAL or excess <= 0:
        return 0
    with translated_write_errors():
        # Each row that is fetched moves a page, and `execute` would not fetch rows without columns.
        connection.executescript(f"PRAGMA incremental_vacuum({min(excess, STEP_PAGES)})")
    (left,) = connection.execute("PRAGMA page_count").fetchone()
    return int(pages - left)


def _as_many_as_fit(rows: Sequence[Row]) -> Sequence[Row]:
    """The first rows with STEP_SPANS spans together."""
    spans = 0
    for position, row in enumerate(rows):
        spans += row[3]
        if spans > STEP_SPANS:
            return rows[:position]
    return rows


def _finish(connection: sqlite3.Connection, rows: Sequence[Row], before_ns: int) -> Purged:
    """Delete the expired spans of these traces, then their summaries, or make these anew."""
    tenant_id = rows[0][0]
    trace_ids = [row[1] for row in rows]
    marks = ", ".join("?" * len(rows))
    deleted = connection.execute(
        _DELETE_EXPIRED.format(marks=marks), (tenant_id, *trace_ids, before_ns)
    ).rowcount
    kept = by_trace(
        connection.execute(
            KEPT_USAGE.format(members=f"IN ({marks})"), (tenant_id, *trace_ids, before_ns)
        )
    )
    connection.execute(_DELETE_TRACES.format(marks=marks), (tenant_id, *trace_ids))
    shortened = 0
    for _, trace_id, end_ns, _ in rows:
        if end_ns >= before_ns:
            key = TenantId(tenant_id), TraceId(trace_id)
            shortened += _summarize_again(connection, key, kept.get(key, []))
    return Purged(spans=deleted, traces=len(rows) - shortened, shortened=shortened)


def _summarize_again(connection: sqlite3.Connection, key: TraceKey, usage: list[Row]) -> bool:
    """Write the summary of the spans that are left; False if there are none.

    usage: what they state of tokens and cost.
    """
    delta = summarize_stored(connection.execute(_KEPT_SPANS, key)).get(key)
    if delta is None:
        return False
    take_usage(delta, usage)
    row = trace_row(key, delta, lambda texts: msgspec.json.encode(texts).decode())
    connection.execute(_INSERT_TRACE, row)
    insert_usage(connection, usage)
    return True
