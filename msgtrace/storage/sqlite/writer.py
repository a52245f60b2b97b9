"""Write batches to SQLite: one thread, one transaction a flush, many rows a statement."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import msgspec

from msgtrace.model.batch import SpanBatch, join_traces
from msgtrace.model.span import RESOURCE_COLUMNS, SCOPE_COLUMNS, SPAN_COLUMNS, Row
from msgtrace.model.units import MIB
from msgtrace.storage.operations import ToldOperations
from msgtrace.storage.resent import NewSpans, SpanKey, first_of_each, only_new
from msgtrace.storage.sqlite.chunks import chunks, insert_rows
from msgtrace.storage.sqlite.connection import (
    connection_for_once,
    translated_write_errors,
    write_transaction,
)
from msgtrace.storage.sqlite.operations import tell_operations
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

LARGE_FLUSH_BYTES = 16 * MIB
"""Flushes of more than this are rare: a flush is cut at 8 MiB, unless one request is larger."""


def write_batches(
    connection: sqlite3.Connection, batches: Sequence[SpanBatch], told: ToldOperations
) -> int:
    """Store all batches in one durable transaction; return how many spans were new."""
    untold = told.untold(batches)
    with translated_write_errors(), write_transaction(connection):
        full = tell_operations(connection, untold)
        new = _write(connection, batches)
    told.remember(untold, full)
    return new


def write_large(path: Path, batches: Sequence[SpanBatch], told: ToldOperations) -> int:
    """The same for a large flush, of which nothing stays in memory.

    For the thread of the connection that writes otherwise: the two take turns.
    """
    with translated_write_errors(), connection_for_once(path) as connection:
        return write_batches(connection, batches, told)


def is_large(batches: Sequence[SpanBatch]) -> bool:
    """Whether a flush is one for `write_large`."""
    return sum(batch.body_bytes for batch in batches) > LARGE_FLUSH_BYTES


def _write(connection: sqlite3.Connection, batches: Sequence[SpanBatch]) -> int:
    resources = {row[:2]: row for batch in batches for row in batch.resources.values()}
    scopes = {row[:2]: row for batch in batches for row in batch.scopes.values()}
    insert_rows(connection, "resources", RESOURCE_COLUMNS, list(resources.values()), _UNLESS_KNOWN)
    insert_rows(connection, "scopes", SCOPE_COLUMNS, list(scopes.values()), _UNLESS_KNOWN)
    spans = list(chain.from_iterable(batch.spans for batch in batches))
    connection.execute("SAVEPOINT spans")
    try:
        insert_rows(connection, "spans", SPAN_COLUMNS, spans)
        traces = join_traces(batches)
        usage = [row for batch in batches for row in usage_rows(batch.spans, batch.genai)]
    except sqlite3.IntegrityError:
        if not connection.in_transaction:  # a trigger of the operator's has rolled everything back
            raise
        connection.execute("ROLLBACK TO spans")
        new = _without_known(connection, batches)
        spans, traces, usage = new.rows, new.traces, usage_rows(new.rows, new.genai)
        insert_rows(connection, "spans", SPAN_COLUMNS, spans)
    summaries = (
        [trace_row(key, delta, json_list) for key, delta in traces.items()]
        if isinstance(traces, dict)
        else traces.to_tuples()
    )
    insert_rows(connection, "traces", TRACE_COLUMNS, summaries, _ON_KNOWN_TRACE)
    insert_usage(connection, usage)
    settle_usage(connection, [(row[0], row[1]) for row in summaries])
    return len(spans)


def _without_known(connection: sqlite3.Connection, batches: Sequence[SpanBatch]) -> NewSpans:
    """The spans that are not stored yet, each once."""
    incoming = first_of_each(batches)
    known = _known_positions(connection, list(incoming))
    return only_new(incoming, {key for n, key in enumerate(incoming) if n not in known})


def _known_positions(connection: sqlite3.Connection, keys: list[SpanKey]) -> set[int]:
    known: set[int] = set()
    wanted = [(position, *key) for position, key in enumerate(keys)]
    for chunk in chunks(wanted):
        values = ", ".join(["(?, ?, ?, ?, ?)"] * len(chunk))
        (positions,) = connection.execute(
            _FIND_KNOWN.format(values), list(chain.from_iterable(chunk))
        ).fetchone()
        known.update(msgspec.json.decode(positions))
    return known


def insert_usage(connection: sqlite3.Connection, rows: Sequence[Row]) -> None:
    """Insert rows of USAGE_COLUMNS."""
    insert_rows(connection, "model_usage", USAGE_COLUMNS, rows)


def json_list(texts: list[str]) -> str:
    """As a column holds it."""
    return msgspec.json.encode(texts).decode()
