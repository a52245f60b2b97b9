"""What the database refuses for its data: the offenders are found, kept and told of.

Path: pipeline.batcher → [pipeline.dead_letters] → storage.
A refused request costs its own offenders, and always gets an answer: its other spans are stored,
the offenders kept as one dead letter with the request, or not kept when there is no room, and
counted as rejected either way.
Bounded: all dead letters of a database together by `max_bytes`.
Not here: what is done with them later, which is `msgtrace-admin dead-letters`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator

from msgtrace.errors import MsgtraceError, Unavailable
from msgtrace.model.batch import Rejection, SpanBatch
from msgtrace.model.dead_letter import DeadLetter, ids_of
from msgtrace.model.span import SPAN_COLUMNS
from msgtrace.pipeline.isolate import Isolated, Write, store_all_but_refused
from msgtrace.storage.protocol import DeadLetterStore
from msgtrace.telemetry.collector_metrics import CollectorMetrics

logger = logging.getLogger(__name__)

SUM_INTERVAL_S = 30.0
"""How often the gauges are brought up to date: an operator may delete letters at any time."""

LEAST_INTERVAL_S = 1.0
"""How often at most, while letters are being kept."""

_TENANT_ID = SPAN_COLUMNS.index("tenant_id")


class DeadLetterKeeper:
    """Takes over the requests that the database refuses."""

    def __init__(
        self,
        letters: DeadLetterStore,
        *,
        max_bytes: int,
        metrics: CollectorMetrics | None = None,
    ) -> None:
        self._letters = letters
        self._max_bytes = max_bytes
        self._metrics = metrics or CollectorMetrics()
        self._metrics.set_dead_letter_limit(max_bytes)
        self._has_kept = asyncio.Event()

    async def settle(self, batch: SpanBatch, error: Exception, write: Write) -> None:
        """Store all of a batch that was refused as a whole, with `error`, but its offenders.

        When it returns, the offenders are durably kept if there is room for them, and counted in
        `batch.rejections`. Raises Unavailable if the database went away meanwhile: some of the
        batch may be stored, and the same batch is to be submitted again.
        """
        if not isinstance(error, MsgtraceError):
            logger.error("write_fault", exc_info=error)
        isolated = await store_all_but_refused(write, batch, error)
        refused_count = len(isolated.refused)
        rejection = await self._keep(batch, isolated) if refused_count else None
        # Only now: of a batch that ends Unavailable no span counts as accepted.
        self._metrics.count_accepted(len(batch.spans) - refused_count, isolated.new_spans)
        if rejection is not None:
            batch.reject(rejection, refused_count)
            self._metrics.count_rejected(rejection, refused_count)

    @contextlib.asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Keep the gauges up to date."""
        watch = asyncio.create_task(self._watch(), name="dead-letter-watch")
        try:
            yield
        finally:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)

    async def _keep(self, batch: SpanBatch, isolated: Isolated) -> Rejection:
        letter = _letter(batch, isolated)
        said = {
            "letter_id": letter.letter_id.hex(),
            "spans": len(letter.spans),
            "reason": letter.reason,
        }
        try:
            is_kept = await self._letters.keep(letter, max_bytes=self._max_bytes)
        except Unavailable:
            raise
        except Exception as error:  # the sender must get an answer, now and when it sends again
            logger.error("dead_letter_refused", extra=said, exc_info=error)
            return Rejection.DEAD_LETTER_REFUSED
        if not is_kept:
            logger.warning("dead_letters_full", extra=said | {"limit_bytes": self._max_bytes})
            return Rejection.DEAD_LETTERS_FULL
        logger.warning("dead_letter_kept", extra=said)
        self._metrics.count_dead_letter(isolated.error, len(letter.spans))
        self._has_kept.set()
        return Rejection.KEPT_AS_DEAD_LETTER

    async def _watch(self) -> None:
        while True:
            await self._sum()
            await asyncio.sleep(LEAST_INTERVAL_S)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._has_kept.wait(), SUM_INTERVAL_S)
            self._has_kept.clear()

    async def _sum(self) -> None:
        try:
            totals = await self._letters.sum()
        except MsgtraceError:  # the database is away, which others tell of
            return
        except Exception as error:
            logger.error("dead_letter_sum_failed", exc_info=error)
            return
        self._metrics.set_dead_letters(totals.letter_count, totals.kept_bytes)


def _letter(batch: SpanBatch, isolated: Isolated) -> DeadLetter:
    rows = [batch.spans[position] for position in isolated.refused]
    return DeadLetter(
        tenant_id=rows[0][_TENANT_ID],
        refused_at_ns=time.time_ns(),
        reason=isolated.reason,
        encoding=batch.encoding,
        payload=batch.payload,
        spans=[ids_of(row) for row in rows],
    )
