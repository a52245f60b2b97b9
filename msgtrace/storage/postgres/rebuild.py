"""One batch of a rebuild of summaries, in one transaction that holds the rows of its traces."""

from __future__ import annotations

import time

from msgtrace.model.batch import TraceKey
from msgtrace.model.prices import PriceTable
from msgtrace.model.span import TenantId, TraceId
from msgtrace.storage.postgres.connection import Connection, Pool
from msgtrace.storage.postgres.errors import translated_write_errors
from msgtrace.storage.postgres.opening import Opening
from msgtrace.storage.postgres.operations import (
    DELETE_DOUBTED,
    DOUBT_UNLOCKED,
    tell_operations_of,
)
from msgtrace.storage.postgres.reader import numbered
from msgtrace.storage.postgres.usage import insert_usage
from msgtrace.storage.postgres.writer import LOCK_TRACES
from msgtrace.storage.rebuild import (
    COUNT_ALL,
    COUNT_OUTDATED,
    FORGET_PLACE,
    GET_PLACE,
    KEEP_PLACE,
    NEXT_OF_ALL,
    NEXT_OUTDATED,
    SPANS_OF,
    Rebuilt,
    resummarize,
    set_summary,
    take_batch,
)
from msgtrace.storage.summary import LIST_COLUMNS, trace_row

_SPANS = numbered(SPANS_OF.format(members="= ANY(?::bytea[])"))

_DELETE_USAGE = "DELETE FROM model_usage WHERE tenant_id = $1 AND trace_id = ANY($2)"

_LIST_TYPES = dict.fromkeys(LIST_COLUMNS, "?::text::text[]") | {"terms": "?::text::bigint[]"}

_SET_SUMMARY = numbered(set_summary(lambda column: _LIST_TYPES.get(column, "?")))


class PostgresRebuild:
    """See RebuildableStorage."""

    _opening: Opening
    _writers: Pool

    async def rebuild_batch(
        self, prices: PriceTable, after: TraceKey, *, is_of_all: bool, done: int
    ) -> Rebuilt:
        """See RebuildableStorage."""
        self._opening.require_open()
        with translated_write_errors():
            async with self._writers.acquire() as connection, connection.transaction():
                rebuilt = await _rebuild(connection, prices, after, is_of_all)
                if is_of_all and rebuilt.last is not None:
                    await connection.execute(FORGET_PLACE)
                    place = (time.time_ns(), done + rebuilt.trace_count, *rebuilt.last)
                    await connection.execute(numbered(KEEP_PLACE), *place)
                return rebuilt

    async def get_rebuild_place(self) -> tuple[TraceKey, int] | None:
        """See RebuildableStorage."""
        self._opening.require_open()
        with translated_write_errors():
            row = await self._writers.fetchrow(GET_PLACE)
        return None if row is None else ((TenantId(row[0]), TraceId(row[1])), row[2])

    async def forget_rebuild_place(self) -> None:
        """See RebuildableStorage."""
        await self._execute(FORGET_PLACE)

    async def doubt_operations(self) -> None:
        """See RebuildableStorage."""
        await self._execute(DOUBT_UNLOCKED)

    async def delete_doubted_operations(self) -> None:
        """See RebuildableStorage."""
        await self._execute(DELETE_DOUBTED)

    async def count_for_rebuild(self, *, is_of_all: bool) -> int:
        """See RebuildableStorage."""
        self._opening.require_open()
        with translated_write_errors():
            count: int = await self._writers.fetchval(COUNT_ALL if is_of_all else COUNT_OUTDATED)
        return count

    async def _execute(self, sql: str) -> None:
        self._opening.require_open()
        with translated_write_errors():
            await self._writers.execute(sql)


async def _rebuild(
    connection: Connection, prices: PriceTable, after: TraceKey, is_of_all: bool
) -> Rebuilt:
    candidates = await connection.fetch(
        numbered(NEXT_OF_ALL if is_of_all else NEXT_OUTDATED), *after
    )
    keys = take_batch([tuple(row) for row in candidates])
    if not keys:
        return Rebuilt(0, None)
    tenant_id, trace_ids = keys[0][0], [trace_id for _, trace_id in keys]
    if is_of_all:
        await tell_operations_of(connection, tenant_id, trace_ids)
    # Held from here on: a writer that has spans of these traces and not yet committed waits, and
    # adds to the new sums what is not read below.
    locked = await connection.fetch(LOCK_TRACES, tenant_id, trace_ids)
    if locked:
        found = [row["trace_id"] for row in locked]
        spans = await connection.fetch(_SPANS, tenant_id, found)
        new = resummarize([tuple(row) for row in spans], prices)
        await connection.execute(_DELETE_USAGE, tenant_id, found)
        await insert_usage(connection, new.usage)
        rows = [trace_row(key, delta, _array_literal) for key, delta in sorted(new.traces.items())]
        await connection.executemany(_SET_SUMMARY, [(*row[2:], *row[:2]) for row in rows])
    return Rebuilt(len(keys), keys[-1])


def _array_literal(texts: list[str]) -> str:
    """A text[] in PostgreSQL's own notation.

    Arrays of arrays cannot be parameters unless all have one length.
    """
    quoted = ('"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"' for text in texts)
    return "{" + ",".join(quoted) + "}"
