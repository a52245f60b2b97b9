"""Statements of many rows.

The interpreter's lock is released once for each statement: with a row a statement, a busy event
loop would take the lock away from the writer between any two rows.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from itertools import chain

from msgtrace.model.span import Row

# At 32 columns within SQLite's limit of 32,766 variables; powers of two keep the number of distinct
# statements small.
_CHUNK_ROWS = 512


def insert_rows(
    connection: sqlite3.Connection,
    table: str,
    columns: Sequence[str],
    rows: Sequence[Row],
    on_conflict: str = "",
) -> None:
    """Insert the rows, whose values are in the order of `columns`."""
    row_of_marks = f"({', '.join('?' * len(columns))})"
    for chunk in chunks(rows):
        marks = ", ".join([row_of_marks] * len(chunk))
        connection.execute(
            f"INSERT INTO {table} ({', '.join(columns)}) VALUES {marks} {on_conflict}",  # noqa: S608 - constants only
            list(chain.from_iterable(chunk)),
        )


def chunks(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    """The rows, as many at a time as a statement may have."""
    start, size = 0, _CHUNK_ROWS
    while start < len(rows):
        while size > len(rows) - start:
            size //= 2
        yield rows[start : start + size]
        start += size
