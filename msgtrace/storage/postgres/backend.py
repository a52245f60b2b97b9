"""PostgreSQL as a Storage."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Self

from msgtrace.errors import DataRefused
from msgtrace.model.batch import SpanBatch
from msgtrace.model.search import TraceFilter
from msgtrace.model.span import Row, TenantId, TraceId
from msgtrace.settings.table import Settings
from msgtrace.storage.dead_letters import SqlDeadLetters
from msgtrace.storage.filter_maker import FilterMaker
from msgtrace.storage.postgres.check import ConnectionCheck
from msgtrace.storage.postgres.connection import WRITE_TIMEOUT_S, Connection, Pool, open_pools
from msgtrace.storage.postgres.errors import translated_write_errors
from msgtrace.storage.postgres.maintenance import PostgresMaintenance
from msgtrace.storage.postgres.opening import Opening
from msgtrace.storage.postgres.operations import forget_operations_without_traces
from msgtrace.storage.postgres.partitions import DayPartitions, was_made_meanwhile
from msgtrace.storage.postgres.reader import DIALECT, SnapshotReader, numbered
from msgtrace.storage.postgres.rebuild import PostgresRebuild
from msgtrace.storage.postgres.schema import migrate_postgres, require_current
from msgtrace.storage.postgres.status import read_status
from msgtrace.storage.postgres.summaries import make_incoming_traces
from msgtrace.storage.postgres.writer import LOCK_TRACES, BatchWriter
from msgtrace.storage.protocol import StorageStatus
from msgtrace.storage.reader import SqlReader, Statement, delete_matching

_DELETE_SPANS = """
DELETE FROM spans WHERE tenant_id = $1 AND trace_id = ANY($2) AND start_time_ns BETWEEN $3 AND $4
"""

_DELETE_TRACES = "DELETE FROM traces WHERE tenant_id = $1 AND trace_id = ANY($2)"

_ROUTING_TRIES = 2
"""Partitions may be made by others while rows are on their way to the default one."""

DEAD_LETTER_LOCK = 0x6D736764
"""Advisory lock ("msgd") under which dead letters change."""

_NEWEST_WRITE = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint"
_OLDEST_WRITE = "SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint"
_WRITES_ENDED_DELAY_S = 0.05


class PostgresStorage(SqlReader, PostgresRebuild):
    """See `storage.protocol.Storage`."""

    backend = "postgres"
    can_be_away = True

    def __init__(
        self,
        settings: Settings,
        writers: Pool,
        readers: Pool,
        connection_check: ConnectionCheck,
        opening: Opening,
    ) -> None:
        self._reader = SnapshotReader(readers)
        super().__init__(self._read_opened, DIALECT, list)
        self.dead_letters = SqlDeadLetters(self._read_opened, self._write, self._read_now)
        self.maintenance = PostgresMaintenance(settings, self._read_opened, opening.require_open)
        self._opening = opening
        self._url = settings.database_url
        self.writer_count = settings.database_writers
        self._pools = {"write": writers, "read": readers}
        self._writers = writers
        self._batch_writer = BatchWriter(writers, DayPartitions(writers, settings.retention_s))
        self._check = connection_check

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, settings: Settings, *, waits: bool) -> AsyncIterator[Self]:
        """The database of `settings.database_url`, with the current schema.

        waits: see `open_storage`.
        """
        ensure = migrate_postgres if settings.auto_migrate else require_current
        opening = Opening()
        async with contextlib.AsyncExitStack() as stack:
            if waits:
                await opening.open_at_once(settings, ensure)
            else:
                await stack.enter_async_context(opening.under_way(settings, ensure))
            writers, readers = await stack.enter_async_context(
                open_pools(settings, make_incoming_traces)
            )
            connection_check = ConnectionCheck(settings)
            stack.callback(connection_check.close)
            yield cls(settings, writers, readers, connection_check, opening)

    async def write_spans(self, batches: Sequence[SpanBatch]) -> int:
        """See SpanWriter."""
        self._opening.require_open()
        for _ in range(_ROUTING_TRIES):
            try:
                return await self._batch_writer.write(batches)
            except DataRefused as error:
                if not was_made_meanwhile(error):
                    raise
        return await self._batch_writer.write(batches)

    async def delete_trace(self, tenant_id: TenantId, trace_id: TraceId) -> bool:
        """See StorageAdmin."""
        return await self._delete(tenant_id, [trace_id]) == 1

    async def delete_traces(self, tenant_id: TenantId, trace_filter: TraceFilter) -> int:
        """See StorageAdmin."""
        return await delete_matching(self, self._delete, tenant_id, trace_filter)

    async def make_attribute_filters(self) -> int:
        """See StorageAdmin."""
        return await FilterMaker(self._read_opened, self._write_each, self._writes_ended).make()

    async def check(self) -> None:
        """See StorageAdmin."""
        await self._check.run()
        self._opening.require_open()

    def count_connections(self) -> Mapping[str, tuple[int, int]]:
        """See StorageAdmin."""
        return {
            name: (pool.get_size(), pool.get_size() - pool.get_idle_size())
            for name, pool in self._pools.items()
        }

    async def get_status(self) -> StorageStatus:
        """See StorageAdmin."""
        return await read_status(self._read_opened, self.maintenance, self._url)

    async def _read_opened(self, statements: Sequence[Statement]) -> list[list[Row]]:
        self._opening.require_open()
        return await self._reader.read(statements)

    async def _read_now(self, statements: Sequence[Statement]) -> list[list[Row]]:
        self._opening.require_open()
        return await self._check.read(statements)

    async def _write(self, statement: Statement) -> int:
        """See WriteSql."""
        self._opening.require_open()
        sql, values = statement
        with translated_write_errors():
            async with self._writers.acquire() as connection, connection.transaction():
                await connection.execute("SELECT pg_advisory_xact_lock($1)", DEAD_LETTER_LOCK)
                status = await connection.execute(numbered(sql), *values)
                return int(status.rpartition(" ")[2])

    async def _write_each(self, statements: Sequence[Statement]) -> list[int]:
        self._opening.require_open()
        with translated_write_errors():
            async with self._writers.acquire() as connection, connection.transaction():
                # One after the other: the status of each is wanted.
                done = [await connection.execute(numbered(sql), *of) for sql, of in statements]
                return [int(status.rpartition(" ")[2]) for status in done]

    async def _writes_ended(self) -> bool:
        """Wait until every transaction that has written anything by now has ended.

        False if one of them takes longer than a write of ours ever does.
        """
        [[(newest,)]] = await self._read_opened([(_NEWEST_WRITE, ())])
        deadline = time.monotonic() + WRITE_TIMEOUT_S
        while time.monotonic() < deadline:
            [[(oldest,)]] = await self._read_opened([(_OLDEST_WRITE, ())])
            if oldest >= newest:
                return True
            await asyncio.sleep(_WRITES_ENDED_DELAY_S)
        return False

    async def _delete(self, tenant_id: TenantId, trace_ids: Sequence[TraceId]) -> int:
        self._opening.require_open()
        with translated_write_errors():
            async with self._writers.acquire() as connection:
                async with connection.transaction():
                    deleted = await _delete_locked(connection, tenant_id, trace_ids)
                if deleted:
                    await forget_operations_without_traces(connection, tenant_id)
                return deleted


async def _delete_locked(
    connection: Connection, tenant_id: TenantId, trace_ids: Sequence[TraceId]
) -> int:
    locked = await connection.fetch(LOCK_TRACES, tenant_id, trace_ids)
    if locked:
        first = min(row["start_time_ns"] for row in locked)
        last = max(row["end_time_ns"] for row in locked)
        found = [row["trace_id"] for row in locked]
        await connection.execute(_DELETE_SPANS, tenant_id, found, first, last)
        await connection.execute(_DELETE_TRACES, tenant_id, found)
    return len(locked)
