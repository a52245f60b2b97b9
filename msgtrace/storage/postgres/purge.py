"""Delete expired spans from PostgreSQL: whole partitions at once, summaries in small transactions.

Summaries go first, so that readers never see one without its spans; nothing needs to be remembered
between steps, or between a kill and the next start: the work left is the traces that begin before
the edge, and the partitions that end before it.

To drop a partition PostgreSQL locks the whole table for a moment. Whoever comes meanwhile queues
behind a lock that is waited for, so it is waited for LOCK_TIMEOUT_MS only, and tried again later.
That is less than PostgreSQL's deadlock_timeout: where two wait for each other, the purge gives in.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Sequence

import asyncpg

from msgtrace.errors import StorageUnavailable
from msgtrace.model.batch import TraceDelta, TraceKey
from msgtrace.model.maintenance import Partition, Purged
from msgtrace.model.span import Row
from msgtrace.model.units import NS_PER_DAY
from msgtrace.storage.pace import rest_after
from msgtrace.storage.postgres.connection import PlainConnection
from msgtrace.storage.postgres.errors import translated_write_errors
from msgtrace.storage.postgres.operations import DELETE_BEFORE
from msgtrace.storage.postgres.partitions import list_day_partitions, quoted
from msgtrace.storage.postgres.reader import numbered
from msgtrace.storage.postgres.schema import SCHEMA_LOCK
from msgtrace.storage.postgres.usage import insert_usage
from msgtrace.storage.recompute import SUMMED_COLUMNS, summarize_stored, take_usage
from msgtrace.storage.retention_state import state_statement
from msgtrace.storage.summary import TRACE_COLUMNS, trace_row
from msgtrace.storage.usage import KEPT_USAGE, by_trace

logger = logging.getLogger(__name__)

LOCK_TIMEOUT_MS = 100
"""How long ingest may have to wait behind a partition that cannot be dropped yet."""

DROP_TRIES = 60
DROP_PAUSE_S = 1.0
"""Readers are ended after MSGTRACE_QUERY_TIMEOUT_S, 30 s: among so many tries there is a gap."""

STEP_TRACES = 500
"""Summaries that one transaction deletes."""

STEP_SPANS = 2_000
"""Spans of the default partition that one transaction deletes."""

SUMMED_SPANS = 1_000
"""Spans that are summed at once: the collector's event loop waits some milliseconds for that."""

_PASSES = 3
"""Writers may add to expired traces while they are purged; after so many passes, next time."""

# Whoever holds one of these rows is writing to that trace; the next pass finds it again.
_OLDEST = """
SELECT tenant_id, trace_id, start_time_ns, end_time_ns, span_count FROM traces
WHERE tenant_id = $1 AND start_time_ns >= $2 AND start_time_ns < $3
ORDER BY start_time_ns LIMIT $4 FOR UPDATE SKIP LOCKED
"""

_ANY_LEFT = "SELECT EXISTS (SELECT 1 FROM traces WHERE tenant_id = $1 AND start_time_ns < $2)"

_DELETE_TRACES = "DELETE FROM traces WHERE tenant_id = $1 AND trace_id = ANY($2)"

_KEPT_SPANS = f"""
SELECT {", ".join(SUMMED_COLUMNS)} FROM spans
WHERE tenant_id = $1 AND trace_id = ANY($2) AND start_time_ns >= $3 AND start_time_ns <= $4
"""  # noqa: S608 - built from constants

_KEPT_USAGE = numbered(KEPT_USAGE.format(members="= ANY(?::bytea[])"))

_DELETE_FROM_DEFAULT = """
DELETE FROM spans_default WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM spans_default WHERE start_time_ns >= $1 AND start_time_ns < $2
    ORDER BY start_time_ns LIMIT $3
))
RETURNING start_time_ns
"""

_BUSY = (
    asyncpg.LockNotAvailableError,
    asyncpg.DeadlockDetectedError,
)


