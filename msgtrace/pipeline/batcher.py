"""Group commit: batches that arrive while the database is busy are written together.

Path: receivers → otlp.decode → [pipeline.batcher] → storage.
No timer: a free writer takes what waits, up to `max_batch_bytes`; while all are busy the next flush
grows. An idle collector commits each request at once, a loaded one commits large flushes.
Bounded: what waits and what is being written is at most `max_queued_bytes`, measured in request
bytes; beyond it Overloaded at once.
A database that is away is asked again for `hold_s`: most restarts are over by then.
A flush that is refused for its data is cut in halves until the requests that are to blame stand
alone. Those come last; what becomes of them is decided in `pipeline.dead_letters`.
Not here: decoding, what happens after the hold, tenancy, retention.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from msgtrace.errors import Overloaded, StorageError, Unavailable
from msgtrace.model.batch import SpanBatch
from msgtrace.pipeline.dead_letters import DeadLetterKeeper
from msgtrace.storage.protocol import SpanWriter
from msgtrace.telemetry.collector_metrics import CollectorMetrics

logger = logging.getLogger(__name__)

HOLD_S = 2.0
"""How long a request waits for a database that is away. Senders give an export 10 s in all."""

RETRY_INTERVAL_S = 0.2
"""Between two tries of one flush within the hold."""

ABANDONED_GRACE_S = 1.0
"""How long closing waits for a write in progress whose senders all have their answer."""


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    batch: SpanBatch
    done: asyncio.Future[None]
    since_s: float


@dataclass(frozen=True, slots=True)
class _Part:
    """Requests of a flush to be written together, or the one that was refused, with its error."""

    requests: Sequence[_Waiting]
    refusal: Exception | None = None


class Batcher:
    """A SpanSink over a SpanWriter; what that refuses goes to `keeper`, or fails without one.

    Enter it to start writing; leaving it writes what still waits. clock: seconds, as the event loop
    counts them.
    """

    def __init__(
        self,
        writer: SpanWriter,
        *,
        max_batch_bytes: int,
        max_queued_bytes: int,
        hold_s: float = 0.0,
        keeper: DeadLetterKeeper | None = None,
        metrics: CollectorMetrics | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._writer = writer
        self._keeper = keeper
        self._max_batch_bytes = max_batch_bytes
        self._max_queued_bytes = max_queued_bytes
        self._hold_s = hold_s
        self._metrics = metrics or CollectorMetrics()
        self._clock = clock
        self._queued_bytes = 0
        self._queue: deque[_Waiting] = deque()
        self._unanswered: dict[_Waiting, None] = {}  # a set in the order of arrival
        self._last_answer_s = float("-inf")
        self._is_closing = False
        self._has_news = asyncio.Event()
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

    @property
    def stalled_s(self) -> float:
        """How long somebody has waited and the database has neither committed nor refused anything.

        0 if nobody waits for an answer.
        """
        oldest = next(iter(self._unanswered), None)
        if oldest is None:
            return 0.0
        return self._clock() - max(oldest.since_s, self._last_answer_s)

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
        """Accept nothing more, write everything that waits, then stop.

        A write that nobody waits for any more, to a database that does not answer, is ended.
        """
        self._is_closing = True
        self._has_news.set()
        while waiting := [each.done for each in self._unanswered if not each.done.done()]:
            await asyncio.wait(waiting)
        _, stuck = await asyncio.wait(self._writers, timeout=ABANDONED_GRACE_S)
        for writer in stuck:
            writer.cancel()
        if stuck:  # they end with the connections of the storage at the latest
            await asyncio.wait(stuck, timeout=ABANDONED_GRACE_S)

    async def submit(self, batch: SpanBatch) -> None:
        """See SpanSink. A batch larger than the whole queue is taken when nothing else waits."""
        if not batch.spans:
            return
        self._require_room(batch.body_bytes)
        waiting = _Waiting(batch, asyncio.get_running_loop().create_future(), self._clock())
        self._queued_bytes += batch.body_bytes
        self._unanswered[waiting] = None
        self._queue.append(waiting)
        self._has_news.set()
        await waiting.done

    def give_up(self, error: Unavailable) -> None:
        """Answer everybody who waits with `error`.

        What is being written may still be stored; what is queued will not be.
        """
        for waiting in self._queue:
            self._queued_bytes -= waiting.batch.body_bytes
        self._queue.clear()
        self._fail(list(self._unanswered), error)

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
        return 0.0 if oldest is None else self._clock() - oldest.since_s

    async def _write_until_closed(self) -> None:
        while group := await self._next_group():
            await self._flush(group)
            self._queued_bytes -= _bytes_of(group)
            group.clear()  # or it would stay in memory until the next one comes

    async def _next_group(self) -> list[_Waiting]:
        """What waits, up to the cap of a flush; empty once there is nothing left to come."""
        while not self._queue:
            if self._is_closing:
                return []
            self._has_news.clear()
            await self._has_news.wait()
        group, group_bytes = [], 0
        while self._queue and group_bytes < self._max_batch_bytes:
            group.append(self._queue.popleft())
            group_bytes += group[-1].batch.body_bytes
        return group

    async def _flush(self, group: Sequence[_Waiting]) -> None:
        """Answer every request of the group, once it is written or cannot be.

        Requests that are refused alone come last: taking them apart must not hold up the others.
        """
        parts = deque([_Part(group)])
        while parts:
            part = parts.popleft()
            try:
                if part.refusal is None:
                    await self._write(part.requests, parts)
                else:
                    await self._settle(part.requests, part.refusal)
            except Unavailable as error:
                self._metrics.count_flush_refused(error)
                parts.appendleft(part)
                if self._may_hold(part.requests):
                    await asyncio.sleep(RETRY_INTERVAL_S)
                    continue
                left = [waiting for each in parts for waiting in each.requests]
                logger.warning(
                    "batch_write_unavailable", extra={"requests": len(left), "reason": str(error)}
                )
                self._fail(left, error)
                return
            except Exception as error:
                logger.error("batch_write_failed", exc_info=error)
                self._fail(part.requests, StorageError("the batch could not be written"))

    async def _write(self, requests: Sequence[_Waiting], parts: deque[_Part]) -> None:
        """Write and answer the requests; add to `parts` what is to be done if they are refused."""
        started_s = time.perf_counter()
        try:
            new = await self._store([waiting.batch for waiting in requests])
        except Unavailable:
            raise
        except Exception as error:  # noqa: BLE001 - a fault of ours must not harm others either
            self._metrics.count_flush_refused(error)
            if len(requests) == 1:
                parts.append(_Part(requests, error))
            else:
                middle = len(requests) // 2
                parts.extendleft((_Part(requests[middle:]), _Part(requests[:middle])))
            return
        self._metrics.count_flush(
            spans=_spans_of(requests),
            new=new,
            body_bytes=_bytes_of(requests),
            took_s=time.perf_counter() - started_s,
        )
        self._succeed(requests)

    async def _settle(self, requests: Sequence[_Waiting], refusal: Exception) -> None:
        """Answer one request that was refused alone."""
        if self._keeper is None:
            raise refusal
        await self._keeper.settle(requests[0].batch, refusal, self._store)
        self._succeed(requests)

    async def _store(self, batches: Sequence[SpanBatch]) -> int:
        """As `write_spans` does; a refusal shows as well as a commit that the database is there."""
        is_answered = True
        try:
            return await self._writer.write_spans(batches)
        except (Unavailable, asyncio.CancelledError):
            is_answered = False
            raise
        finally:
            if is_answered:
                self._last_answer_s = self._clock()

    def _may_hold(self, part: Sequence[_Waiting]) -> bool:
        """Whether another try would still come within the hold of all, and matter to anybody."""
        is_awaited = any(waiting in self._unanswered for waiting in part)
        return is_awaited and self._clock() - part[0].since_s + RETRY_INTERVAL_S < self._hold_s

    def _fail(self, group: Sequence[_Waiting], error: Exception) -> None:
        for waiting in group:
            self._unanswered.pop(waiting, None)
            if not waiting.done.done():
                waiting.done.set_exception(error)

    def _succeed(self, group: Sequence[_Waiting]) -> None:
        for waiting in group:
            self._unanswered.pop(waiting, None)
            if not waiting.done.done():
                waiting.done.set_result(None)


def _spans_of(group: Sequence[_Waiting]) -> int:
    return sum(len(waiting.batch.spans) for waiting in group)


def _bytes_of(group: Sequence[_Waiting]) -> int:
    return sum(waiting.batch.body_bytes for waiting in group)
