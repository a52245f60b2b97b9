"""What both wires do with the bytes of an export request: inflate, decode, submit."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

from msgtrace.errors import RequestTooLarge
from msgtrace.model.batch import SpanBatch
from msgtrace.model.units import KIB
from msgtrace.otlp.encodings import decode_as
from msgtrace.otlp.rules import DEFAULT_RULES, DecodeRules
from msgtrace.pipeline.sink import SpanSink
from msgtrace.receivers.body import IDENTITY, inflate
from msgtrace.receivers.budget import ByteBudget
from msgtrace.receivers.encoding import Encoding
from msgtrace.receivers.memory import ProcessMemory
from msgtrace.telemetry.collector_metrics import CollectorMetrics

INLINE_BYTES = 512 * KIB
"""Larger bodies are cut into pieces of this size, each decoded in a thread and stored by itself.

Ordinary spans of that size keep the event loop for some 15 ms, and the hand-over to a thread would
cost more than it gives. Dense ones, which would keep it for up to a second, go to a thread too;
they take 160 MiB at most.
"""

INLINE_INFLATE_BYTES = 64 * KIB
"""Larger compressed bodies are inflated in a thread."""

LAST_LOOK_S = 1.0
"""From the end of a large body to giving memory back again."""

LARGE_AT_ONCE = 1
"""Large bodies that are inflated, decoded and stored at the same time."""


class TraceExport:
    """Exports, from bytes to durable spans.

    `budget` bounds the bodies of all requests under way.
    """

    def __init__(
        self,
        sink: SpanSink,
        *,
        max_request_bytes: int,
        budget: ByteBudget,
        metrics: CollectorMetrics | None = None,
        rules: DecodeRules = DEFAULT_RULES,
    ) -> None:
        self._sink = sink
        self._rules = rules
        self.metrics = metrics or CollectorMetrics()
        self.max_request_bytes = max_request_bytes
        self.budget = budget
        self._large = asyncio.Semaphore(LARGE_AT_ONCE)
        self._memory = ProcessMemory()

    async def export(
        self, body: bytes, encoding: Encoding, coding: str = IDENTITY, *, wire: str
    ) -> SpanBatch:
        """Decode and store `body`; return what was rejected of it.

        The body is let go of once it is decoded: hand over the only reference to a large one.
        A large one is stored piece by piece: after an error some of it may be stored, which a
        resend does not double. Raises RequestError for a body that cannot be used, Unavailable or
        StorageError if it was not stored. wire: grpc or http, for the metrics.
        """
        began_s = time.perf_counter()
        self.metrics.count_received(wire, encoding.name, len(body))
        batch = self._decode_small(body, encoding, coding)
        held = [body]
        del body
        if batch is None:
            batch = await self._export_large(held.pop(), encoding, coding, wire)
        else:
            held.clear()
            await self._submit(batch, wire)
        self.metrics.count_acknowledged(wire, time.perf_counter() - began_s)
        return batch

    def _decode_small(self, body: bytes, encoding: Encoding, coding: str) -> SpanBatch | None:
        """The batch of a body that is small also when inflated, None for any that may take long."""
        if len(body) > (INLINE_BYTES if coding == IDENTITY else INLINE_INFLATE_BYTES):
            return None
        try:
            content = inflate(body, coding, min(INLINE_BYTES, self.max_request_bytes))
        except RequestTooLarge:
            return None
        return None if encoding.is_dense(content) else self._decode(content, encoding)

    def _decode(self, body: bytes, encoding: Encoding) -> SpanBatch:
        return decode_as(encoding.name, body, self._rules)

    def _decode_next(self, pieces: Iterator[bytes], encoding: Encoding) -> SpanBatch | None:
        piece = next(pieces, None)
        return None if piece is None else self._decode(piece, encoding)

    async def _export_large(
        self, body: bytes, encoding: Encoding, coding: str, wire: str
    ) -> SpanBatch:
        stored = SpanBatch()
        # One at a time from inflating to storing: contents that wait would all be held at once.
        async with self._large:
            self._memory.give_back()  # what others have freed, before this one takes its own
            try:
                content = await asyncio.to_thread(inflate, body, coding, self.max_request_bytes)
                del body
                pieces = encoding.split(content, INLINE_BYTES)
                del content
                while (
                    batch := await asyncio.to_thread(self._decode_next, pieces, encoding)
                ) is not None:
                    await self._submit(batch, wire)
                    stored.add_rejections(batch)
            finally:
                self._memory.give_back()
                self._memory.give_back_later((LAST_LOOK_S,))
        return stored

    async def _submit(self, batch: SpanBatch, wire: str) -> None:
        self.metrics.count_decoded(wire, batch)
        try:
            await self._sink.submit(batch)
        except Exception:
            self.metrics.count_spans_refused(len(batch.spans))
            raise
