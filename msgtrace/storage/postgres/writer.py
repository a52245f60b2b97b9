"""Write batches to PostgreSQL: one transaction a flush, spans by binary COPY.

The fast path assumes that every span is new. A unique violation says that somebody resent some;
then the flush is written again through a temporary table, and only what was really new is counted.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from itertools import chain

import asyncpg

from msgtrace.errors import StorageUnavailable
from msgtrace.model.batch import SpanBatch, join_traces
from msgtrace.model.span import RESOURCE_COLUMNS, SCOPE_COLUMNS, SPAN_COLUMNS, Row
from msgtrace.storage.operations import ToldOperations
from msgtrace.storage.postgres.connection import Connection, Pool
from msgtrace.storage.postgres.errors import translated_write_errors
from msgtrace.storage.postgres.operations import tell_operations
from msgtrace.storage.postgres.partitions import DayPartitions
from msgtrace.storage.postgres.summaries import Traces, add_traces, binary_copy, times_of
from msgtrace.storage.postgres.usage import insert_new_usage, insert_usage, settle_usage
from msgtrace.storage.resent import Incoming, SpanKey, first_of_each, only_new
from msgtrace.storage.usage import usage_rows

_SPAN_COLUMN_LIST = ", ".join(SPAN_COLUMNS)

_INSERT_INCOMING = f"""
INSERT INTO spans ({_SPAN_COLUMN_LIST})
SELECT {_SPAN_COLUMN_LIST} FROM incoming_spans ORDER BY tenant_id, trace_id, span_id, start_time_ns
ON CONFLICT DO NOTHING
RETURNING tenant_id, trace_id, span_id, start_time_ns
"""  # noqa: S608 - built from constants


def _insert_unless_known(table: str, columns: Sequence[str]) -> str:
    marks = ", ".join(f"${n}" for n in range(1, len(columns) + 1))
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks}) ON CONFLICT DO NOTHING"  # noqa: S608 - built from constants


_INSERT_CONTENT = {
    "resources": _insert_unless_known("resources", RESOURCE_COLUMNS),
    "scopes": _insert_unless_known("scopes", SCOPE_COLUMNS),
}

# Whoever changes or deletes traces holds their rows before looking for their spans: a writer that
# has written spans but not yet their summary waits here, and its summary will then add exactly the
# spans that were not seen. In the order in which writers lock them.
LOCK_TRACES = """
SELECT trace_id, start_time_ns, end_time_ns FROM traces
WHERE tenant_id = $1 AND trace_id = ANY($2) ORDER BY trace_id FOR UPDATE
"""

ContentKey = tuple[str, int, int]
"""(table, tenant, content hash)."""

_TRIES = 3

_RESENT = (asyncpg.UniqueViolationError, asyncpg.DeadlockDetectedError)
"""Two writers with the same spans in another order may also meet as a deadlock."""

_MAX_KNOWN = 50_000


class BatchWriter:
    """Writes flushes over a pool; several may be under way at once."""

    def __init__(self, pool: Pool, partitions: DayPartitions) -> None:
        self._pool = pool
        self._partitions = partitions
        self._known: set[ContentKey] = set()
        self._told = ToldOperations()

    async def write(self, batches: Sequence[SpanBatch]) -> int:
        """See SpanWriter.write_spans."""
        traces = join_traces(batches)
        with translated_write_errors():
            await self._partitions.ensure(times_of(traces))
            try:
                return await self._copy(batches, traces)
            except _RESENT:
                return await self._copy_new(first_of_each(batches), batches)

    async def _copy(self, batches: Sequence[SpanBatch], traces: Traces) -> int:
        """The fast path; raises UniqueViolationError if a span is stored already."""
        untold = self._told.untold(batches)
        async with self._pool.acquire() as connection:
            async with connection.transaction():
                added = await self._insert_contents(connection, batches)
                full = await tell_operations(connection, untold)
                await _copy_spans(connection, batches)
                usage = [row for batch in batches for row in usage_rows(batch.spans, batch.genai)]
                await _add_to_traces(connection, traces, usage, insert_usage)
            self._remember(added)
            self._told.remember(untold, full)
        return sum(len(batch.spans) for batch in batches)

    async def _copy_new(self, incoming: Incoming, batches: Sequence[SpanBatch]) -> int:
        """The slow path, taken again if it meets another writer's in a deadlock."""
        for _ in range(_TRIES):
            try:
                async with self._pool.acquire() as connection, connection.transaction():
                    await self._insert_contents(connection, batches)
                    await tell_operations(connection, self._told.untold(batches))
                    keys = await _insert_new_spans(
                        connection, [row for row, _ in incoming.values()]
                    )
                    new = only_new(incoming, keys)
                    usage = usage_rows(new.rows, new.genai)
                    await _add_to_traces(connection, new.traces, usage, insert_new_usage)
                    return len(new.rows)
            except asyncpg.DeadlockDetectedError:
                continue
        raise StorageUnavailable(f"PostgreSQL ended the write in a deadlock {_TRIES} times")

    async def _insert_contents(
        self, connection: Connection, batches: Sequence[SpanBatch]
    ) -> set[ContentKey]:
        """Insert resources and scopes not known to be stored; return their keys.

        In the order of their keys, so that two writers wait for each other in one direction only.
        """
        contents: dict[ContentKey, Row] = {}
        for batch in batches:
            contents.update({("resources", *row[:2]): row for row in batch.resources.values()})
            contents.update({("scopes", *row[:2]): row for row in batch.scopes.values()})
        unknown = sorted(contents.keys() - self._known)
        for table, insert in _INSERT_CONTENT.items():
            rows = [contents[key] for key in unknown if key[0] == table]
            if rows:
                await connection.executemany(insert, rows)
        return set(unknown)

    def _remember(self, added: set[ContentKey]) -> None:
        if len(self._known) + len(added) > _MAX_KNOWN:
            self._known.clear()
        self._known |= added


async def _copy_spans(connection: Connection, batches: Sequence[SpanBatch]) -> None:
    """COPY the spans of all batches: as a decoder encoded them, or as rows where it did not."""
    ready = [batch.copy_rows() for batch in batches if batch.copy_rows is not None]
    rows = [batch.spans for batch in batches if batch.copy_rows is None]
    if ready:
        await connection.copy_to_table(
            "spans", source=binary_copy(ready), columns=SPAN_COLUMNS, format="binary"
        )
    if rows:
        await connection.copy_records_to_table(
            "spans", records=chain.from_iterable(rows), columns=SPAN_COLUMNS
        )


async def _insert_new_spans(connection: Connection, rows: list[Row]) -> set[SpanKey]:
    await connection.execute("CREATE TEMPORARY TABLE incoming_spans (LIKE spans) ON COMMIT DROP")
    await connection.copy_records_to_table("incoming_spans", records=rows, columns=SPAN_COLUMNS)
    return {tuple(row) for row in await connection.fetch(_INSERT_INCOMING)}


async def _add_to_traces(
    connection: Connection,
    traces: Traces,
    usage: list[Row],
    insert: Callable[[Connection, list[Row]], Awaitable[None]],
) -> None:
    """Add to the summaries, whose rows are locked from here on, and settle what is nested."""
    if not traces:
        return
    several = await add_traces(connection, traces)
    await insert(connection, usage)
    await settle_usage(connection, several)
