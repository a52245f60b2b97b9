"""One partition of `spans` a day, made before a row needs it.

Only days near today get one; spans of clocks further off go to the default partition, and so do
spans of days that retention has deleted or is about to. A partition is made beside the table and
then attached, which lets readers and writers of other days go on.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TypeAlias

import asyncpg

from msgtrace.errors import DataRefused
from msgtrace.model.maintenance import Partition
from msgtrace.model.units import NS_PER_DAY, NS_PER_S
from msgtrace.storage.postgres.connection import Connection, PlainConnection, Pool
from msgtrace.storage.postgres.schema import SCHEMA_LOCK

logger = logging.getLogger(__name__)

DAYS_BACK = 30
DAYS_AHEAD = 2

_LIST = """
SELECT child.relname AS name, pg_get_expr(child.relpartbound, child.oid) AS bounds,
    pg_total_relation_size(child.oid) AS bytes, pg_relation_size(child.oid) AS heap_bytes,
    child.reltuples::bigint AS analyzed_rows, child.relpages AS analyzed_pages,
    pg_stat_get_live_tuples(child.oid) AS counted_rows
FROM pg_inherits JOIN pg_class child ON child.oid = pg_inherits.inhrelid
WHERE pg_inherits.inhparent = 'spans'::regclass
"""

_EXISTS = """
SELECT EXISTS (
    SELECT 1 FROM pg_inherits JOIN pg_class child ON child.oid = pg_inherits.inhrelid
    WHERE pg_inherits.inhparent = 'spans'::regclass AND child.relname = $1
)
"""

_BOUND = re.compile(r"\('?(-?\d+)'?\)")

_PAGE_BYTES = 8192

_NOT_ATTACHED = (
    asyncpg.CheckViolationError,  # the default partition already holds spans of that day
    asyncpg.LockNotAvailableError,  # somebody reads the default partition for long
    asyncpg.DuplicateTableError,
    asyncpg.InsufficientPrivilegeError,
)

AnyConnection: TypeAlias = "Connection | PlainConnection"


class DayPartitions:
    """Knows which days have a partition, and makes the missing ones.

    keep_s: how old spans may be before they are purged, None for ever.
    """

    def __init__(self, pool: Pool, keep_s: float | None = None) -> None:
        self._pool = pool
        self._keep_ns = None if keep_s is None else round(keep_s * NS_PER_S)
        self._settled: set[int] = set()

    async def ensure(self, spans_ns: Iterable[tuple[int, int]]) -> None:
        """Make the partitions for spans that start within these (first, last) times.

        A day whose partition cannot be made now is left to the default partition: late rows are
        better than none.
        """
        now_ns = time.time_ns()
        today = now_ns // NS_PER_DAY
        oldest, newest = today - DAYS_BACK, today + DAYS_AHEAD
        if self._keep_ns is not None:
            oldest = max(oldest, (now_ns - self._keep_ns) // NS_PER_DAY)
        wanted = {today, today + 1}  # tomorrow's stands before midnight
        for first_ns, last_ns in spans_ns:
            first, last = max(first_ns // NS_PER_DAY, oldest), min(last_ns // NS_PER_DAY, newest)
            wanted.update(range(first, last + 1))
        missing = sorted(wanted - self._settled)
        if not missing:
            return
        async with self._pool.acquire() as connection:
            for day in missing:
                await make_partition(connection, day)
                self._settled.add(day)


def was_made_meanwhile(error: DataRefused) -> bool:
    """Whether rows were refused because they were on their way to the default partition.

    Somebody attached the partition of their day just then; a second try finds it. A constraint
    that somebody has added has a name.
    """
    cause = error.__cause__
    return isinstance(cause, asyncpg.CheckViolationError) and cause.constraint_name is None


async def make_partition(connection: AnyConnection, day: int) -> str | None:
    """Make the partition of a day, counted from the epoch; its name if there was none.

    One that cannot be made now is no error: the default partition takes its spans.
    """
    name = f"spans_{datetime.fromtimestamp(day * 86_400, UTC):%Y%m%d}"
    if await connection.fetchval(_EXISTS, name):
        return None
    try:
        await _attach(connection, name, day)
    except _NOT_ATTACHED as error:
        logger.warning(
            "partition_not_made", extra={"partition": name, "reason": type(error).__name__}
        )
        return None
    return name


async def list_day_partitions(connection: AnyConnection) -> list[Partition]:
    """All partitions by time, the default one last. Rows are estimates."""
    found = [_partition(row) for row in await connection.fetch(_LIST)]
    return sorted(found, key=lambda each: (each.first_ns is None, each.first_ns or 0, each.name))


def quoted(name: str) -> str:
    """A name as SQL takes it, whatever is in it: operators may attach partitions of their own."""
    return '"' + name.replace('"', '""') + '"'


def estimated_rows(
    *, analyzed_rows: int, analyzed_pages: int, heap_bytes: int, counted_rows: int
) -> int:
    """How many rows a table has, from its statistics.

    analyzed: as of the last VACUUM or ANALYZE, -1 rows if there was none; the table has grown
    since. counted: by the server since its statistics were last lost, in a crash.
    """
    if analyzed_rows <= 0 or analyzed_pages <= 0:
        return counted_rows
    pages = heap_bytes / _PAGE_BYTES
    return max(counted_rows, round(analyzed_rows / analyzed_pages * pages))


def _partition(row: asyncpg.Record) -> Partition:
    bounds = [int(text) for text in _BOUND.findall(row["bounds"])]
    first_ns, end_ns = bounds if len(bounds) == 2 else (None, None)
    rows = estimated_rows(
        analyzed_rows=row["analyzed_rows"],
        analyzed_pages=row["analyzed_pages"],
        heap_bytes=row["heap_bytes"],
        counted_rows=row["counted_rows"],
    )
    return Partition(
        name=row["name"], first_ns=first_ns, end_ns=end_ns, rows=rows, bytes=row["bytes"]
    )


async def _attach(connection: AnyConnection, name: str, day: int) -> None:
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", SCHEMA_LOCK)
        if await connection.fetchval("SELECT to_regclass($1)", name) is not None:
            return
        await connection.execute("SET LOCAL lock_timeout = '2s'")
        await connection.execute(
            f"CREATE TABLE {name} (LIKE spans INCLUDING DEFAULTS INCLUDING CONSTRAINTS)"
        )
        first_ns, end_ns = day * NS_PER_DAY, (day + 1) * NS_PER_DAY
        await connection.execute(
            f"ALTER TABLE spans ATTACH PARTITION {name} FOR VALUES FROM ({first_ns}) TO ({end_ns})"
        )
