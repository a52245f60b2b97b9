"""What both wires do with the bytes of an export request: inflate, decode, submit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from msgtrace.model.batch import SpanBatch
from msgtrace.otlp.decode import decode_export_request
from msgtrace.pipeline.sink import SpanSink
from msgtrace.receivers.body import inflate_gzip

P = ParamSpec("P")
T = TypeVar("T")

INLINE_DECODE_BYTES = 1024 * 1024
"""Larger bodies are decoded in a thread (a MiB keeps the event loop for some 25 ms).

For smaller ones the hand-over costs more than it gives.
"""

INLINE_INFLATE_BYTES = 4 * 1024
"""Larger bodies are inflated in a thread: each byte may become a thousand."""


class TraceExport:
    """One export, from bytes to durable spans."""

    def __init__(self, sink: SpanSink, *, max_request_bytes: int) -> None:
        self._sink = sink
        self.max_request_bytes = max_request_bytes

    async def export(self, body: bytes, *, is_gzip: bool = False) -> SpanBatch:
        """Decode and store `body`; return what was stored, with the count of rejected spans.

        Raises RequestError for a body that cannot be used, Unavailable or StorageError if it was
        not stored.
        """
        if is_gzip:
            body = await _run(
                len(body) > INLINE_INFLATE_BYTES, inflate_gzip, body, self.max_request_bytes
            )
        batch = await _run(len(body) > INLINE_DECODE_BYTES, decode_export_request, body)
        await self._sink.submit(batch)
        return batch


async def _run(in_thread: bool, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    return (
        await asyncio.to_thread(function, *args, **kwargs)
        if in_thread
        else function(*args, **kwargs)
    )
