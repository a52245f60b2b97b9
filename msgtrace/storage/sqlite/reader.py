"""How SQLite reads: its dialect, and one thread with a connection for each read that runs."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from msgtrace.model.span import Row
from msgtrace.storage.reader import Statement
from msgtrace.storage.search import Condition, Dialect
from msgtrace.storage.sqlite.connection import ConnectionThread, open_reader

READERS = 4
"""Reads that run at the same time; further ones wait."""

_ATTRIBUTE = """EXISTS (
    SELECT 1 FROM json_each({}.attributes) a WHERE a.key = ? AND (
        CASE a.type
            WHEN 'text' THEN a.atom
            WHEN 'true' THEN 'true'
            WHEN 'false' THEN 'false'
            WHEN 'object' THEN coalesce(
                json_extract(a.value, '$."$int"'), json_extract(a.value, '$."$double"')
            )
        END = ?
        OR (a.type IN ('integer', 'real') AND a.atom = ?)
    )
)"""


def _attribute(table: str, key: str, value: str, number: float | None) -> Condition:
    return _ATTRIBUTE.format(table), (key, value, number)


DIALECT = Dialect(
    service_name="EXISTS (SELECT 1 FROM json_each(t.services) WHERE value = ?)",
    model="t.has_usage AND EXISTS (SELECT 1 FROM json_each(t.models) WHERE value = ?)",
    tool="t.tools IS NOT NULL AND EXISTS (SELECT 1 FROM json_each(t.tools) WHERE value = ?)",
    attribute=_attribute,
    text=(
        r"(s.name LIKE ? ESCAPE '\' OR s.status_message LIKE ? ESCAPE '\'"
        r" OR s.attributes LIKE ? ESCAPE '\')"
    ),
)


class ReaderThreads:
    """Runs reads, each in a snapshot of its own."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        self._path = path
        self._timeout_s = timeout_s
        self._idle: list[ConnectionThread] = []
        self._all: list[ConnectionThread] = []
        self._free = asyncio.Semaphore(READERS)

    async def read(self, statements: Sequence[Statement]) -> list[list[Row]]:
        """See ReadSql. Raises QueryTimeout."""
        async with self._free:
            thread = self._idle.pop() if self._idle else self._start()
            try:
                return await thread.run(
                    lambda connection: read_snapshot(connection, statements), self._timeout_s
                )
            finally:
                self._idle.append(thread)

    async def aclose(self) -> None:
        """Finish the running reads and end the threads."""
        for thread in self._all:
            await thread.aclose()

    def _start(self) -> ConnectionThread:
        thread = ConnectionThread(
            lambda: open_reader(self._path), f"msgtrace-sqlite-read-{len(self._all)}"
        )
        self._all.append(thread)
        return thread


def read_snapshot(
    connection: sqlite3.Connection, statements: Sequence[Statement]
) -> list[list[Row]]:
    """The rows of each statement, all of one moment."""
    connection.execute("BEGIN")
    try:
        return [connection.execute(sql, values).fetchall() for sql, values in statements]
    finally:
        connection.execute("ROLLBACK")
