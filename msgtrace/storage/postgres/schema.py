"""Bring a PostgreSQL database to the schema that this program needs."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import asyncpg

from msgtrace.errors import DatabaseUnusable
from msgtrace.settings.table import Settings
from msgtrace.storage.migrate import pending_migrations, require_none_pending
from msgtrace.storage.postgres.connection import (
    PlainConnection,
    connect,
    quoted_name,
    wait_until_reachable,
)
from msgtrace.storage.postgres.errors import translated_errors

_FOREIGN = (
    asyncpg.DuplicateTableError,
    asyncpg.DuplicateObjectError,
    asyncpg.UndefinedColumnError,
)
"""What a migration meets where another program's tables have our names."""

SCHEMA_LOCK = 0x6D736774
"""Advisory lock ("msgt") under which schema and partitions change."""

_CREATE_TABLE = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    number integer PRIMARY KEY,
    name text NOT NULL,
    checksum text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)
"""


async def migrate_postgres(settings: Settings) -> list[str]:
    """Apply what is pending, all or nothing.

    A second process waits and then finds nothing to do. Returns the names.
    """
    async with _connected(settings) as connection:
        # Look first without the lock: a start on a current schema must not wait for anybody.
        if not pending_migrations("postgres", await _applied(connection)):
            return []
        return await _apply_pending(connection, settings.database_schema)


async def require_current(settings: Settings) -> None:
    """Raise SchemaMismatch if the schema is not exactly the one this program needs."""
    async with _connected(settings) as connection:
        require_none_pending(pending_migrations("postgres", await _applied(connection)))


@contextlib.asynccontextmanager
async def _connected(settings: Settings) -> AsyncIterator[PlainConnection]:
    await wait_until_reachable(settings)
    with translated_errors():
        connection = await connect(settings)
        try:
            yield connection
        except asyncpg.InsufficientPrivilegeError as error:
            raise DatabaseUnusable(f"the database user lacks a right: {error}") from error
        except _FOREIGN as error:
            raise DatabaseUnusable(
                f"the database holds tables of another program ({error}); use another database"
            ) from error
        finally:
            await connection.close()


async def _apply_pending(connection: PlainConnection, schema: str) -> list[str]:
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", SCHEMA_LOCK)
        await _ensure_schema(connection, schema)
        await connection.execute(_CREATE_TABLE)
        pending = pending_migrations("postgres", await _applied(connection))
        for migration in pending:
            await connection.execute(migration.sql)
            await connection.execute(
                "INSERT INTO schema_migrations (number, name, checksum) VALUES ($1, $2, $3)",
                migration.number,
                migration.name,
                migration.checksum,
            )
    return [migration.name for migration in pending]


async def _ensure_schema(connection: PlainConnection, name: str) -> None:
    """Make it if it is absent: a user who may make none can be given one."""
    is_there = "SELECT true FROM pg_namespace WHERE nspname = $1"
    if name and not await connection.fetchval(is_there, name):
        await connection.execute(f"CREATE SCHEMA {quoted_name(name)}")


async def _applied(connection: PlainConnection) -> dict[int, str]:
    if await connection.fetchval("SELECT to_regclass('schema_migrations')") is None:
        return {}
    rows = await connection.fetch("SELECT number, checksum FROM schema_migrations")
    return {row["number"]: row["checksum"] for row in rows}
