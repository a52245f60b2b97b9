"""Keep making the filters that speed up the search for attributes, beside what comes in.

While requests queue for the database it works for a tenth of the time, so that ingest keeps the
rest, else for half of it. What it falls behind under load it makes up for afterwards; what has no
filter yet is searched without.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable

from msgtrace.errors import MsgtraceError
from msgtrace.storage.protocol import StorageAdmin

logger = logging.getLogger(__name__)

INTERVAL_S = 10.0
"""Between two looks while there is nothing to do, or the database is away."""

SHARE_WHILE_QUEUED = 0.1
SHARE_ELSE = 0.5


@contextlib.asynccontextmanager
async def filters_kept(
    storage: StorageAdmin, queued_bytes: Callable[[], int]
) -> AsyncIterator[None]:
    """Make filters in the background while the block runs.

    queued_bytes: what waits for the database now.
    """
    task = asyncio.create_task(_keep(storage, queued_bytes), name="attribute-filters")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _keep(storage: StorageAdmin, queued_bytes: Callable[[], int]) -> None:
    while True:
        began_s = time.monotonic()
        try:
            made = await storage.make_attribute_filters()
        except MsgtraceError as error:
            made = 0
            logger.debug("filters_put_off", extra={"reason": str(error)})
        except Exception as error:
            made = 0
            logger.error("filters_failed", exc_info=error)
        took_s = time.monotonic() - began_s
        share = SHARE_WHILE_QUEUED if queued_bytes() else SHARE_ELSE
        await asyncio.sleep(took_s * (1 / share - 1) if made else INTERVAL_S)
