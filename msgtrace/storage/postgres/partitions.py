"""One partition of `spans` a day, made before a row needs it.

Only days near today get one; spans of clocks further off go to the default partition. A partition
is made beside the table and then attached, which lets readers and writers of other days go on.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from datetime import UTC, datetime

import asyncpg

from msgtrace.model.units import NS_PER_DAY
from msgtrace.storage.postgres.connection import Connection, Pool
from msgtrace.storage.postgres.schema import SCHEMA_LOCK

logger = logging.getLogger(__name__)

DAYS_BACK = 30
DAYS_AHEAD = 2

_LIST = """
SELECT child.relname FROM pg_inherits
JOIN pg_class child ON child.oid = pg_inherits.inhrelid
WHERE pg_inherits.inhparent = 'spans'::regclass
"""

_NOT_ATTACHED = (
    asyncpg.CheckViolationError,  # the default partition already holds spans of that day
    asyncpg.LockNotAvailableError,  # somebody reads the default partition for long
    asyncpg.DuplicateTableError,
    asyncpg.InsufficientPrivilegeError,
)


class DayPartitions:
    """Knows which days have a partition, and makes the missing ones."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._settled: set[int] = set()

    async def ensure(self, spans_ns: Iterable[tuple[int, int]]) -> None:
        """Make the partitions for spans that start within these (first, last) times.

        A day whose partition cannot be made now is left to the default partition: late rows are
        better than none.
        """
        today = time.time_ns() // NS_PER_DAY
        oldest, newest = today - DAYS_BACK, today + DAYS_AHEAD
        wanted = {today, today + 1}  # tomorrow's stands before midnight
        for first_ns, last_ns in spans_ns:
            first, last = max(first_ns // NS_PER_DAY, oldest), min(last_ns // NS_PER_DAY, newest)
            wanted.update(range(first, last + 1))
        for day in sorted(wanted - self._settled):
            await self._make(day)
            self._settled.add(day)

    async def _make(self, day: int) -> None:
        name = f"spans_{datetime.fromtimestamp(day * 86_400, UTC):%Y%m%d}"
        async with self._pool.acquire() as connection:
            if name in {row[0] for row in await connection.fetch(_LIST)}:
                return
            try:
                await _attach(connection, name, day)
            except _NOT_ATTACHED as error:
                logger.warning(
                    "partition_not_made", extra={"partition": name, "reason": type(error).__name__}
                )


async def _attach(connection: Connection, name: str, day: int) -> None:
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
