"""Bring spilled requests into the database, oldest first, beside what comes in.

The drain is one more sender before the batcher, with one small group under way at a time: a flush
takes its group together with everything that waits, so neither starves the other.
A request leaves the spill after it is stored. A crash in between stores it again, which changes
nothing: spans are known by their ids.
A request that is not taken by a database that answers (an operator's function fails for it, a page
of an index is damaged) must not hold up those behind it: it is passed over, and tried again now and
then, until the operator has mended the cause.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Sequence

from msgtrace.errors import (
    DatabaseStalled,
    MsgtraceError,
    Overloaded,
    SpillUnavailable,
    StorageError,
    Unavailable,
)
from msgtrace.model.batch import NOT_KEPT, SpanBatch
from msgtrace.model.units import MIB
from msgtrace.otlp.encodings import decode_as
from msgtrace.otlp.rules import DEFAULT_RULES, DecodeRules
from msgtrace.pipeline.batcher import Batcher
from msgtrace.storage.protocol import StorageAdmin
from msgtrace.storage.spill import Spill
from msgtrace.storage.spill_table import SpilledRequest
from msgtrace.telemetry.collector_metrics import SpillMetrics

logger = logging.getLogger(__name__)

GROUP_BYTES = 1 * MIB
"""Request bytes that the drain has under way."""

RETRY_INTERVAL_S = 1.0
"""Between two tries while the database is away."""

PASS_OVER_S = 60.0
"""How long a request waits that is not taken while others are."""

MOST_SUSPECTS = 8
"""Requests that are passed over without one that is taken; then twice as many, and so on."""


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


class _PassedOver:
    """Requests that the database did not take while it answers.

    One that fails is a suspect: it may be the database that is to blame, so after a few of them the
    first is the next again. Once something is stored each suspect is tried once more; one that
    fails again is to blame itself and waits.
    """

    def __init__(self) -> None:
        self.one_by_one = 0
        """How many of the next requests are to be tried alone: one of them may be to blame."""
        self._suspects: set[int] = set()
        self._most_suspects = MOST_SUSPECTS
        self._tried_again: set[int] = set()
        self._until_s: dict[int, float] = {}

    @property
    def ids(self) -> Collection[int]:
        """Of those that are not to be tried now."""
        now_s = asyncio.get_running_loop().time()
        for request_id in [each for each, until_s in self._until_s.items() if until_s <= now_s]:
            del self._until_s[request_id]
            self._tried_again.add(request_id)
            self.one_by_one += 1
        return self._suspects | self._until_s.keys()

    def failed(self, requests: Sequence[SpilledRequest]) -> None:
        """The database answers, and did not take these."""
        if len(requests) > 1:
            self.one_by_one = max(self.one_by_one, len(requests))
            return
        for request in requests:
            if request.id in self._tried_again:
                self._tried_again.discard(request.id)
                self._until_s[request.id] = asyncio.get_running_loop().time() + PASS_OVER_S
            elif len(self._suspects) < self._most_suspects:
                self._suspects.add(request.id)
            else:
                self.begin_again()
                self._most_suspects *= 2

    def begin_again(self) -> None:
        """Without a suspect: there were too many, or nothing else is left to try."""
        self._suspects.clear()

    def succeeded(self) -> None:
        """Something was stored."""
        self._tried_again |= self._suspects
        self.one_by_one = max(self.one_by_one, len(self._suspects))
        self._suspects.clear()
        self._most_suspects = MOST_SUSPECTS


async def drain_forever(
    spill: Spill,
    batcher: Batcher,
    absence: Absence,
    database: StorageAdmin,
    metrics: SpillMetrics,
    rules: DecodeRules = DEFAULT_RULES,
) -> None:
    """Drain whenever there is something to drain; also look for the end of an absence."""
    passed_over = _PassedOver()
    while True:
        try:
            if spill.content.requests > len(passed_over.ids):
                await _drain_some(spill, batcher, absence, database, metrics, passed_over, rules)
            elif absence.is_on:
                await _wait_without_spill(spill, absence, database, passed_over)
            elif spill.content.requests:
                await asyncio.sleep(RETRY_INTERVAL_S)
                passed_over.begin_again()
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
    passed_over: _PassedOver,
    rules: DecodeRules,
) -> None:
    """Drain one group; in an absence one request, as that is enough to see its end."""
    is_alone = absence.is_on or passed_over.one_by_one > 0

    def see_success(stored: int) -> None:
        passed_over.succeeded()
        absence.end(spill.content.requests - stored)

    requests: Sequence[SpilledRequest] = ()
    try:
        requests = await spill.oldest(1 if is_alone else GROUP_BYTES, but=passed_over.ids)
        passed_over.one_by_one = max(0, passed_over.one_by_one - 1)
        await drain_requests(spill, batcher, metrics, requests, rules, on_stored=see_success)
    except SpillUnavailable as error:
        logger.warning("spill_unusable", extra={"reason": str(error)})
        if absence.is_on:  # what cannot be read or set aside cannot show that the database is back
            await database.check()
            absence.end(spill.content.requests)
        raise
    except (Overloaded, DatabaseStalled):  # says nothing about these requests
        raise
    except Unavailable as error:
        await database.check()
        logger.warning(
            "spilled_requests_not_taken", extra={"requests": len(requests), "reason": str(error)}
        )
        passed_over.failed(requests)
        raise
    if not spill.content.requests:
        logger.info("spill_drained")


async def _wait_without_spill(
    spill: Spill, absence: Absence, database: StorageAdmin, passed_over: _PassedOver
) -> None:
    """The next write is the better question than a check: ask only if none comes."""
    await asyncio.sleep(RETRY_INTERVAL_S)
    if spill.content.requests <= len(passed_over.ids):
        passed_over.begin_again()
        await database.check()
        absence.end(spill.content.requests)


async def drain_group(
    spill: Spill,
    batcher: Batcher,
    metrics: SpillMetrics,
    max_bytes: int,
    rules: DecodeRules = DEFAULT_RULES,
    *,
    on_stored: Callable[[int], None] = lambda _: None,
) -> int:
    """Store the oldest requests, up to so many bytes but at least one; return how many.

    Raises Unavailable if the database or the spill does not do its part; what was stored until then
    has left the spill. A request that cannot be stored for any other reason is set aside: it must
    not hold up those behind it.
    on_stored: hears how many were stored before they leave the spill, which its disk may prevent.
    """
    requests = await spill.oldest(max_bytes)
    return await drain_requests(spill, batcher, metrics, requests, rules, on_stored=on_stored)


async def drain_requests(
    spill: Spill,
    batcher: Batcher,
    metrics: SpillMetrics,
    requests: Sequence[SpilledRequest],
    rules: DecodeRules = DEFAULT_RULES,
    *,
    on_stored: Callable[[int], None] = lambda _: None,
) -> int:
    """As `drain_group`, with these requests of the spill."""
    decoded = await asyncio.to_thread(_decode, requests, rules)
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


def _decode(requests: Sequence[SpilledRequest], rules: DecodeRules) -> list[SpanBatch | Exception]:
    decoded: list[SpanBatch | Exception] = []
    for request in requests:
        try:
            decoded.append(decode_as(request.encoding, request.payload, rules))
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
