"""SQLite as a Storage: one thread writes, others read, all on one file in WAL mode."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Self

import msgspec

from msgtrace.errors import SchemaMismatch
from msgtrace.model.batch import SpanBatch
from msgtrace.model.search import TraceFilter
from msgtrace.model.span import Row, TenantId, TraceId
from msgtrace.settings.table import Settings
from msgtrace.storage.dead_letters import SqlDeadLetters
from msgtrace.storage.filter_maker import FilterMaker
from msgtrace.storage.operations import ToldOperations
from msgtrace.storage.protocol import StorageStatus
from msgtrace.storage.reader import SqlReader, Statement, delete_matching
from msgtrace.storage.sqlite.connection import (
    ConnectionThread,
    database_path,
    open_reader,
    open_writer,
    translated_write_errors,
    write_transaction,
)
from msgtrace.storage.sqlite.maintenance import SqliteMaintenance
from msgtrace.storage.sqlite.operations import DELETE_WITHOUT_TRACES
from msgtrace.storage.sqlite.reader import DIALECT, ReaderThreads, read_snapshot
from msgtrace.storage.sqlite.rebuild import SqliteRebuild
from msgtrace.storage.sqlite.schema import apply_pending, require_current
from msgtrace.storage.sqlite.status import read_status
from msgtrace.storage.sqlite.writer import is_large, write_batches, write_large

_CHECK = "SELECT number FROM schema_migrations LIMIT 1"


class SqliteStorage(SqlReader, SqliteRebuild):
    """See `storage.protocol.Storage`.

    Several processes may share the file; their writes take turns.
    """

    backend = "sqlite"
    can_be_away = False
    writer_count = 1

    def __init__(
        self, url: str, writer: ConnectionThread, readers: ReaderThreads, checker: ConnectionThread
    ) -> None:
        super().__init__(readers.read, DIALECT, msgspec.json.decode)
        self.dead_letters = SqlDeadLetters(readers.read, self._write, self._read_now)
        self.maintenance = SqliteMaintenance(database_path(url), writer, readers.read)
        self._path = database_path(url)
        self._url = url
        self._writer = writer
        self._told = ToldOperations()
        self._readers = readers
        self._checker = checker

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, settings: Settings) -> AsyncIterator[Self]:
        """The file of `settings.database_url`, made if absent, with the current schema."""
        path = database_path(settings.database_url)
        if not settings.auto_migrate and not path.exists():
            raise SchemaMismatch(f"{path} does not exist; run `msgtrace-admin migrate`")
        writer = ConnectionThread(lambda: open_writer(path), "msgtrace-sqlite-write")
        readers = ReaderThreads(path, settings.query_timeout_s)
        # All readers may be busy, which is no reason to call the database absent.
        checker = ConnectionThread(lambda: open_reader(path), "msgtrace-sqlite-check")
        try:
            await writer.run(apply_pending if settings.auto_migrate else require_current)
            yield cls(settings.database_url, writer, readers, checker)
        finally:
            await checker.aclose()
            await readers.aclose()
            await writer.aclose()

    async def write_spans(self, batches: Sequence[SpanBatch]) -> int:
        """See SpanWriter."""
        if is_large(batches):
            return await self._writer.run(lambda _: write_large(self._path, batches, self._told))
        return await self._writer.run(
            lambda connection: write_batches(connection, batches, self._told)
        )

    async def delete_trace(self, tenant_id: TenantId, trace_id: TraceId) -> bool:
        """See StorageAdmin."""
        return await self._delete(tenant_id, [trace_id]) == 1

    async def delete_traces(self, tenant_id: TenantId, trace_filter: TraceFilter) -> int:
        """See StorageAdmin."""
        return await delete_matching(self, self._delete, tenant_id, trace_filter)

    async def make_attribute_filters(self) -> int:
        """See StorageAdmin."""

        return await FilterMaker(self._readers.read, self._write_each, _writes_ended).make()

    async def check(self) -> None:
        """See StorageAdmin."""
        await self._checker.run(lambda connection: connection.execute(_CHECK).fetchall())

    def count_connections(self) -> Mapping[str, tuple[int, int]]:
        """See StorageAdmin."""
        return {}

    async def get_status(self) -> StorageStatus:
        """See StorageAdmin."""
        return await read_status(self._readers.read, self._url)

    async def _read_now(self, statements: Sequence[Statement]) -> list[list[Row]]:
        """See ReadSql; for small questions that must not wait for other reads."""
        return await self._checker.run(lambda connection: read_snapshot(connection, statements))

    async def _write(self, statement: Statement) -> int:
        return await self._writer.run(lambda connection: _execute(connection, statement))

    async def _write_each(self, statements: Sequence[Statement]) -> list[int]:
        return await self._writer.run(lambda connection: _execute_each(connection, statements))

    async def _delete(self, tenant_id: TenantId, trace_ids: Sequence[TraceId]) -> int:
        return await self._writer.run(lambda connection: _delete(connection, tenant_id, trace_ids))


async def _writes_ended() -> bool:
    """Writes take turns: those before the claim have ended."""
    return True


def _execute(connection: sqlite3.Connection, statement: Statement) -> int:
    with translated_write_errors(), write_transaction(connection):
        return connection.execute(*statement).rowcount


def _execute_each(connection: sqlite3.Connection, statements: Sequence[Statement]) -> list[int]:
    with translated_write_errors(), write_transaction(connection):
        return [connection.execute(*statement).rowcount for statement in statements]


def _delete(
    connection: sqlite3.Connection, tenant_id: TenantId, trace_ids: Sequence[TraceId]
) -> int:
    marks = ", ".join("?" * len(trace_ids))
    with translated_write_errors(), write_transaction(connection):
        _, traces = (
            connection.execute(
                f"DELETE FROM {table} WHERE tenant_id = ? AND trace_id IN ({marks})",  # noqa: S608 - constants only
                (tenant_id, *trace_ids),
            ).rowcount
            for table in ("spans", "traces")
        )
        connection.execute(DELETE_WITHOUT_TRACES, (tenant_id, tenant_id))
        return traces
