"""Bring a SQLite file to the schema that this program needs."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from msgtrace.settings.table import Settings
from msgtrace.storage.migrate import Migration, pending_migrations, require_none_pending
from msgtrace.storage.sqlite.connection import (
    ConnectionThread,
    database_path,
    open_connection,
    translated_errors,
    write_transaction,
)

_CREATE_TABLE = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    number INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    checksum TEXT NOT NULL,
    applied_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%SZ', 'now'))
) STRICT
"""

_FIND_TABLE = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'schema_migrations'"


async def migrate_sqlite(settings: Settings) -> list[str]:
    """Apply what is pending to the file of `settings.database_url`; return the names."""
    path = database_path(settings.database_url)
    thread = ConnectionThread(lambda: open_connection(path), "msgtrace-sqlite-migrate")
    try:
        return await thread.run(apply_pending)
    finally:
        await thread.aclose()


def apply_pending(connection: sqlite3.Connection) -> list[str]:
    """Apply what is pending, all or nothing.

    A second process waits and then finds nothing to do.
    """
    # Look first without the lock: a start on a current schema must not wait for a writer.
    if not pending_migrations("sqlite", applied_migrations(connection)):
        return []
    with write_transaction(connection):
        connection.execute(_CREATE_TABLE)
        pending = pending_migrations("sqlite", applied_migrations(connection))
        for migration in pending:
            _apply(connection, migration)
    return [migration.name for migration in pending]


def require_current(connection: sqlite3.Connection) -> None:
    """Raise SchemaMismatch if the file's schema is not exactly the one this program needs."""
    require_none_pending(pending_migrations("sqlite", applied_migrations(connection)))


def applied_migrations(connection: sqlite3.Connection) -> dict[int, str]:
    """Numbers of the applied migrations with their checksums."""
    with translated_errors():
        if connection.execute(_FIND_TABLE).fetchone() is None:
            return {}
        return dict(connection.execute("SELECT number, checksum FROM schema_migrations"))


def _apply(connection: sqlite3.Connection, migration: Migration) -> None:
    for statement in _statements(migration.sql):
        connection.execute(statement)
    connection.execute(
        "INSERT INTO schema_migrations (number, name, checksum) VALUES (?, ?, ?)",
        (migration.number, migration.name, migration.checksum),
    )


def _statements(sql: str) -> Iterator[str]:
    """The single statements of a script: `executescript` would commit before it begins."""
    statement = ""
    for line in sql.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
