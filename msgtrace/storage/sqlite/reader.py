"""How SQLite reads: its dialect, and one thread with a connection for each read that runs."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import msgspec

from msgtrace.model.span import Row
from msgtrace.model.trace import SpanPlace
from msgtrace.storage.reader import Statement
from msgtrace.storage.search import Condition, Dialect, is_spelled_alike, needle
from msgtrace.storage.span_stream import MAX_CHUNK_SPANS, filled_up
from msgtrace.storage.sqlite.connection import LETS_IN, ConnectionThread, open_reader

READERS = 4
"""Reads that run at the same time; further ones wait."""

_ATTRIBUTE = """instr({0}.attributes, ?) AND EXISTS (
    SELECT 1 FROM json_each({0}.attributes) a WHERE a.key = ? AND (
        CASE a.type
            WHEN 'text' THEN a.atom
            WHEN 'true' THEN 'true'
            WHEN 'false' THEN 'false'
            WHEN 'object' THEN coalesce(
                json_extract(a.value, '$."$int"'), json_extract(a.value, '$."$double"')
            )
        END = ?
        OR (a.type IN ('integer', 'real') AND a.atom = ?)
    )
)"""


def _attribute(table: str, key: str, value: str, number: float | None) -> Condition:
    return _ATTRIBUTE.format(table), (needle(key, value), key, value, number)


_STATS = """
SELECT count(*), count(*) FILTER (WHERE error_count > 0), sum(span_count), sum(error_count),
    sum(input_tokens), sum(output_tokens), sum(cost),
    sum(cached_tokens), sum(reasoning_tokens), sum(estimated_cost),
    min(duration_ns) FILTER (WHERE position * 100 >= total * 50),
    min(duration_ns) FILTER (WHERE position * 100 >= total * 95),
    min(duration_ns) FILTER (WHERE position * 100 >= total * 99)
FROM (
    SELECT t.span_count, t.error_count, t.input_tokens, t.output_tokens, t.cost, t.duration_ns,
        t.cached_tokens, t.reasoning_tokens, t.estimated_cost,
        row_number() OVER (ORDER BY t.duration_ns) AS position, count(*) OVER () AS total
    FROM traces t WHERE {where}
) AS matches
"""

_LISTED = "EXISTS (SELECT 1 FROM json_each({}) WHERE value = ?)"


def _listed(column: str, label: str) -> Condition:
    """The label is in a JSON array. Most arrays need not be taken apart to see that it is not."""
    listed = _LISTED.format(column)
    if not is_spelled_alike(label):
        return listed, (label,)
    return f"(instr({column}, ?) AND {listed})", (f'"{label}"', label)


def _and_listed(condition: str, column: str, label: str) -> Condition:
    """As `_listed`, where the cheaper condition holds, by which an index is known."""
    text, values = _listed(column, label)
    return f"{condition} AND {text}", values


_STRETCHES = """(
    SELECT near.* FROM json_each(?) f CROSS JOIN traces near
    WHERE near.tenant_id = ? AND near.start_time_ns
        BETWEEN json_extract(f.value, '$[0]') AND json_extract(f.value, '$[1]')
) AS t"""


def _spans_at(tenant_id: int, trace_id: bytes, places: Sequence[SpanPlace]) -> Condition:
    marks = ", ".join("?" * MAX_CHUNK_SPANS)
    ids = filled_up((place.span_id for place in places), MAX_CHUNK_SPANS)
    return (
        f"spans s WHERE s.tenant_id = ? AND s.trace_id = ? AND s.span_id IN ({marks})",
        (tenant_id, trace_id, *ids),
    )


def _stretches(tenant_id: int, stretches: Sequence[tuple[int, int]]) -> Condition:
    return _STRETCHES, (msgspec.json.encode(stretches).decode(), tenant_id)


DIALECT = Dialect(
    indexed=frozenset(("session_id", "user_id", "has_errors", "start_ns", "end_ns")),
    unordered=frozenset(),
    stats=_STATS,
    service_name=lambda label: _listed("t.services", label),
    model=lambda label: _and_listed("t.has_usage", "t.models", label),
    tool=lambda label: _and_listed("t.tools IS NOT NULL", "t.tools", label),
    term=lambda term: ("instr(t.terms, ?) > 0", (f'"{term}"',)),
    attribute=_attribute,
    # A file that was never analyzed says nothing of how few traces a session has.
    session_id="unlikely(t.session_id = ?)",
    user_id="unlikely(t.user_id = ?)",
    stretches=_stretches,
    spans_at=_spans_at,
    lets_in=f"{LETS_IN}(f.filter, ?, ?)",
    text=(
        r"(s.name LIKE ? ESCAPE '\' OR s.status_message LIKE ? ESCAPE '\'"
        r" OR s.attributes LIKE ? ESCAPE '\')"
    ),
)


class ReaderThreads:
    """Runs reads, each in a snapshot of its own."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        self._path = path
        self._timeout_s = timeout_s
        self._idle: list[ConnectionThread] = []
        self._all: list[ConnectionThread] = []
        self._free = asyncio.Semaphore(READERS)

    async def read(self, statements: Sequence[Statement]) -> list[list[Row]]:
        """See ReadSql. Raises QueryTimeout."""
        async with self._free:
            thread = self._idle.pop() if self._idle else self._start()
            try:
                return await thread.run(
                    lambda connection: read_snapshot(connection, statements), self._timeout_s
                )
            finally:
                self._idle.append(thread)

    async def aclose(self) -> None:
        """Finish the running reads and end the threads."""
        for thread in self._all:
            await thread.aclose()

    def _start(self) -> ConnectionThread:
        thread = ConnectionThread(
            lambda: open_reader(self._path), f"msgtrace-sqlite-read-{len(self._all)}"
        )
        self._all.append(thread)
        return thread


def read_snapshot(
    connection: sqlite3.Connection, statements: Sequence[Statement]
) -> list[list[Row]]:
    """The rows of each statement, all of one moment."""
    connection.execute("BEGIN")
    try:
        return [connection.execute(sql, values).fetchall() for sql, values in statements]
    finally:
        connection.execute("ROLLBACK")
