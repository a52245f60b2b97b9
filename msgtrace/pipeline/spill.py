"""While the database is away, requests are kept on local disk and acknowledged from there.

Path: receivers → otlp.decode → [pipeline.spill] → pipeline.batcher → storage
                                       └→ a batcher of its own → storage.spill → pipeline.drain
A request is first offered to the database, which may take as long as the batcher holds it. The
first one that is not stored within that time begins an absence; during it requests go to the spill
at once. The absence ends with the first write that succeeds, which the drain tries for.
A database that is slow but commits is not away: there the queue's limit decides.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Sequence

from msgtrace.errors import DatabaseStalled, StorageUnavailable
from msgtrace.model.batch import SpanBatch
from msgtrace.otlp.rules import DEFAULT_RULES, DecodeRules
from msgtrace.pipeline.batcher import HOLD_S, Batcher
from msgtrace.pipeline.drain import Absence, drain_forever
from msgtrace.storage.protocol import StorageAdmin
from msgtrace.storage.spill import Spill
from msgtrace.storage.spill_table import SpilledRequest
from msgtrace.telemetry.collector_metrics import SpillMetrics
from msgtrace.telemetry.health import HIGH_WATER

logger = logging.getLogger(__name__)

LOOK_INTERVAL_S = 0.25
"""How often to look whether the database still commits."""


class SpillingSink:
    """A SpanSink that goes on while the database is away.

    `spilled` is the group commit of `spill`.
    """

    def __init__(
        self,
        batcher: Batcher,
        spill: Spill,
        spilled: Batcher,
        absence: Absence,
        metrics: SpillMetrics,
    ) -> None:
        self._batcher = batcher
        self._spill = spill
        self._spilled = spilled
        self._absence = absence
        self._metrics = metrics

    async def submit(self, batch: SpanBatch) -> None:
        """See SpanSink. Durable means: in the database, or on the local disk."""
        if not self._absence.is_on:
            try:
                await self._batcher.submit(batch)
            except StorageUnavailable as error:
                self._absence.begin(str(error))
            else:
                return
        await self._spilled.submit(batch)
        self._metrics.count_spilled(len(batch.spans))

    @property
    def has_room(self) -> bool:
        """Whether the spill is below its high-water mark."""
        return self._spill.content.payload_bytes < HIGH_WATER * self._spill.max_bytes

    def describe(self) -> dict[str, object]:
        """What the spill holds, for operators."""
        content = self._spill.content
        return {
            "requests": content.requests,
            "set_aside": content.set_aside,
            "bytes": content.payload_bytes,
            "limit_bytes": self._spill.max_bytes,
            "oldest_age_s": round(content.age_s(time.time_ns()), 1),
            "database_away": self._absence.is_on,
        }

    async def watch(self) -> None:
        """Begin an absence when the database takes work and commits nothing. Runs until ended."""
        while True:
            await asyncio.sleep(LOOK_INTERVAL_S)
            if self._batcher.stalled_s >= HOLD_S:
                reason = f"the database has committed nothing for {HOLD_S:g} s"
                self._absence.begin(reason)
                self._batcher.give_up(DatabaseStalled(reason))


@contextlib.asynccontextmanager
async def open_spilling_sink(
    batcher: Batcher,
    spill: Spill,
    database: StorageAdmin,
    *,
    max_batch_bytes: int,
    max_queued_bytes: int,
    metrics: SpillMetrics,
    rules: DecodeRules = DEFAULT_RULES,
) -> AsyncIterator[SpillingSink]:
    """A sink before `batcher` that spills into `spill`, and drains it, while the block runs.

    On leaving, what was accepted is on disk; requests still in the spill are drained after the next
    start.
    """
    absence = Absence()
    metrics.watch(
        requests=lambda: spill.content.requests,
        set_aside=lambda: spill.content.set_aside,
        payload_bytes=lambda: spill.content.payload_bytes,
        age_s=lambda: spill.content.age_s(time.time_ns()),
        max_bytes=spill.max_bytes,
    )
    async with Batcher(
        _SpillWriter(spill, absence),
        max_batch_bytes=max_batch_bytes,
        max_queued_bytes=max_queued_bytes,
    ) as spilled:
        sink = SpillingSink(batcher, spill, spilled, absence, metrics)
        background = [
            asyncio.create_task(sink.watch(), name="spill-watch"),
            asyncio.create_task(
                drain_forever(spill, batcher, absence, database, metrics, rules),
                name="spill-drain",
            ),
        ]
        try:
            yield sink
        finally:
            for task in background:
                task.cancel()
            await asyncio.gather(*background, return_exceptions=True)


class _SpillWriter:
    """The spill as a SpanWriter, so that spilled requests share their fsyncs as well."""

    writer_count = 1

    def __init__(self, spill: Spill, absence: Absence) -> None:
        self._spill = spill
        self._absence = absence

    async def write_spans(self, batches: Sequence[SpanBatch]) -> int:
        """Keep the requests of the batches; no span of them is stored yet."""
        now_ns = time.time_ns()
        await self._spill.append(
            [
                SpilledRequest(
                    payload=batch.payload,
                    encoding=batch.encoding,
                    span_count=len(batch.spans),
                    received_at_ns=now_ns,
                )
                for batch in batches
            ]
        )
        self._absence.has_news.set()
        return 0
