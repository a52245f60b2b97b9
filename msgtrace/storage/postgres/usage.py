"""Which statements about tokens and cost count, settled within the transaction of a flush.

The rows of the traces are locked by then, so each statement here sees what all flushes before have
committed of them.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgtrace.model.batch import TraceKey
from msgtrace.model.span import Row
from msgtrace.storage.postgres.connection import Connection, PlainConnection
from msgtrace.storage.postgres.reader import numbered
from msgtrace.storage.usage import (
    SAY_WHAT_COUNTS,
    SET_TOTALS,
    USAGE_COLUMNS,
    settle,
    settling_sql,
)

_SQL = settling_sql(members="= ANY(?::bytea[])", is_lateral=True)


_INSERT_UNLESS_KNOWN = f"""
INSERT INTO model_usage ({", ".join(USAGE_COLUMNS)})
VALUES ({", ".join(f"${n}" for n in range(1, len(USAGE_COLUMNS) + 1))}) ON CONFLICT DO NOTHING
"""  # noqa: S608 - built from constants


async def insert_usage(connection: Connection | PlainConnection, rows: Sequence[Row]) -> None:
    """Insert rows of USAGE_COLUMNS. Raises UniqueViolationError if one is there already."""
    if rows:
        await connection.copy_records_to_table(
            "model_usage", records=rows, columns=list(USAGE_COLUMNS)
        )


async def insert_new_usage(connection: Connection, rows: Sequence[Row]) -> None:
    """The same, but a row that is there already stays.

    It may be there though its span is not: a purge drops partitions before it has gone over the
    summaries for the last time, and somebody may resend a span in between.
    """
    if rows:
        await connection.executemany(_INSERT_UNLESS_KNOWN, rows)


async def settle_usage(connection: Connection, keys: Sequence[TraceKey]) -> None:
    """Take back from the sums of these traces what nested spans state twice."""
    for tenant_id in {tenant_id for tenant_id, _ in keys}:
        own = [trace_id for each, trace_id in keys if each == tenant_id]
        stated = await connection.fetch(numbered(_SQL.stated), tenant_id, own)
        links = await connection.fetch(numbered(_SQL.links), tenant_id, own, tenant_id)
        settlement = settle(map(tuple, stated), (tuple(link) for link in links))
        if settlement.totals:
            await connection.executemany(numbered(SAY_WHAT_COUNTS), settlement.verdicts)
            await connection.executemany(numbered(SET_TOTALS), settlement.totals)