class PostgresPurger:
    """See `storage.protocol.Purger`. `connection` holds the lock and does nothing else."""

    def __init__(self, connection: PlainConnection) -> None:
        self._connection = connection

    async def purge(self, before_ns: int) -> AsyncGenerator[Purged, None]:
        """See Purger."""
        edge_ns = before_ns - before_ns % NS_PER_DAY
        with translated_write_errors():
            async for step in self._purge_traces(edge_ns):
                yield step
            for partition in await list_day_partitions(self._connection):
                if partition.end_ns is not None and partition.end_ns <= edge_ns:
                    await self._drop(partition)
                    yield Purged(partitions=1)
            await self._purge_default(edge_ns)
            # What was written to an expired partition before it went.
            async for step in self._purge_traces(edge_ns):
                yield step
            await self._connection.execute(DELETE_BEFORE, edge_ns // NS_PER_DAY)

    async def record(self, purged: Purged, *, before_ns: int, now_ns: int) -> None:
        """See Purger."""
        sql, values = state_statement(purged, before_ns=before_ns, now_ns=now_ns)
        with translated_write_errors():
            await self._connection.execute(numbered(sql), *values)

    async def give_back_space(self) -> int:
        """See Purger: dropped partitions are given back already."""
        return 0

    async def _purge_traces(self, edge_ns: int) -> AsyncGenerator[Purged, None]:
        for row in await self._connection.fetch("SELECT tenant_id FROM tenants"):
            for _ in range(_PASSES):
                async for step in self._purge_pass(row["tenant_id"], edge_ns):
                    yield step
                if not await self._connection.fetchval(_ANY_LEFT, row["tenant_id"], edge_ns):
                    break

    async def _purge_pass(self, tenant_id: int, edge_ns: int) -> AsyncGenerator[Purged, None]:
        """From the oldest on; dead index entries behind are not walked over again."""
        from_ns = 0
        while True:
            began_s = time.monotonic()
            async with self._connection.transaction():
                rows = await self._connection.fetch(
                    _OLDEST, tenant_id, from_ns, edge_ns, STEP_TRACES
                )
                purged = await self._purge_locked(tenant_id, rows, edge_ns)
            if not rows:
                return
            from_ns = rows[-1]["start_time_ns"]
            await rest_after(time.monotonic() - began_s)
            yield purged

    async def _purge_locked(
        self, tenant_id: int, rows: Sequence[asyncpg.Record], edge_ns: int
    ) -> Purged:
        """Delete the summaries; those of traces with later spans are made anew.

        A writer that adds spans to one of these traces waits for its row, and then adds what it
        has to the row that it finds: spans that it has not committed are not seen here.
        """
        if not rows:
            return Purged()
        longer = [row for row in rows if row["end_time_ns"] >= edge_ns]
        again = await self._sum_kept(tenant_id, longer, edge_ns) if longer else {}
        usage = await self._kept_usage(again, tenant_id, edge_ns)
        trace_ids = [row["trace_id"] for row in rows]
        await self._connection.execute(_DELETE_TRACES, tenant_id, trace_ids)
        await self._connection.copy_records_to_table(
            "traces",
            # asyncpg makes arrays of lists.
            records=[trace_row(key, delta, list, list) for key, delta in again.items()],
            columns=TRACE_COLUMNS,
        )
        await insert_usage(self._connection, usage)
        before = sum(row["span_count"] for row in rows)
        after = sum(delta.span_count for delta in again.values())
        return Purged(spans=before - after, traces=len(rows) - len(again), shortened=len(again))

    async def _kept_usage(
        self, again: dict[TraceKey, TraceDelta], tenant_id: int, edge_ns: int
    ) -> list[Row]:
        """What the later spans state of tokens and cost, which goes with the traces' old rows."""
        trace_ids = [trace_id for _, trace_id in again]
        rows = [
            tuple(row)
            for row in await self._connection.fetch(_KEPT_USAGE, tenant_id, trace_ids, edge_ns)
        ]
        of_trace = by_trace(rows)
        for key, delta in again.items():
            take_usage(delta, of_trace.get(key, []))
        return rows

    async def _sum_kept(
        self, tenant_id: int, rows: Sequence[asyncpg.Record], edge_ns: int
    ) -> dict[TraceKey, TraceDelta]:
        """What the later spans of these traces add up to; nothing of a trace that has none.

        Some spans at a time: a trace may have any number.
        """
        trace_ids = [row["trace_id"] for row in rows]
        last_ns = max(row["end_time_ns"] for row in rows)
        cursor = await self._connection.cursor(_KEPT_SPANS, tenant_id, trace_ids, edge_ns, last_ns)
        summed: dict[TraceKey, TraceDelta] = {}
        while found := await cursor.fetch(SUMMED_SPANS):
            for key, delta in summarize_stored(tuple(row) for row in found).items():
                known = summed.get(key)
                summed[key] = delta if known is None else known.merged_with(delta)
        return summed

    async def _drop(self, partition: Partition) -> None:
        for _ in range(DROP_TRIES):
            try:
                async with self._connection.transaction():
                    await self._connection.execute(f"SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}")
                    await self._connection.execute("SELECT pg_advisory_xact_lock($1)", SCHEMA_LOCK)
                    await self._connection.execute(f"DROP TABLE IF EXISTS {quoted(partition.name)}")
            except _BUSY:
                await asyncio.sleep(DROP_PAUSE_S)
            else:
                return
        logger.warning("partition_busy", extra={"partition": partition.name})
        raise StorageUnavailable(
            f"{partition.name} could not be dropped within {DROP_TRIES} tries, as something reads"
            " or writes spans all the time; look for long transactions in pg_stat_activity"
        )

    async def _purge_default(self, edge_ns: int) -> None:
        from_ns = 0
        while True:
            began_s = time.monotonic()
            deleted = await self._connection.fetch(
                _DELETE_FROM_DEFAULT, from_ns, edge_ns, STEP_SPANS
            )
            if not deleted:
                return
            from_ns = max(row["start_time_ns"] for row in deleted)
            await rest_after(time.monotonic() - began_s)
