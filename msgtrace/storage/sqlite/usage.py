"""Which statements about tokens and cost count, settled within the transaction of a flush."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from msgtrace.model.batch import TraceKey
from msgtrace.storage.usage import (
    MAX_SETTLED,
    SAY_WHAT_COUNTS,
    SET_TOTALS,
    SettlingSql,
    settle,
    settling_sql,
)

_CHUNK_TRACES = 500

_SEVERAL = """
SELECT trace_id FROM traces
WHERE tenant_id = ? AND trace_id IN ({}) AND usage_count BETWEEN 2 AND ?
"""


def settle_usage(connection: sqlite3.Connection, keys: Sequence[TraceKey]) -> None:
    """Take back from the sums of these traces what nested spans state twice."""
    for tenant_id in {tenant_id for tenant_id, _ in keys}:
        own = [trace_id for each, trace_id in keys if each == tenant_id]
        for start in range(0, len(own), _CHUNK_TRACES):
            chunk = own[start : start + _CHUNK_TRACES]
            several = connection.execute(
                _SEVERAL.format(_marks(len(chunk))), (tenant_id, *chunk, MAX_SETTLED)
            ).fetchall()
            if several:
                _settle(connection, tenant_id, [trace_id for (trace_id,) in several])


def _settle(connection: sqlite3.Connection, tenant_id: int, trace_ids: Sequence[bytes]) -> None:
    sql = _settling(len(trace_ids))
    stated = connection.execute(sql.stated, (tenant_id, *trace_ids)).fetchall()
    links = connection.execute(sql.links, (tenant_id, *trace_ids, tenant_id)).fetchall()
    settlement = settle(stated, links)
    connection.executemany(SAY_WHAT_COUNTS, settlement.verdicts)
    connection.executemany(SET_TOTALS, settlement.totals)


def _settling(count: int) -> SettlingSql:
    return settling_sql(members=f"IN ({_marks(count)})", is_lateral=False)


def _marks(count: int) -> str:
    return ", ".join("?" * count)
