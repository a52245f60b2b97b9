"""Open the backend that a database URL names.

The only module that knows which backends there are.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from msgtrace.errors import InvalidSetting
from msgtrace.settings.passwords import mask_password
from msgtrace.settings.table import Settings
from msgtrace.storage.protocol import Storage

_SQLITE_SCHEMES = ("sqlite",)
_POSTGRES_SCHEMES = ("postgresql", "postgres")


@asynccontextmanager
async def open_storage(settings: Settings, *, waits: bool = True) -> AsyncIterator[Storage]:
    """The storage of `settings.database_url`, reachable and with the schema this program needs.

    Waits up to `connect_timeout_s` for a database that is not there yet. Migrates unless
    `auto_migrate` is off.
    waits: without it a database that is away is no error. Its storage raises StorageUnavailable
    until the database has come and has the schema.
    Raises InvalidSetting for an unknown URL scheme, DatabaseUnusable or SchemaMismatch for a
    database that will not do.
    """
    if _scheme(settings) in _SQLITE_SCHEMES:
        from msgtrace.storage.sqlite.backend import SqliteStorage  # noqa: PLC0415 - loads one backend only

        async with SqliteStorage.open(settings) as sqlite:
            yield sqlite
    else:
        from msgtrace.storage.postgres.backend import PostgresStorage  # noqa: PLC0415 - loads one backend only

        async with PostgresStorage.open(settings, waits=waits) as postgres:
            yield postgres


def has_local_database(settings: Settings) -> bool:
    """Whether the database is a file of this machine, and exists.

    Raises as `open_storage` does for a URL that names no database.
    """
    if _scheme(settings) not in _SQLITE_SCHEMES:
        return False
    from msgtrace.storage.sqlite.connection import database_path  # noqa: PLC0415 - loads one backend only

    return database_path(settings.database_url).is_file()


async def migrate_database(settings: Settings) -> list[str]:
    """Apply what is pending.

    Return the names of the applied migrations. Raises as `open_storage` does.
    """
    if _scheme(settings) in _SQLITE_SCHEMES:
        from msgtrace.storage.sqlite.schema import migrate_sqlite  # noqa: PLC0415 - loads one backend only

        return await migrate_sqlite(settings)
    from msgtrace.storage.postgres.schema import migrate_postgres  # noqa: PLC0415 - loads one backend only

    return await migrate_postgres(settings)


def _scheme(settings: Settings) -> str:
    scheme = settings.database_url.partition("://")[0]
    if scheme not in _SQLITE_SCHEMES + _POSTGRES_SCHEMES:
        url = mask_password(settings.database_url)
        raise InvalidSetting(
            "MSGTRACE_DATABASE_URL", f"must begin with sqlite:/// or postgresql://, not {url!r}"
        )
    if settings.database_schema and scheme in _SQLITE_SCHEMES:
        raise InvalidSetting(
            "MSGTRACE_DATABASE_SCHEMA", "is for PostgreSQL: MSGTRACE_DATABASE_URL names SQLite"
        )
    return scheme
