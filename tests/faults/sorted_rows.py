"""All spans and all summaries of a database in the order of their traces, a few in memory."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Iterator
from typing import Any

import asyncpg

from msgtrace.model.span import SPAN_COLUMNS, Row
from msgtrace.storage.summary import TRACE_COLUMNS

_AT_ONCE = 5_000


@contextlib.contextmanager
def read_sorted(
    database_url: str, least: bytes, end: bytes | None
) -> Iterator[tuple[Iterator[Row], Iterator[Row]]]:
    """(spans, summaries) of the traces from `least` on and before `end`, of one snapshot.

    Rows are in SPAN_COLUMNS and TRACE_COLUMNS order.
    """
    if database_url.startswith("sqlite"):
        with _read_sqlite(database_url.removeprefix("sqlite:///"), least, end) as rows:
            yield rows
    else:
        with _read_postgres(database_url, least, end) as rows:
            yield rows


@contextlib.contextmanager
def _read_sqlite(
    path: str, least: bytes, end: bytes | None
) -> Iterator[tuple[Iterator[Row], Iterator[Row]]]:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None, timeout=30)) as connection:
        connection.execute("BEGIN")
        values = (least,) if end is None else (least, end)
        yield (
            connection.execute(_query("spans", SPAN_COLUMNS, end, "?", "?"), values),
            connection.execute(_query("traces", TRACE_COLUMNS, end, "?", "?"), values),
        )


@contextlib.contextmanager
def _read_postgres(
    url: str, least: bytes, end: bytes | None
) -> Iterator[tuple[Iterator[Row], Iterator[Row]]]:
    values = (least,) if end is None else (least, end)
    with asyncio.Runner() as runner:
        connection = runner.run(asyncpg.connect(url, timeout=30))
        try:
            snapshot = connection.transaction(isolation="repeatable_read", readonly=True)
            runner.run(snapshot.start())

            def rows(table: str, columns: tuple[str, ...]) -> Iterator[Row]:
                query = _query(table, columns, end, "$1", "$2")
                cursor: Any = runner.run(_open_cursor(connection, query, values))
                while fetched := runner.run(cursor.fetch(_AT_ONCE, timeout=300)):
                    yield from map(tuple, fetched)

            yield rows("spans", SPAN_COLUMNS), rows("traces", TRACE_COLUMNS)
            runner.run(snapshot.rollback())
        finally:
            runner.run(connection.close())


async def _open_cursor(connection: Any, query: str, values: tuple[bytes, ...]) -> Any:
    return await connection.cursor(query, *values, timeout=300)


def _query(table: str, columns: tuple[str, ...], end: bytes | None, *marks: str) -> str:
    """In the order of the index that both tables have."""
    before = "" if end is None else f" AND trace_id < {marks[1]}"
    return (
        f"SELECT {', '.join(columns)} FROM {table} WHERE trace_id >= {marks[0]}{before}"
        " ORDER BY tenant_id, trace_id"
    )
