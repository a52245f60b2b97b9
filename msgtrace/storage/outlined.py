"""Read the spans of a large trace in the order of its outline, a few at a time.

Path: storage → [storage.outlined] → api. SQL that every backend understands, as in
`storage.reader`. Each chunk is a read of its own: no snapshot stays open for a slow client.
In memory are the outline, about 200 bytes a span, and two chunks.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

from msgtrace.errors import StorageUnavailable
from msgtrace.model.span import Span, TenantId, TraceId
from msgtrace.model.trace import SpanPlace
from msgtrace.storage.search import Dialect
from msgtrace.storage.span_rows import SPAN_READ_COLUMNS
from msgtrace.storage.span_stream import (
    FIRST_CHUNK_SPANS,
    SpanStream,
    next_size,
)

if TYPE_CHECKING:
    from msgtrace.storage.reader import ReadSql  # which makes use of this module


async def spans_at(
    read: ReadSql,
    dialect: Dialect,
    tenant_id: TenantId,
    trace_id: TraceId,
    places: Iterable[SpanPlace],
) -> AsyncIterator[list[Span]]:
    """See TraceReader.read_outlined. The next chunk is read while one is dealt with."""
    chunks = _Chunks(read, dialect, tenant_id, trace_id, places)
    coming = asyncio.ensure_future(chunks.next())
    try:
        while spans := await coming:
            coming = asyncio.ensure_future(chunks.next())
            yield spans
    finally:
        coming.cancel()
        await asyncio.gather(coming, return_exceptions=True)


class _Chunks:
    def __init__(
        self,
        read: ReadSql,
        dialect: Dialect,
        tenant_id: TenantId,
        trace_id: TraceId,
        places: Iterable[SpanPlace],
    ) -> None:
        self._read = read
        self._spans_at = partial(dialect.spans_at, tenant_id, trace_id)
        self._stream = SpanStream(read, tenant_id)
        self._waiting = iter(places)
        self._size = FIRST_CHUNK_SPANS

    async def next(self) -> list[Span]:
        """The next spans in their order; none at the end."""
        chunk = list(islice(self._waiting, self._size))
        if not chunk:
            return []
        table, values = self._spans_at(chunk)
        [rows] = await self._read([(f"SELECT {SPAN_READ_COLUMNS} FROM {table}", values)])  # noqa: S608 - constant text
        self._size = next_size(self._size, rows)
        return _in_order(await self._stream.make_spans(rows), chunk)


def _in_order(spans: Sequence[Span], places: Sequence[SpanPlace]) -> list[Span]:
    found = {(span.span_id, span.start_time_ns): span for span in spans}
    try:
        return [found[place.span_id, place.start_time_ns] for place in places]
    except KeyError:
        raise StorageUnavailable("the trace was deleted while it was read") from None
