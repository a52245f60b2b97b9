"""What both wires do with the bytes of an export request: inflate, decode, submit."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from msgtrace.errors import RequestTooLarge
from msgtrace.model.batch import SpanBatch
from msgtrace.pipeline.sink import SpanSink
from msgtrace.receivers.body import IDENTITY, inflate
from msgtrace.receivers.budget import ByteBudget
from msgtrace.receivers.encoding import Encoding
from msgtrace.telemetry.metrics import CollectorMetrics

P = ParamSpec("P")
T = TypeVar("T")

INLINE_DECODE_BYTES = 1024 * 1024
"""Larger bodies are decoded in a thread: a MiB keeps the event loop for some 20 ms.

For smaller ones the hand-over costs more than it gives.
"""

INLINE_INFLATE_BYTES = 4 * 1024
"""Larger bodies are inflated in a thread: each byte may become a thousand."""

LARGE_AT_ONCE = 1
"""Large bodies that are inflated and decoded at the same time.

Each takes several times its size.
"""


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
    ) -> None:
        self._sink = sink
        self.metrics = metrics or CollectorMetrics()
        self.max_request_bytes = max_request_bytes
        self.budget = budget
        self._large = asyncio.Semaphore(LARGE_AT_ONCE)

    async def export(
        self, body: bytes, encoding: Encoding, coding: str = IDENTITY, *, wire: str
    ) -> SpanBatch:
        """Decode and store `body`; return what was stored, with the count of rejected spans.

        The body is let go of once it is decoded: hand over the only reference to a large one.
        Raises RequestError for a body that cannot be used, Unavailable or StorageError if it was
        not stored. wire: grpc or http, for the metrics.
        """
        began_s = time.perf_counter()
        self.metrics.count_received(wire, encoding.name, len(body))
        batch = await self._decode(body, encoding, coding)
        del body
        self.metrics.count_decoded(wire, batch)
        await self._sink.submit(batch)
        self.metrics.count_acknowledged(wire, time.perf_counter() - began_s)
        return batch

    async def _decode(self, body: bytes, encoding: Encoding, coding: str) -> SpanBatch:
        if coding == IDENTITY:
            return await self._run(len(body) > INLINE_DECODE_BYTES, encoding.decode, body)
        if len(body) <= INLINE_INFLATE_BYTES:
            max_bytes = min(INLINE_DECODE_BYTES, self.max_request_bytes)
            with contextlib.suppress(RequestTooLarge):
                return encoding.decode(inflate(body, coding, max_bytes))
        # In one go: contents that waited for their turn to be decoded would be held all at once.
        return await self._run(True, self._inflate_and_decode, body, encoding, coding)

    def _inflate_and_decode(self, body: bytes, encoding: Encoding, coding: str) -> SpanBatch:
        return encoding.decode(inflate(body, coding, self.max_request_bytes))

    async def _run(
        self, is_large: bool, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        if not is_large:
            return function(*args, **kwargs)
        async with self._large:
            return await asyncio.to_thread(function, *args, **kwargs)
