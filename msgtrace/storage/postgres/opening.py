"""A database that need not be there yet when the program starts."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
from collections.abc import AsyncIterator, Awaitable, Callable

from msgtrace.errors import ConfigError, StorageUnavailable
from msgtrace.settings.table import Settings

logger = logging.getLogger(__name__)

FIRST_LOOK_S = 2.0
"""How long a start waits for a database before it goes on without."""

RETRY_INTERVAL_S = 5.0
"""Between two tries with a database that is there and cannot be used."""

_AS_LONG_AS_IT_TAKES_S = 86_400.0

EnsureSchema = Callable[[Settings], Awaitable[object]]


class Opening:
    """Whether the database has been seen with the schema that this program needs."""

    def __init__(self) -> None:
        self._problem: str | None = "the database has not answered since the start"

    def require_open(self) -> None:
        """Raise StorageUnavailable as long as it has not."""
        if self._problem is not None:
            raise StorageUnavailable(self._problem)

    @contextlib.asynccontextmanager
    async def under_way(self, settings: Settings, ensure: EnsureSchema) -> AsyncIterator[None]:
        """Look for the database, in the background if it is not there at once.

        ensure: brings the schema about or requires it. Raises what it raises for a database that is
        there at once and cannot be used.
        """
        patient = dataclasses.replace(settings, connect_timeout_s=_AS_LONG_AS_IT_TAKES_S)
        first = asyncio.ensure_future(ensure(patient))
        await asyncio.wait({first}, timeout=FIRST_LOOK_S)
        if first.done():
            first.result()
            self._problem = None
            yield
            return
        waiting = asyncio.create_task(self._wait(first, patient, ensure), name="database-opening")
        try:
            yield
        finally:
            waiting.cancel()
            await asyncio.gather(waiting, first, return_exceptions=True)

    async def open_at_once(self, settings: Settings, ensure: EnsureSchema) -> None:
        """Wait for the database as long as the settings say. Raises what `ensure` raises."""
        await ensure(settings)
        self._problem = None

    async def _wait(
        self, trying: asyncio.Future[object], settings: Settings, ensure: EnsureSchema
    ) -> None:
        while True:
            try:
                await trying
            except Exception as error:  # noqa: BLE001 - whatever it is, what was acknowledged waits in the spill
                self._problem = f"the database cannot be used: {_reason(error)}"
                logger.error("database_unusable", extra={"reason": _reason(error)})
                await asyncio.sleep(RETRY_INTERVAL_S)
                trying = asyncio.ensure_future(ensure(settings))
            else:
                self._problem = None
                logger.info("database_opened")
                return


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, ConfigError) else type(error).__name__
