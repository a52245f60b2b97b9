"""Add the sums of a flush to the table of traces.

They go through a temporary table of the connection: a COPY costs the collector a tenth of what
parameters would cost it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence

from msgtrace.model.batch import COPY_HEADER, COPY_TRAILER, TraceDelta, TraceKey, TraceRows
from msgtrace.storage.postgres.connection import Connection, PlainConnection
from msgtrace.storage.summary import (
    TEXT_LIST_COLUMNS,
    TRACE_COLUMNS,
    on_known_trace,
    trace_row,
)
from msgtrace.storage.usage import MAX_SETTLED

Traces = TraceRows | dict[TraceKey, TraceDelta]

_TYPES = (
    dict.fromkeys(("tenant_id", "aliases_version"), "integer")
    | dict.fromkeys(("cost", "estimated_cost"), "double precision")
    | dict.fromkeys(("has_usage", "root_has_parent"), "boolean")
    | dict.fromkeys(("trace_id", "root_span_id"), "bytea")
    | dict.fromkeys(
        (name for name in TRACE_COLUMNS if name.endswith(("_ns", "_count", "_tokens"))), "bigint"
    )
    | dict.fromkeys(TEXT_LIST_COLUMNS, "text[]")
    | {"terms": "bigint[]"}
)

_UNITED = "ARRAY(SELECT unnest(traces.{0}) UNION SELECT unnest(excluded.{0}) ORDER BY 1)"

_UNITED_TERMS = """CASE WHEN traces.terms @> excluded.terms THEN traces.terms ELSE (
    SELECT CASE WHEN count(*) <= {max} THEN array_agg(term) END
    FROM (SELECT unnest(traces.terms) AS term UNION SELECT unnest(excluded.terms)) AS united
) END"""

_ON_KNOWN_TRACE = on_known_trace(
    least="least",
    greatest="greatest",
    unite=_UNITED.format,
    unite_terms=_UNITED_TERMS,
    collation='COLLATE "C"',
)

# Ordered by key: two writers lock the rows that they share in the same order.
# Returns the traces in which statements about tokens and cost may be nested.
_UPSERT_TRACES = f"""
WITH stored AS (
    INSERT INTO traces ({", ".join(TRACE_COLUMNS)})
    SELECT {", ".join(TRACE_COLUMNS)} FROM incoming_traces ORDER BY tenant_id, trace_id
    {_ON_KNOWN_TRACE}
    RETURNING traces.tenant_id, traces.trace_id, traces.usage_count
)
SELECT tenant_id, trace_id FROM stored WHERE usage_count BETWEEN 2 AND {MAX_SETTLED}
"""  # noqa: S608 - built from constants


async def make_incoming_traces(connection: Connection | PlainConnection) -> None:
    """Make the table through which the connection's flushes go."""
    columns = ", ".join(f"{name} {_TYPES.get(name, 'text')}" for name in TRACE_COLUMNS)
    await connection.execute(
        f"CREATE TEMPORARY TABLE incoming_traces ({columns}) ON COMMIT DELETE ROWS"
    )


async def add_traces(connection: Connection, traces: Traces) -> list[TraceKey]:
    """Add to the summaries, whose rows are locked from here on.

    Returns the traces in which statements about tokens and cost may be nested.
    """
    if isinstance(traces, dict):
        rows = [trace_row(key, delta, list, list) for key, delta in traces.items()]
        await connection.copy_records_to_table(
            "incoming_traces", records=rows, columns=TRACE_COLUMNS
        )
    else:
        await connection.copy_to_table(
            "incoming_traces",
            source=binary_copy([traces.to_copy()]),
            columns=TRACE_COLUMNS,
            format="binary",
        )
    return [(row[0], row[1]) for row in await connection.fetch(_UPSERT_TRACES)]


def times_of(traces: Traces) -> Iterable[tuple[int, int]]:
    """Start and end of each."""
    if isinstance(traces, dict):
        return ((trace.start_time_ns, trace.end_time_ns) for trace in traces.values())
    return traces.times()


async def binary_copy(ready: Sequence[bytes]) -> AsyncIterator[bytes]:
    """A binary COPY of tuples."""
    yield COPY_HEADER
    for tuples in ready:
        yield tuples
    yield COPY_TRAILER
