"""A pipeline with a spill, of real parts, before a database that does as it is told."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from msgtrace.errors import StorageError, StorageUnavailable
from msgtrace.model.batch import SpanBatch
from msgtrace.otlp.encodings import PROTOBUF, decode_as
from msgtrace.pipeline.batcher import HOLD_S, Batcher
from msgtrace.pipeline.spill import SpillingSink, open_spilling_sink
from msgtrace.storage.protocol import StorageAdmin
from msgtrace.storage.spill import Spill
from msgtrace.telemetry.collector_metrics import SpillMetrics
from tests.batches import request, span
from tests.spilled import ENOUGH
from tests.virtual_time import ConnectionInLoop, now_s


@functools.cache
def payload_of(number: int) -> bytes:
    """An export request of one span, known by its number."""
    return request(span(f"{number:06}")).SerializeToString()


REQUEST_BYTES = len(payload_of(0))


def batch_of(number: int) -> SpanBatch:
    """As a receiver makes it of `payload_of(number)`."""
    return decode_as(PROTOBUF, payload_of(number))


class ScriptedDatabase:
    """Stores requests, known by their payloads, unless it is told otherwise.

    error: what every write and check meets. takes_s: how long a write takes. refused: requests that
    it refuses for their data. troubling: requests that it never takes, as if it were in trouble.
    """

    def __init__(self, writer_count: int = 1) -> None:
        self.writer_count = writer_count
        self.stored: list[bytes] = []
        """In the order of the commits."""
        self.flushes: list[list[bytes]] = []
        """What was tried, in the order of the beginnings."""
        self.error: Exception | None = None
        self.takes_s = 0.0
        self.refused: set[bytes] = set()
        self.troubling: set[bytes] = set()
        self._goes_on = asyncio.Event()
        self._goes_on.set()

    def freeze(self) -> None:
        """Let writes and checks begin, but not end."""
        self._goes_on.clear()

    def thaw(self) -> None:
        """Let everything end that began."""
        self._goes_on.set()

    def go_away(self) -> None:
        self.error = StorageUnavailable("restarting")

    def come_back(self) -> None:
        self.error = None

    async def write_spans(self, batches: Sequence[SpanBatch]) -> int:
        group = [batch.payload for batch in batches]
        self.flushes.append(group)
        await asyncio.sleep(self.takes_s)
        await self.check()
        if not self.troubling.isdisjoint(group):
            raise StorageUnavailable("somebody's function fails")
        if not self.refused.isdisjoint(group):
            raise StorageError("refused for its data")
        self.stored += group
        return len(group)

    async def check(self) -> None:
        await self._goes_on.wait()
        if self.error is not None:
            raise self.error


@dataclass
class SpillingPipeline:
    """What `spilling_pipeline` puts together."""

    database: ScriptedDatabase
    batcher: Batcher
    spill: Spill
    disk: ConnectionInLoop
    sink: SpillingSink
    metrics: SpillMetrics

    def is_away(self) -> bool:
        """Whether the sink takes the database for away."""
        return self.sink.describe()["database_away"] is True

    def send(self, *numbers: int) -> list[asyncio.Task[None]]:
        """Submit each; the task ends with the answer."""
        return [asyncio.create_task(self.sink.submit(batch_of(number))) for number in numbers]

    async def begin_absence(self, number: int) -> None:
        """Lose the database; request `number` is the first that is spilled."""
        self.database.go_away()
        await self.sink.submit(batch_of(number))
        assert self.is_away()


@contextlib.asynccontextmanager
async def spilling_pipeline(
    folder: Path,
    database: ScriptedDatabase,
    *,
    max_spill_bytes: int = ENOUGH,
    max_batch_bytes: int = 100 * REQUEST_BYTES,
    max_queued_bytes: int = 1_000 * REQUEST_BYTES,
) -> AsyncIterator[SpillingPipeline]:
    """As `pipeline.assembly` puts it together. Needs `spill_in_loop` and a VirtualTimeLoop."""
    metrics = SpillMetrics()
    async with (
        Batcher(
            database,
            max_batch_bytes=max_batch_bytes,
            max_queued_bytes=max_queued_bytes,
            hold_s=HOLD_S,
            clock=now_s,
        ) as batcher,
        Spill.open(folder, max_spill_bytes) as spill,
        open_spilling_sink(
            batcher,
            spill,
            cast(StorageAdmin, database),  # only `check` is asked for
            max_batch_bytes=max_batch_bytes,
            max_queued_bytes=max_queued_bytes,
            metrics=metrics,
        ) as sink,
    ):
        disk = spill._thread
        assert isinstance(disk, ConnectionInLoop)
        yield SpillingPipeline(database, batcher, spill, disk, sink, metrics)
