"""Bring spilled requests into the database, oldest first, beside what comes in.

The drain is one more sender before the batcher, with one small group under way at a time: a flush
takes its group together with everything that waits, so neither starves the other.
A request leaves the spill after it is stored. A crash in between stores it again, which changes
nothing: spans are known by their ids.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

from msgtrace.errors import MsgtraceError, SpillUnavailable, StorageError, Unavailable
from msgtrace.model.batch import NOT_KEPT, SpanBatch
from msgtrace.model.units import MIB
from msgtrace.otlp.encodings import decode_as
from msgtrace.pipeline.batcher import Batcher
from msgtrace.storage.protocol import StorageAdmin
from msgtrace.storage.spill import Spill
from msgtrace.storage.spill_table import SpilledRequest
from msgtrace.telemetry.metrics import SpillMetrics

logger = logging.getLogger(__name__)

GROUP_BYTES = 1 * MIB
"""Request bytes that the drain has under way."""

RETRY_INTERVAL_S = 1.0
"""Between two tries while the database is away."""


class Absence:
    """Whether the database is away, and since when. Its begin and end are logged once."""

    def __init__(self) -> None:
        self.has_news = asyncio.Event()
        """Set when it begins, and whenever the spill grows."""
        self._since_s: float | None = None

    @property
    def is_on(self) -> bool:
        """Whether the database is away."""
        return self._since_s is not None

    def begin(self, reason: str) -> None:
        """The database did not store."""
        if self._since_s is None:
            self._since_s = time.monotonic()
            logger.warning("spilling", extra={"reason": reason})
            self.has_news.set()

    def end(self, spilled_requests: int) -> None:
        """The database stores again."""
        if self._since_s is not None:
            away_s = round(time.monotonic() - self._since_s, 1)
            self._since_s = None
            logger.info(
                "spilling_ended", extra={"away_s": away_s, "spilled_requests": spilled_requests}
            )


async def drain_forever(
    spill: Spill,
    batcher: Batcher,
    absence: Absence,
    database: StorageAdmin,
    metrics: SpillMetrics,
) -> None:
    """Drain whenever there is something to drain; also look for the end of an absence."""
    while True:
        try:
            if spill.content.requests:
                await _drain_some(spill, batcher, absence, database, metrics)
            elif absence.is_on:
                await _wait_without_spill(spill, absence, database)
            else:
                absence.has_news.clear()
                await absence.has_news.wait()
        except Unavailable:
            await asyncio.sleep(RETRY_INTERVAL_S)
        except Exception as error:
            logger.error("drain_failed", exc_info=error)
            await asyncio.sleep(RETRY_INTERVAL_S)


async def _drain_some(
    spill: Spill,
    batcher: Batcher,
    absence: Absence,
    database: StorageAdmin,
    metrics: SpillMetrics,
) -> None:
    """Drain one group; in an absence one request, as that is enough to see its end."""
    max_bytes = 1 if absence.is_on else GROUP_BYTES

    def end_absence(stored: int) -> None:
        absence.end(spill.content.requests - stored)

    try:
        await drain_group(spill, batcher, metrics, max_bytes, on_stored=end_absence)
    except SpillUnavailable as error:
        logger.warning("spill_unusable", extra={"reason": str(error)})
        if absence.is_on:  # what cannot be read or set aside cannot show that the database is back
            await database.check()
            absence.end(spill.content.requests)
        raise
    if not spill.content.requests:
        logger.info("spill_drained")


async def _wait_without_spill(spill: Spill, absence: Absence, database: StorageAdmin) -> None:
    """The next write is the better question than a check: ask only if none comes."""
    await asyncio.sleep(RETRY_INTERVAL_S)
    if not spill.content.requests:
        await database.check()
        absence.end(0)


async def drain_group(
    spill: Spill,
    batcher: Batcher,
    metrics: SpillMetrics,
    max_bytes: int,
    on_stored: Callable[[int], None] = lambda _: None,
) -> int:
    """Store the oldest requests, up to so many bytes but at least one; return how many.

    Raises Unavailable if the database or the spill does not do its part; what was stored until then
    has left the spill. A request that cannot be stored for any other reason is set aside: it must
    not hold up those behind it.
    on_stored: hears how many were stored before they leave the spill, which its disk may prevent.
    """
    requests = await spill.oldest(max_bytes)
    decoded = await asyncio.to_thread(_decode, requests)
    outcomes = await asyncio.gather(
        *(_store(each, batcher) for each in decoded), return_exceptions=True
    )
    settled = list(zip(requests, outcomes, strict=True))
    stored = [request for request, outcome in settled if outcome is None]
    if stored:
        on_stored(len(stored))
        await spill.remove(stored)
        metrics.count_drained(len(stored))
    for request, outcome in settled:
        if isinstance(outcome, Exception) and not isinstance(outcome, Unavailable):
            await _set_aside(spill, request, outcome)
    for outcome in outcomes:
        if isinstance(outcome, Unavailable):
            raise outcome
    return len(stored)


def _decode(requests: Sequence[SpilledRequest]) -> list[SpanBatch | Exception]:
    decoded: list[SpanBatch | Exception] = []
    for request in requests:
        try:
            decoded.append(decode_as(request.encoding, request.payload))
        except Exception as error:  # noqa: BLE001 - one that cannot be decoded must not hold up the others
            decoded.append(error)
    return decoded


async def _store(decoded: SpanBatch | Exception, batcher: Batcher) -> None:
    if isinstance(decoded, Exception):
        raise decoded
    await batcher.submit(decoded)
    for rejection in NOT_KEPT:  # its sender was told long ago that all is durable
        if rejection in decoded.rejections:
            raise StorageError(rejection.value)


async def _set_aside(spill: Spill, request: SpilledRequest, error: Exception) -> None:
    reason = str(error) if isinstance(error, MsgtraceError) else type(error).__name__
    await spill.set_aside(request, reason)
    logger.error(
        "spilled_request_set_aside",
        extra={"id": request.id, "spans": request.span_count, "reason": reason},
    )
