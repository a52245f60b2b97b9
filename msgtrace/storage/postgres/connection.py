"""Pools of PostgreSQL connections: one to write, one to read."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import TypeAlias

import asyncpg
from asyncpg.types import ServerVersion

from msgtrace.errors import DatabaseUnusable
from msgtrace.settings.passwords import mask_password
from msgtrace.settings.table import Settings
from msgtrace.storage.postgres.errors import is_retryable

logger = logging.getLogger(__name__)

OLDEST_VERSION = 14
"""The oldest major version of PostgreSQL that this is tested with."""

WRITE_TIMEOUT_S = 30.0
"""How long one statement of a write may take before the write counts as failed."""

CLOSE_TIMEOUT_S = 1.0
"""How long a server may take over the end of its connections before they are just dropped."""

_RETRY_DELAY_S = 0.5
_LEAST_TRY_S = 0.1

_MARK = "msgtrace.session"
"""A setting of no meaning to PostgreSQL: if it arrives, so do those that matter."""

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
async def open_pools(
    settings: Settings, prepare_writer: Callable[[PlainConnection], Coroutine[None, None, None]]
) -> AsyncIterator[tuple[Pool, Pool]]:
    """A pool to write and a pool to read; connections are made when first needed.

    prepare_writer: called for each new connection of the first.
    """
    async with (
        _pool(
            settings,
            max_size=settings.database_writers,
            command_timeout=WRITE_TIMEOUT_S,
            prepare=prepare_writer,
        ) as writers,
        _pool(
            settings,
            max_size=settings.database_readers,
            command_timeout=settings.query_timeout_s + 5,
            server_settings={
                "statement_timeout": str(round(settings.query_timeout_s * 1000)),
                # How rare a value is decides how it is found, so a plan for any value serves none.
                # Planning takes half a millisecond; compiling a plan would take longer than it.
                "plan_cache_mode": "force_custom_plan",
                "jit": "off",
            },
        ) as readers,
    ):
        yield writers, readers


async def connect(
    settings: Settings,
    *,
    timeout_s: float = 60.0,
    command_timeout_s: float | None = None,
    **session: str,
) -> PlainConnection:
    """A connection of its own. session: what differs from the session of the pools."""
    return await asyncpg.connect(
        settings.database_url,
        timeout=timeout_s,
        command_timeout=command_timeout_s,
        server_settings=session_settings(settings) | session,
    )


def session_settings(settings: Settings) -> dict[str, str]:
    """What holds on every connection for as long as it lives."""
    session = {
        "application_name": "msgtrace",
        # An acknowledged span is on disk, whatever the server's default is.
        "synchronous_commit": "on",
    }
    if settings.database_schema:
        session["search_path"] = quoted_name(settings.database_schema)
    return session


def quoted_name(name: str) -> str:
    """An identifier as SQL text."""
    return '"' + name.replace('"', '""') + '"'


async def wait_until_reachable(settings: Settings) -> None:
    """Return once the database accepts a connection.

    Raises DatabaseUnusable after `connect_timeout_s`, or at once if waiting cannot help: the
    database is none that msgtrace works with, or not the one that was meant.
    """
    deadline = time.monotonic() + settings.connect_timeout_s
    url = mask_password(settings.database_url)
    while True:
        try:
            await _try_out(settings, min(5, max(deadline - time.monotonic(), _LEAST_TRY_S)))
        except _NEVER_RIGHT as error:
            raise DatabaseUnusable(f"cannot use {url}: {error}") from error
        except asyncpg.ProtocolViolationError as error:
            raise DatabaseUnusable(_pooler_sentence(url)) from error
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
            return


async def _try_out(settings: Settings, timeout_s: float) -> None:
    """Connect once as the pools will. Raises DatabaseUnusable, and what asyncpg raises."""
    connection = await asyncpg.connect(
        settings.database_url,
        timeout=timeout_s,
        server_settings=session_settings(settings) | {_MARK: "own"},
    )
    try:
        url = mask_password(settings.database_url)
        require_supported(connection.get_server_version(), url)
        mark = await connection.fetchval("SELECT current_setting($1, true)", _MARK)
        if mark != "own":
            raise DatabaseUnusable(_pooler_sentence(url))
    finally:
        await connection.close()


def require_supported(version: ServerVersion, url: str) -> None:
    """Raise DatabaseUnusable for a server that is too old."""
    if version.major < OLDEST_VERSION:
        raise DatabaseUnusable(
            f"{url} is PostgreSQL {version.major}; msgtrace works with"
            f" {OLDEST_VERSION} and newer: upgrade the server, or use another"
        )


def _pooler_sentence(url: str) -> str:
    return (
        f"{url} leads to a connection pooler such as PgBouncer, which drops what a session sets;"
        " msgtrace needs sessions of its own, to commit durably: name PostgreSQL itself."
        " MSGTRACE_DATABASE_WRITERS and MSGTRACE_DATABASE_READERS bound its connections"
    )


@contextlib.asynccontextmanager
async def _pool(
    settings: Settings,
    *,
    max_size: int,
    command_timeout: float,
    server_settings: dict[str, str] | None = None,
    prepare: Callable[[PlainConnection], Coroutine[None, None, None]] | None = None,
) -> AsyncIterator[Pool]:
    pool = await asyncpg.create_pool(
        settings.database_url,
        min_size=0,
        max_size=max_size,
        command_timeout=command_timeout,
        timeout=5,
        init=prepare,
        server_settings=session_settings(settings) | (server_settings or {}),
    )
    try:
        yield pool
    finally:
        try:
            await asyncio.wait_for(pool.close(), CLOSE_TIMEOUT_S)
        except TimeoutError:
            pool.terminate()
