"""Databases for a benchmark: empty ones, and what they take on disk."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from pathlib import Path

import asyncpg

from msgtrace.settings.table import Settings
from msgtrace.storage.factory import migrate_database
from tests.postgres_server import with_database

_TABLE_BYTES = """
SELECT sum(pg_total_relation_size(oid)) FROM pg_class
WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace
"""


def new_url(database: str, name: str, *, folder: Path, admin_url: str) -> str:
    """The URL of an empty database: sqlite, a file in the folder, or postgres."""
    if database == "sqlite":
        return f"sqlite:///{folder / name}.db"
    return new_database(admin_url, f"bench_{name}")


def new_database(admin_url: str, name: str) -> str:
    """The URL of a migrated, empty database of that name."""

    async def create() -> None:
        connection = await asyncpg.connect(admin_url)
        await connection.execute(f"DROP DATABASE IF EXISTS {name}")
        await connection.execute(f"CREATE DATABASE {name}")
        await connection.execute("CHECKPOINT")
        await connection.close()

    asyncio.run(create())
    url = with_database(admin_url, name)
    asyncio.run(migrate_database(Settings(database_url=url)))
    return url


def database_bytes(url: str) -> int:
    """What the database takes on disk; PostgreSQL's without its catalogue."""
    if url.startswith("sqlite"):
        with contextlib.closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
            pages, page_bytes = connection.execute(
                "SELECT page_count, page_size FROM pragma_page_count, pragma_page_size"
            ).fetchone()
            return int(pages * page_bytes)

    async def ask() -> int:
        connection = await asyncpg.connect(url)
        try:
            return int(await connection.fetchval(_TABLE_BYTES))
        finally:
            await connection.close()

    return asyncio.run(ask())
