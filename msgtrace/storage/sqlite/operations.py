"""The table of operations on SQLite, within the transaction that is under way."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from itertools import chain

import msgspec

from msgtrace.model.batch import SeenOperation
from msgtrace.model.span import TenantId, TraceId
from msgtrace.storage.operations import (
    COUNT_BY_SERVICE,
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
from msgtrace.storage.sqlite.chunks import chunks, insert_rows

# One row, because each row fetched is a chance to lose the interpreter's lock.
_FIND_NEWS = """
WITH seen (position, tenant_id, service_name, name, kind, last_day) AS (VALUES {})
SELECT json_group_array(seen.position) FILTER (WHERE known.last_day IS NULL),
    json_group_array(seen.position) FILTER (WHERE known.last_day < seen.last_day)
FROM seen LEFT JOIN operations known USING (tenant_id, service_name, name, kind)
"""


DELETE_BEFORE = f"DELETE FROM operations WHERE {IS_BEFORE}"  # noqa: S608 - built from constants
DELETE_WITHOUT_TRACES = f"DELETE FROM operations WHERE {HAS_NO_TRACES}"  # noqa: S608 - built from constants
DELETE_DOUBTED = f"DELETE FROM operations WHERE {IS_DOUBTED}"  # noqa: S608 - built from constants


def tell_operations(
    connection: sqlite3.Connection, seen: Sequence[SeenOperation]
) -> set[ServiceKey]:
    """Keep what the table does not say yet; return the services that have no room for all."""
    full: set[ServiceKey] = set()
    new, later = _news(connection, seen)
    if new:
        new, full = within_bounds(new, connection.execute(COUNT_BY_SERVICE).fetchall())
    insert_rows(connection, "operations", OPERATION_COLUMNS, new + later, ON_KNOWN_OPERATION)
    return full


def tell_operations_of(
    connection: sqlite3.Connection, tenant_id: TenantId, trace_ids: Sequence[TraceId]
) -> None:
    """What the stored spans of these traces are called."""
    members = f"IN ({', '.join('?' * len(trace_ids))})"
    rows = connection.execute(OPERATIONS_OF.format(members=members), (tenant_id, *trace_ids))
    tell_operations(connection, last_days(rows.fetchall()))


def _news(
    connection: sqlite3.Connection, seen: Sequence[SeenOperation]
) -> tuple[list[SeenOperation], list[SeenOperation]]:
    """Those that the table does not have, and those it has with an earlier day."""
    found: tuple[list[SeenOperation], list[SeenOperation]] = [], []
    for chunk in chunks([(position, *each) for position, each in enumerate(seen)]):
        marks = ", ".join(["(?, ?, ?, ?, ?, ?)"] * len(chunk))
        answer = connection.execute(
            _FIND_NEWS.format(marks), list(chain.from_iterable(chunk))
        ).fetchone()
        for rows, positions in zip(found, map(msgspec.json.decode, answer), strict=True):
            rows.extend(seen[position] for position in positions)
    return found
