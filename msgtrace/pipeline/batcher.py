"""Group commit: batches that arrive while the database is busy are written together.

Path: receivers → otlp.decode → [pipeline.batcher] → storage.
No timer: a free writer takes what waits, up to `max_batch_bytes`; while all are busy the next flush
grows. An idle collector commits each request at once, a loaded one commits large flushes.
Bounded: what waits and what is being written is at most `max_queued_bytes`, measured in request
bytes; beyond it Overloaded at once.
Not here: decoding, retries, tenancy, retention.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from msgtrace.errors import Overloaded, StorageError, Unavailable
from msgtrace.model.batch import SpanBatch
from msgtrace.storage.protocol import SpanWriter
from msgtrace.telemetry.metrics import CollectorMetrics

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    batch: SpanBatch
    done: asyncio.Future[None]
    since_s: float = field(default_factory=time.monotonic)


class Batcher:
    """A SpanSink over a SpanWriter.

    Enter it to start writing; leaving it writes what still waits.
    """

    def __init__(
        self,
        writer: SpanWriter,
        *,
        max_batch_bytes: int,
        max_queued_bytes: int,
        metrics: CollectorMetrics | None = None,
    ) -> None:
        self._writer = writer
        self._max_batch_bytes = max_batch_bytes
        self._max_queued_bytes = max_queued_bytes
        self._metrics = metrics or CollectorMetrics()
        self._queued_bytes = 0
        self._unanswered: dict[_Waiting, None] = {}  # a set in the order of arrival
        self._is_closing = False
        self._queue: asyncio.Queue[_Waiting | None] = asyncio.Queue()
        self._writers: list[asyncio.Task[None]] = []
        self._metrics.watch_queue(
            queued_requests=lambda: len(self._unanswered),
            queued_bytes=lambda: self._queued_bytes,
            age_s=self._oldest_age_s,
            max_bytes=max_queued_bytes,
        )

    @property
    def queued_bytes(self) -> int:
        """Request bytes that wait or are being written."""
        return self._queued_bytes

    async def __aenter__(self) -> Self:
        self._writers = [
            asyncio.create_task(self._write_until_closed(), name=f"batch-writer-{number}")
            for number in range(self._writer.writer_count)
        ]
        return self

    async def __aexit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Accept nothing more, write everything that waits, then stop."""
        self._is_closing = True
        for _ in self._writers:
            self._queue.put_nowait(None)
        await asyncio.gather(*self._writers)

    async def submit(self, batch: SpanBatch) -> None:
        """See SpanSink. A batch larger than the whole queue is taken when nothing else waits."""
        if not batch.spans:
            return
        try:
            self._require_room(batch.body_bytes)
        except Overloaded:
            self._metrics.count_spans_refused(len(batch.spans))
            raise
        waiting = _Waiting(batch, asyncio.get_running_loop().create_future())
        self._queued_bytes += batch.body_bytes
        self._unanswered[waiting] = None
        self._queue.put_nowait(waiting)
        await waiting.done

    def _require_room(self, body_bytes: int) -> None:
        if self._is_closing:
            raise Overloaded("the collector is stopping")
        if self._queued_bytes and self._queued_bytes + body_bytes > self._max_queued_bytes:
            raise Overloaded(
                f"{self._queued_bytes} bytes of spans wait for the database,"
                f" the limit is {self._max_queued_bytes}"
            )

    def _oldest_age_s(self) -> float:
        oldest = next(iter(self._unanswered), None)
        return 0.0 if oldest is None else time.monotonic() - oldest.since_s

    async def _write_until_closed(self) -> None:
        while (first := await self._queue.get()) is not None:
            group = self._take_with(first)
            await self._flush(group)
            self._queued_bytes -= _bytes_of(group)
            for waiting in group:
                del self._unanswered[waiting]

    def _take_with(self, first: _Waiting) -> list[_Waiting]:
        group, group_bytes = [first], first.batch.body_bytes
        while group_bytes < self._max_batch_bytes and not self._queue.empty():
            waiting = self._queue.get_nowait()
            if waiting is None:
                self._queue.put_nowait(
                    None
                )  # it is the last: the sentinels of closing come after all batches
                break
            group.append(waiting)
            group_bytes += waiting.batch.body_bytes
        return group

    async def _flush(self, group: list[_Waiting]) -> None:
        started_s = time.perf_counter()
        try:
            new = await self._writer.write_spans([waiting.batch for waiting in group])
        except Unavailable as error:
            self._metrics.count_flush_refused(error)
            logger.warning(
                "batch_write_unavailable", extra={"requests": len(group), "reason": str(error)}
            )
            self._fail(group, error)
        except Exception as error:  # noqa: BLE001 - whatever it is, every sender gets an answer and the writer goes on
            self._metrics.count_flush_refused(error)
            await self._isolate(group, error)
        else:
            self._metrics.count_flush(
                spans=_spans_of(group),
                new=new,
                body_bytes=_bytes_of(group),
                took_s=time.perf_counter() - started_s,
            )
            _succeed(group)

    async def _isolate(self, group: list[_Waiting], error: Exception) -> None:
        """One request's data must not cost the others theirs: write each alone."""
        if len(group) > 1:
            for waiting in group:
                await self._flush([waiting])
            return
        spans = len(group[0].batch.spans)
        logger.error("batch_write_refused", extra={"spans": spans}, exc_info=error)
        self._fail(
            group,
            error
            if isinstance(error, StorageError)
            else StorageError("the batch could not be written"),
        )

    def _fail(self, group: Sequence[_Waiting], error: Exception) -> None:
        self._metrics.count_spans_refused(_spans_of(group))
        for waiting in group:
            if not waiting.done.done():
                waiting.done.set_exception(error)


def _succeed(group: Sequence[_Waiting]) -> None:
    for waiting in group:
        if not waiting.done.done():
            waiting.done.set_result(None)


def _spans_of(group: Sequence[_Waiting]) -> int:
    return sum(len(waiting.batch.spans) for waiting in group)


def _bytes_of(group: Sequence[_Waiting]) -> int:
    return sum(waiting.batch.body_bytes for waiting in group)
