"""Maintenance of a PostgreSQL database, on connections of its own: none of ingest's is taken."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable

import asyncpg

from msgtrace.model.maintenance import (
    Finding,
    Partition,
    PurgePlan,
    RetentionState,
    SizeVerdict,
    VacuumStep,
)
from msgtrace.model.span import TraceId
from msgtrace.model.units import NS_PER_DAY
from msgtrace.settings.table import Settings
from msgtrace.storage.operations import examine_operations
from msgtrace.storage.postgres.connection import PlainConnection, connect
from msgtrace.storage.postgres.errors import translated_errors, translated_write_errors
from msgtrace.storage.postgres.examine import examine_server
from msgtrace.storage.postgres.partitions import list_day_partitions, make_partition, quoted
from msgtrace.storage.postgres.purge import PostgresPurger
from msgtrace.storage.reader import ReadSql
from msgtrace.storage.recompute import find_drift
from msgtrace.storage.retention_state import read_state

RETENTION_LOCK = 0x6D736772
"""Advisory lock ("msgr") that the one who purges holds."""

CONNECT_TIMEOUT_S = 5.0
STEP_TIMEOUT_S = 60.0

COUNTED_TRACES = 100_000
"""A plan with more traces takes its spans from the partitions' statistics."""

_EXPIRED = """
SELECT count(*), coalesce(sum(span_count), 0)::bigint FROM (
    SELECT span_count FROM traces
    WHERE tenant_id IN (SELECT tenant_id FROM tenants) AND start_time_ns < $1 LIMIT $2
) AS expired
"""

_EXPIRED_TRACES = """
SELECT count(*) FROM traces
WHERE tenant_id IN (SELECT tenant_id FROM tenants) AND start_time_ns < $1
"""

_EXPIRED_IN_DEFAULT = "SELECT count(*) FROM spans_default WHERE start_time_ns < $1"

_OTHER_TABLES = ("traces", "operations", "resources", "scopes", "dead_letters")

_OTHER_BYTES = """
SELECT sum(pg_total_relation_size(name::regclass))::bigint FROM unnest($1::text[]) AS name
"""


class PostgresMaintenance:
    """See `storage.protocol.Maintenance`.

    require_open: raises StorageUnavailable until the database has the schema.
    """

    def __init__(self, settings: Settings, read: ReadSql, require_open: Callable[[], None]) -> None:
        self._settings = settings
        self._read = read
        self._require_open = require_open

    @contextlib.asynccontextmanager
    async def purging(self) -> AsyncIterator[PostgresPurger | None]:
        """See Maintenance. The lock ends with the connection."""
        async with self._connected() as connection:
            with translated_write_errors():
                is_ours = await connection.fetchval(
                    "SELECT pg_try_advisory_lock($1)", RETENTION_LOCK
                )
            yield PostgresPurger(connection) if is_ours else None

    def edge_of(self, before_ns: int) -> int:
        """See Maintenance: midnight, UTC, as whole partitions are dropped."""
        return max(before_ns - before_ns % NS_PER_DAY, 0)

    async def plan_purge(self, before_ns: int) -> PurgePlan:
        """See Maintenance."""
        edge_ns = self.edge_of(before_ns)
        async with self._connected() as connection:
            with translated_errors():
                expired = [
                    each
                    for each in await list_day_partitions(connection)
                    if each.end_ns is not None and each.end_ns <= edge_ns
                ]
                [(traces, spans)] = await connection.fetch(_EXPIRED, edge_ns, COUNTED_TRACES + 1)
                if traces > COUNTED_TRACES:
                    traces = await connection.fetchval(_EXPIRED_TRACES, edge_ns)
                    spans = await connection.fetchval(_EXPIRED_IN_DEFAULT, edge_ns)
                    spans += sum(each.rows for each in expired)
        return PurgePlan(
            before_ns=edge_ns,
            traces=traces,
            spans=spans,
            freed_bytes=sum(each.bytes for each in expired),
            partitions=tuple(each.name for each in expired),
        )

    async def judge_size(self, max_bytes: int, now_ns: int) -> SizeVerdict:
        """See Maintenance. The partition of today, and what follows, is never dropped for size."""
        async with self._connected() as connection:
            with translated_errors():
                partitions = await list_day_partitions(connection)
                used_bytes = await connection.fetchval(_OTHER_BYTES, _OTHER_TABLES)
        used_bytes += sum(each.bytes for each in partitions)
        excess, edge_ns = used_bytes - max_bytes, None
        for each in partitions:
            if excess <= 0 or each.end_ns is None or each.end_ns > now_ns:
                break
            excess, edge_ns = excess - each.bytes, each.end_ns
        return SizeVerdict(used_bytes=used_bytes, edge_ns=edge_ns)

    async def get_retention_state(self) -> RetentionState:
        """See Maintenance."""
        return await read_state(self._read)

    async def make_partitions(self, days_ahead: int) -> list[str]:
        """See Maintenance."""
        today = time.time_ns() // NS_PER_DAY
        async with self._connected() as connection:
            with translated_write_errors():
                made = [
                    await make_partition(connection, day)
                    for day in range(today, today + days_ahead + 1)
                ]
        return [name for name in made if name is not None]

    async def list_partitions(self) -> list[Partition]:
        """See Maintenance."""
        async with self._connected() as connection:
            with translated_errors():
                return await list_day_partitions(connection)

    async def vacuum(self, *, full: bool) -> AsyncGenerator[VacuumStep, None]:
        """See Maintenance. One table after the other; a full one locks each of them meanwhile."""
        async with self._connected(timeout_s=None) as connection:
            with translated_write_errors():
                tables = [each.name for each in await list_day_partitions(connection)]
                tables += _OTHER_TABLES
                options = "FULL, ANALYZE" if full else "ANALYZE"
                for done, table in enumerate(tables):
                    yield VacuumStep(done=done, total=len(tables), table=table)
                    with contextlib.suppress(asyncpg.UndefinedTableError):  # purged since
                        await connection.execute(f"VACUUM ({options}) {quoted(table)}")
        yield VacuumStep(done=len(tables), total=len(tables))

    async def examine(self) -> list[Finding]:
        """See Maintenance."""
        async with self._connected() as connection:
            with translated_errors():
                pooled = self._settings.database_writers + self._settings.database_readers
                found = await examine_server(connection, pooled)
        return [*found, await examine_operations(self._read)]

    async def sample_drift(self, trace_count: int) -> tuple[int, list[TraceId]]:
        """See Maintenance."""
        looked_at, drifted = await find_drift(self._read, list, trace_count)
        return looked_at, [trace_id for _, trace_id in drifted]

    @contextlib.asynccontextmanager
    async def _connected(
        self, timeout_s: float | None = STEP_TIMEOUT_S
    ) -> AsyncIterator[PlainConnection]:
        self._require_open()
        with translated_errors():
            connection = await connect(
                self._settings,
                timeout_s=CONNECT_TIMEOUT_S,
                command_timeout_s=timeout_s,
                application_name="msgtrace maintenance",
                # What a crash undoes of a purge is purged again.
                synchronous_commit="off",
            )
        try:
            yield connection
        except BaseException:
            connection.terminate()  # the server may be gone; a goodbye would wait for it
            raise
        with contextlib.suppress(Exception):
            await connection.close(timeout=CONNECT_TIMEOUT_S)
