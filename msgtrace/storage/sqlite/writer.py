"""Write batches to SQLite: one thread, one transaction a flush, many rows a statement.

Many rows a statement because the interpreter's lock is released once for each: with a row a
statement, a busy event loop would take the lock away from the writer between any two rows.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from itertools import chain

import msgspec

from msgtrace.model.batch import SpanBatch, merge_traces
from msgtrace.model.span import RESOURCE_COLUMNS, SCOPE_COLUMNS, SPAN_COLUMNS, Row
from msgtrace.storage.resent import NewSpans, SpanKey, first_of_each, only_new
from msgtrace.storage.sqlite.connection import translated_write_errors, write_transaction
from msgtrace.storage.sqlite.usage import settle_usage
from msgtrace.storage.summary import TRACE_COLUMNS, on_known_trace, trace_row
from msgtrace.storage.usage import USAGE_COLUMNS, usage_rows

_ON_KNOWN_TRACE = on_known_trace(
    least="min",
    greatest="max",
    unite="""(
        SELECT json_group_array(value) FROM (
            SELECT value FROM json_each(traces.{0})
            UNION SELECT value FROM json_each(excluded.{0}) ORDER BY 1
        )
    )""".format,
    unite_terms="""(
        SELECT CASE WHEN count(*) <= {max} THEN json_group_array(value) END FROM (
            SELECT value FROM json_each(traces.terms)
            UNION SELECT value FROM json_each(excluded.terms) ORDER BY 1
        )
    )""",
)

# One row of one column, because each row fetched is a chance to lose the interpreter's lock.
_FIND_KNOWN = """
WITH wanted (position, tenant_id, trace_id, span_id, start_time_ns) AS (VALUES {})
SELECT json_group_array(wanted.position)
FROM wanted CROSS JOIN spans USING (tenant_id, trace_id, span_id, start_time_ns)
"""

_UNLESS_KNOWN = "ON CONFLICT DO NOTHING"

# At 32 columns within SQLite's limit of 32,766 variables; powers of two keep the number of distinct
# statements small.
_CHUNK_ROWS = 512


def write_batches(connection: sqlite3.Connection, batches: Sequence[SpanBatch]) -> int:
    """Store all batches in one durable transaction; return how many spans were new."""
    with translated_write_errors(), write_transaction(connection):
        return _write(connection, batches)


def _write(connection: sqlite3.Connection, batches: Sequence[SpanBatch]) -> int:
    resources = {row[:2]: row for batch in batches for row in batch.resources.values()}
    scopes = {row[:2]: row for batch in batches for row in batch.scopes.values()}
    _insert(connection, "resources", RESOURCE_COLUMNS, list(resources.values()), _UNLESS_KNOWN)
    _insert(connection, "scopes", SCOPE_COLUMNS, list(scopes.values()), _UNLESS_KNOWN)
    spans = list(chain.from_iterable(batch.spans for batch in batches))
    connection.execute("SAVEPOINT spans")
    try:
        _insert(connection, "spans", SPAN_COLUMNS, spans)
        traces = merge_traces(batches)
        usage = [row for batch in batches for row in usage_rows(batch.spans, batch.genai)]
    except sqlite3.IntegrityError:
        if not connection.in_transaction:  # a trigger of the operator's has rolled everything back
            raise
        connection.execute("ROLLBACK TO spans")
        new = _without_known(connection, batches)
        spans, traces, usage = new.rows, new.traces, usage_rows(new.rows, new.genai)
        _insert(connection, "spans", SPAN_COLUMNS, spans)
    summaries = [trace_row(key, delta, json_list) for key, delta in traces.items()]
    _insert(connection, "traces", TRACE_COLUMNS, summaries, _ON_KNOWN_TRACE)
    insert_usage(connection, usage)
    settle_usage(connection, list(traces))
    return len(spans)


def _without_known(connection: sqlite3.Connection, batches: Sequence[SpanBatch]) -> NewSpans:
    """The spans that are not stored yet, each once."""
    incoming = first_of_each(batches)
    known = _known_positions(connection, list(incoming))
    return only_new(incoming, {key for n, key in enumerate(incoming) if n not in known})


def _known_positions(connection: sqlite3.Connection, keys: list[SpanKey]) -> set[int]:
    known: set[int] = set()
    wanted = [(position, *key) for position, key in enumerate(keys)]
    for chunk in _chunks(wanted):
        values = ", ".join(["(?, ?, ?, ?, ?)"] * len(chunk))
        (positions,) = connection.execute(
            _FIND_KNOWN.format(values), list(chain.from_iterable(chunk))
        ).fetchone()
        known.update(msgspec.json.decode(positions))
    return known


def insert_usage(connection: sqlite3.Connection, rows: Sequence[Row]) -> None:
    """Insert rows of USAGE_COLUMNS."""
    _insert(connection, "model_usage", USAGE_COLUMNS, rows)


def _insert(
    connection: sqlite3.Connection,
    table: str,
    columns: Sequence[str],
    rows: Sequence[Row],
    on_conflict: str = "",
) -> None:
    row_of_marks = f"({', '.join('?' * len(columns))})"
    for chunk in _chunks(rows):
        marks = ", ".join([row_of_marks] * len(chunk))
        connection.execute(
            f"INSERT INTO {table} ({', '.join(columns)}) VALUES {marks} {on_conflict}",  # noqa: S608 - constants only
            list(chain.from_iterable(chunk)),
        )


def _chunks(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    start, size = 0, _CHUNK_ROWS
    while start < len(rows):
        while size > len(rows) - start:
            size //= 2
        yield rows[start : start + size]
        start += size


def json_list(texts: list[str]) -> str:
    """As a column holds it."""
    return msgspec.json.encode(texts).decode()
