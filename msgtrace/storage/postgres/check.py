"""Whether PostgreSQL answers, on a connection of its own.

Not one of a pool: those may all be busy, and asyncpg waits for a server that is gone before it
takes a connection back.
"""

from __future__ import annotations

import asyncio
from typing import TypeAlias

import asyncpg

from msgtrace.settings import Settings
from msgtrace.storage.postgres.errors import translated_errors

TIMEOUT_S = 2.0

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


class ConnectionCheck:
    """Keeps one connection, made when first needed and anew after any trouble."""

    def __init__(self, settings: Settings) -> None:
        self._url = settings.database_url
        self._connection: Connection | None = None
        self._turn = asyncio.Lock()

    async def run(self) -> None:
        """Return if the server answers. Raises StorageUnavailable."""
        async with self._turn:
            with translated_errors():
                await self._ask(await self._connected())

    def close(self) -> None:
        """Drop the connection."""
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    async def _connected(self) -> Connection:
        if self._connection is None or self._connection.is_closed():
            self._connection = await asyncpg.connect(
                self._url,
                timeout=TIMEOUT_S,
                server_settings={"application_name": "msgtrace check"},
            )
        return self._connection

    async def _ask(self, connection: Connection) -> None:
        # A timeout of asyncpg's own would first ask the server, which may be gone, to cancel.
        timeout = asyncio.get_running_loop().call_later(TIMEOUT_S, connection.terminate)
        try:
            await connection.fetchval("SELECT 1")
        except BaseException:
            self.close()
            raise
        finally:
            timeout.cancel()
