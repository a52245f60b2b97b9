"""Maintenance of a SQLite file.

Purges run on the connection that writes spans, a short transaction at a time: a flush waits for one
of them at most, and none is turned away because the file is locked.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import msgspec

from msgtrace.errors import NotSupported, StorageUnavailable
from msgtrace.model.maintenance import (
    Finding,
    Partition,
    Purged,
    PurgePlan,
    RetentionState,
    SizeVerdict,
    VacuumStep,
)
from msgtrace.model.span import Row, TraceId
from msgtrace.storage.file_lock import lock_file
from msgtrace.storage.operations import examine_operations
from msgtrace.storage.pace import rest_after
from msgtrace.storage.reader import ReadSql
from msgtrace.storage.recompute import find_drift
from msgtrace.storage.retention_state import read_state, state_statement
from msgtrace.storage.sqlite.connection import (
    ConnectionThread,
    open_connection,
    translated_write_errors,
    write_transaction,
)
from msgtrace.storage.sqlite.examine import examine_file
from msgtrace.storage.sqlite.purge import (
    FREE_SHARE,
    INCREMENTAL,
    give_back_step,
    list_tenants,
    purge_operations,
    purge_step,
)

T = TypeVar("T")

_EXPIRED = """
SELECT count(*), coalesce(sum(span_count), 0) FROM traces
WHERE tenant_id IN (SELECT tenant_id FROM tenants) AND start_time_ns < ?
"""

_USED_BYTES = """
SELECT (page_count - freelist_count) * page_size
FROM pragma_page_count, pragma_freelist_count, pragma_page_size
"""

_ALL_SPANS = "SELECT coalesce(sum(span_count), 0) FROM traces"

# The start of the trace with which the oldest traces together have so many spans.
_EDGE_AFTER_SPANS = """
SELECT min(start_time_ns) FROM (
    SELECT start_time_ns, sum(span_count) OVER (ORDER BY start_time_ns) AS running_count
    FROM traces WHERE start_time_ns < ?
) WHERE running_count >= ?
"""

_SIZE_AIM = 0.95
"""A purge for size goes a little further than it must, so that not every run has to purge."""

_FULL_VACUUM_TIMEOUT_S = 86_400.0

_NO_PARTITIONS = (
    "a SQLite file has no partitions; its expired spans are deleted in small transactions"
)

_NOT_INCREMENTAL = (
    "this file was made by a version that could not give space back bit by bit;"
    " stop the collector and run `msgtrace-admin vacuum --full` once"
)


class SqliteMaintenance:
    """See `storage.protocol.Maintenance`."""

    def __init__(self, path: Path, writer: ConnectionThread, read: ReadSql) -> None:
        self._path = path
        self._writer = writer
        self._read = read

    @contextlib.asynccontextmanager
    async def purging(self) -> AsyncIterator[SqlitePurger | None]:
        """See Maintenance."""
        with contextlib.ExitStack() as locks:
            name = f"{self._path.name}-maintenance"
            try:
                is_ours = lock_file(self._path.with_name(name), locks)
            except OSError as error:
                reason = error.strerror or str(error)
                raise StorageUnavailable(f"cannot lock {name}: {reason}") from error
            yield SqlitePurger(self._writer) if is_ours else None

    def edge_of(self, before_ns: int) -> int:
        """See Maintenance: any time is as good as another here."""
        return max(before_ns, 0)

    async def plan_purge(self, before_ns: int) -> PurgePlan:
        """See Maintenance."""
        edge_ns = self.edge_of(before_ns)
        [[(traces, spans)], [(used_bytes,)], [(all_spans,)]] = await self._read(
            [(_EXPIRED, (edge_ns,)), (_USED_BYTES, ()), (_ALL_SPANS, ())]
        )
        return PurgePlan(
            before_ns=edge_ns,
            traces=traces,
            spans=spans,
            freed_bytes=used_bytes * spans // all_spans if all_spans else 0,
        )

    async def judge_size(self, max_bytes: int, now_ns: int) -> SizeVerdict:
        """See Maintenance. Free pages of the file do not count: they are used before it grows."""
        [[(used_bytes,)]] = await self._read([(_USED_BYTES, ())])
        if used_bytes <= max_bytes:
            return SizeVerdict(used_bytes=used_bytes, edge_ns=None)
        [[(all_spans,)]] = await self._read([(_ALL_SPANS, ())])
        excess_share = 1 - _SIZE_AIM * max_bytes / used_bytes
        wanted = max(1, round(all_spans * excess_share))
        [[(last_start_ns,)]] = await self._read([(_EDGE_AFTER_SPANS, (now_ns, wanted))])
        edge_ns = now_ns if last_start_ns is None else last_start_ns + 1
        return SizeVerdict(used_bytes=used_bytes, edge_ns=edge_ns)

    async def get_retention_state(self) -> RetentionState:
        """See Maintenance."""
        return await read_state(self._read)

    async def make_partitions(self, days_ahead: int) -> list[str]:
        """See Maintenance."""
        del days_ahead
        return []

    async def list_partitions(self) -> list[Partition]:
        """See Maintenance."""
        raise NotSupported(_NO_PARTITIONS)

    async def vacuum(self, *, full: bool) -> AsyncGenerator[VacuumStep, None]:
        """See Maintenance."""
        if full:
            yield VacuumStep(done=0, total=1, table=self._path.name)
            await self._rewrite()
            yield VacuumStep(done=1, total=1)
            return
        mode, total = await self._writer.run(_free_pages)
        if mode != INCREMENTAL:
            raise NotSupported(_NOT_INCREMENTAL)
        done = 0
        yield VacuumStep(done=0, total=total, table=self._path.name)
        while moved := await _step(self._writer, lambda each: give_back_step(each, 0.0)):
            done = min(done + moved, total)
            yield VacuumStep(done=done, total=total, table=self._path.name)
        await self._writer.run(_shorten_wal)
        yield VacuumStep(done=total, total=total)

    async def examine(self) -> list[Finding]:
        """See Maintenance."""
        found = await self._writer.run(lambda connection: examine_file(connection, self._path))
        return [*found, await examine_operations(self._read)]

    async def sample_drift(self, trace_count: int) -> tuple[int, list[TraceId]]:
        """See Maintenance."""
        looked_at, drifted = await find_drift(self._read, msgspec.json.decode, trace_count)
        return looked_at, [trace_id for _, trace_id in drifted]

    async def _rewrite(self) -> None:
        thread = ConnectionThread(lambda: open_connection(self._path), "msgtrace-sqlite-vacuum")
        try:
            # With a limit of time, so that whoever gives up waiting also ends the work.
            await thread.run(_vacuum, _FULL_VACUUM_TIMEOUT_S)
        finally:
            await thread.aclose()


class SqlitePurger:
    """See `storage.protocol.Purger`."""

    def __init__(self, writer: ConnectionThread) -> None:
        self._writer = writer

    async def purge(self, before_ns: int) -> AsyncGenerator[Purged, None]:
        """See Purger."""
        for tenant_id in await self._writer.run(list_tenants):
            step = partial(purge_step, tenant_id=tenant_id, before_ns=before_ns)
            while purged := await _step(self._writer, step):
                yield purged
        await self._writer.run(lambda connection: purge_operations(connection, before_ns))

    async def record(self, purged: Purged, *, before_ns: int, now_ns: int) -> None:
        """See Purger."""
        sql, values = state_statement(purged, before_ns=before_ns, now_ns=now_ns)

        def write(connection: sqlite3.Connection) -> None:
            with translated_write_errors(), write_transaction(connection):
                connection.execute(sql, values)

        await self._writer.run(write)

    async def give_back_space(self) -> int:
        """See Purger."""
        pages = 0
        while moved := await _step(self._writer, lambda each: give_back_step(each, FREE_SHARE)):
            pages += moved
        (page_bytes,) = await self._writer.run(_page_size)
        return pages * int(page_bytes)


async def _step(writer: ConnectionThread, work: Callable[[sqlite3.Connection], T]) -> T:
    """Do a step, then rest as long as it took; how long it waited for flushes does not count."""

    def timed(connection: sqlite3.Connection) -> tuple[T, float]:
        began_s = time.monotonic()
        result = work(connection)
        return result, time.monotonic() - began_s

    result, took_s = await writer.run(timed)
    await rest_after(took_s)
    return result


def _page_size(connection: sqlite3.Connection) -> Row:
    row: Row = connection.execute("PRAGMA page_size").fetchone()
    return row


def _free_pages(connection: sqlite3.Connection) -> tuple[int, int]:
    (mode,) = connection.execute("PRAGMA auto_vacuum").fetchone()
    (free,) = connection.execute("PRAGMA freelist_count").fetchone()
    return mode, free


def _shorten_wal(connection: sqlite3.Connection) -> None:
    with translated_write_errors():
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def _vacuum(connection: sqlite3.Connection) -> None:
    with translated_write_errors():
        connection.execute(f"PRAGMA auto_vacuum = {INCREMENTAL}")
        connection.execute("VACUUM")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
