"""Whether PostgreSQL answers, and small questions that must not wait, on a connection of its own.

Not one of a pool: those may all be busy, and asyncpg waits for a server that is gone before it
takes a connection back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from msgtrace.model.span import Row
from msgtrace.settings.table import Settings
from msgtrace.storage.postgres.connection import PlainConnection, connect
from msgtrace.storage.postgres.errors import translated_errors
from msgtrace.storage.postgres.reader import fetch_each
from msgtrace.storage.reader import Statement

TIMEOUT_S = 2.0


class ConnectionCheck:
    """Keeps one connection, made when first needed and anew after any trouble."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._connection: PlainConnection | None = None
        self._turn = asyncio.Lock()

    async def run(self) -> None:
        """Return if the server answers. Raises StorageUnavailable."""
        await self.read([("SELECT 1", ())])

    async def read(self, statements: Sequence[Statement]) -> list[list[Row]]:
        """See ReadSql; each statement sees its own moment. Raises StorageUnavailable."""
        async with self._turn:
            with translated_errors():
                return await self._ask(await self._connected(), statements)

    def close(self) -> None:
        """Drop the connection."""
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    async def _connected(self) -> PlainConnection:
        if self._connection is None or self._connection.is_closed():
            self._connection = await connect(
                self._settings, timeout_s=TIMEOUT_S, application_name="msgtrace check"
            )
        return self._connection

    async def _ask(
        self, connection: PlainConnection, statements: Sequence[Statement]
    ) -> list[list[Row]]:
        # A timeout of asyncpg's own would first ask the server, which may be gone, to cancel.
        timeout = asyncio.get_running_loop().call_later(TIMEOUT_S, connection.terminate)
        try:
            return await fetch_each(connection, statements)
        except BaseException:
            self.close()
            raise
        finally:
            timeout.cancel()
