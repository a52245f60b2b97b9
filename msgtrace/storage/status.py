"""What operators ask about the content of a database, in SQL that every backend understands."""

from __future__ import annotations

import time
from dataclasses import dataclass

from msgtrace.model.maintenance import RetentionState
from msgtrace.model.units import NS_PER_S
from msgtrace.storage.reader import ReadSql
from msgtrace.storage.retention_state import read_state

RATE_WINDOW_S = 60

_MIGRATIONS = "SELECT name FROM schema_migrations ORDER BY number"

_FIRST_AND_LAST = """
SELECT min(first_ns), max(last_ns) FROM (
    SELECT
        (SELECT min(start_time_ns) FROM traces WHERE tenant_id = each.tenant_id) AS first_ns,
        (SELECT max(start_time_ns) FROM traces WHERE tenant_id = each.tenant_id) AS last_ns
    FROM tenants AS each
) AS edges
"""

_RECENT_SPANS = """
SELECT coalesce(sum(span_count), 0) FROM traces
WHERE tenant_id IN (SELECT tenant_id FROM tenants) AND start_time_ns >= ? AND start_time_ns < ?
"""

COUNTS = "SELECT count(*), CAST(coalesce(sum(span_count), 0) AS bigint) FROM traces"
"""Exact, and reads all summaries."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What `StorageStatus` says and no backend knows better."""

    migrations: list[str]
    oldest_ns: int | None
    newest_ns: int | None
    spans_per_s: float
    retention: RetentionState


async def read_content(read: ReadSql) -> Content:
    """Read it; no statement looks at more than a minute of traces."""
    now_ns = time.time_ns()
    since_ns = now_ns - RATE_WINDOW_S * NS_PER_S
    migrations, [(oldest_ns, newest_ns)], [(recent_spans,)] = await read(
        [(_MIGRATIONS, ()), (_FIRST_AND_LAST, ()), (_RECENT_SPANS, (since_ns, now_ns))]
    )
    return Content(
        migrations=[name for (name,) in migrations],
        oldest_ns=oldest_ns,
        newest_ns=newest_ns,
        spans_per_s=float(recent_spans) / RATE_WINDOW_S,
        retention=await read_state(read),
    )
