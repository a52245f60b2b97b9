"""Pools of PostgreSQL connections: one to write, one to read."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from typing import TypeAlias

import asyncpg

from msgtrace.errors import DatabaseUnusable
from msgtrace.settings import Settings, mask_password
from msgtrace.storage.postgres.errors import is_retryable

logger = logging.getLogger(__name__)

WRITERS = 2
READERS = 8

WRITE_TIMEOUT_S = 30.0
"""How long one statement of a write may take before the write counts as failed."""

CLOSE_TIMEOUT_S = 1.0
"""How long a server may take over the end of its connections before they are just dropped."""

_RETRY_DELAY_S = 0.5
_LEAST_TRY_S = 0.1

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"
PlainConnection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
Connection: TypeAlias = "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"

_NEVER_RIGHT = (
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.exceptions.ClientConfigurationError,
)
"""Waiting does not make these go away: wrong password or user, no such database, a bad option."""


@contextlib.asynccontextmanager
async def open_pools(settings: Settings) -> AsyncIterator[tuple[Pool, Pool]]:
    """A pool to write and a pool to read; connections are made when first needed."""
    async with (
        _pool(settings, max_size=WRITERS, command_timeout=WRITE_TIMEOUT_S) as writers,
        _pool(
            settings,
            max_size=READERS,
            command_timeout=settings.query_timeout_s + 5,
            server_settings={"statement_timeout": str(round(settings.query_timeout_s * 1000))},
        ) as readers,
    ):
        yield writers, readers


async def wait_until_reachable(settings: Settings) -> None:
    """Return once the database accepts a connection.

    Raises DatabaseUnusable after `connect_timeout_s`, or at once if waiting cannot help.
    """
    deadline = time.monotonic() + settings.connect_timeout_s
    url = mask_password(settings.database_url)
    while True:
        try:
            left_s = max(deadline - time.monotonic(), _LEAST_TRY_S)
            connection = await asyncpg.connect(settings.database_url, timeout=min(5, left_s))
        except _NEVER_RIGHT as error:
            raise DatabaseUnusable(f"cannot use {url}: {error}") from error
        except ValueError as error:
            # Not its text: of a password with a bare "/" it quotes the beginning, taken for a port.
            problem = "percent-encode special characters in user and password"
            raise DatabaseUnusable(f"{url} is malformed; {problem}") from error
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
            reason = str(error) or type(error).__name__
            if not is_retryable(error) or time.monotonic() >= deadline:
                waited = f"within {settings.connect_timeout_s:g} s"
                raise DatabaseUnusable(f"cannot reach {url} {waited}: {reason}") from error
            logger.warning("database_unreachable", extra={"url": url, "reason": reason})
            await asyncio.sleep(_RETRY_DELAY_S)
        else:
            await connection.close()
            return


@contextlib.asynccontextmanager
async def _pool(
    settings: Settings,
    *,
    max_size: int,
    command_timeout: float,
    server_settings: dict[str, str] | None = None,
) -> AsyncIterator[Pool]:
    pool = await asyncpg.create_pool(
        settings.database_url,
        min_size=0,
        max_size=max_size,
        command_timeout=command_timeout,
        timeout=5,
        # An acknowledged span is on disk, whatever the server's default is.
        server_settings={"application_name": "msgtrace", "synchronous_commit": "on"}
        | (server_settings or {}),
    )
    try:
        yield pool
    finally:
        try:
            await asyncio.wait_for(pool.close(), CLOSE_TIMEOUT_S)
        except TimeoutError:
            pool.terminate()
