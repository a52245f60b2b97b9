"""The table of operations on PostgreSQL, within whatever transaction is under way."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from msgtrace.model.batch import SeenOperation
from msgtrace.model.span import TenantId, TraceId
from msgtrace.storage.operations import (
    COUNT_BY_SERVICE,
    DOUBT_ALL,
    HAS_NO_TRACES,
    IS_BEFORE,
    IS_DOUBTED,
    ON_KNOWN_OPERATION,
    OPERATION_COLUMNS,
    OPERATIONS_OF,
    ServiceKey,
    last_days,
    within_bounds,
)
from msgtrace.storage.postgres.connection import Connection
from msgtrace.storage.postgres.reader import numbered

_COLUMN_LIST = ", ".join(OPERATION_COLUMNS)

_SEEN = (
    "unnest($1::integer[], $2::text[], $3::text[], $4::integer[], $5::integer[])"
    f" AS seen ({_COLUMN_LIST})"
)

# Locks nothing: most often all are known.
_FIND_NEWS = f"""
SELECT seen.*, known.last_day IS NOT NULL AS is_known
FROM {_SEEN} LEFT JOIN operations known USING (tenant_id, service_name, name, kind)
WHERE known.last_day IS NULL OR known.last_day < seen.last_day
"""  # noqa: S608 - built from constants

_INSERT = f"""
INSERT INTO operations ({_COLUMN_LIST}) SELECT * FROM {_SEEN} {ON_KNOWN_OPERATION}
"""  # noqa: S608 - built from constants

_OPERATIONS_OF = numbered(OPERATIONS_OF.format(members="= ANY(?::bytea[])"))


def _unless_locked(change: str, condition: str) -> str:
    """Rows that a writer holds are being told of. So nobody waits here, in whichever order."""
    chosen = f"SELECT ctid FROM operations WHERE {condition} FOR UPDATE SKIP LOCKED"  # noqa: S608 - built from constants
    return numbered(f"{change} WHERE ctid = ANY (ARRAY({chosen}))")


_DELETE = "DELETE FROM operations"

DELETE_BEFORE = _unless_locked(_DELETE, IS_BEFORE)
DELETE_WITHOUT_TRACES = _unless_locked(_DELETE, HAS_NO_TRACES)
DELETE_DOUBTED = _unless_locked(_DELETE, IS_DOUBTED)
DOUBT_UNLOCKED = _unless_locked(DOUBT_ALL, "true")


async def tell_operations(connection: Connection, seen: Sequence[SeenOperation]) -> set[ServiceKey]:
    """Keep what the table does not say yet; return the services that have no room for all.

    seen: in order of keys. Whoever also locks rows of traces does so afterwards.
    """
    full: set[ServiceKey] = set()
    if not seen:
        return full
    news = await connection.fetch(_FIND_NEWS, *_columns(seen))
    new = [_operation(row) for row in news if not row["is_known"]]
    if new:
        counts = await connection.fetch(COUNT_BY_SERVICE)
        new, full = within_bounds(sorted(new), [tuple(row) for row in counts])
    later = [_operation(row) for row in news if row["is_known"]]
    if new or later:
        await connection.execute(_INSERT, *_columns(sorted(new + later)))
    return full


async def tell_operations_of(
    connection: Connection, tenant_id: TenantId, trace_ids: Sequence[TraceId]
) -> None:
    """What the stored spans of these traces are called."""
    rows = await connection.fetch(_OPERATIONS_OF, tenant_id, trace_ids)
    await tell_operations(connection, last_days(map(_operation, rows)))


async def forget_operations_without_traces(connection: Connection, tenant_id: TenantId) -> None:
    """Of a tenant that has no traces any more."""
    await connection.execute(DELETE_WITHOUT_TRACES, tenant_id, tenant_id)


def _columns(seen: Sequence[SeenOperation]) -> list[list[object]]:
    return [list(column) for column in zip(*seen, strict=True)]


def _operation(row: Iterable[Any]) -> SeenOperation:
    tenant_id, service_name, name, kind, day, *_ = row
    return tenant_id, service_name, name, kind, day
