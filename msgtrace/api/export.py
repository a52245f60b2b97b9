"""GET /api/v1/traces/export: matching traces as OTLP requests, one after the other.

Path: storage → otlp.encode_spans → [api.export] → HTTP. What it streams are files as
OpenTelemetry's file exporters write them: a JSON request a line, or protobuf requests each behind
its length. Memory is bounded by a chunk, however many spans there are; nothing is held open in the
database while a client reads slowly. Exports take turns, and rest between chunks, for the sake of
everybody else.
Sources: OpenTelemetry specification, protocol/file-exporter.md; the framing of protobuf is that of
the Collector's file exporter, four bytes of length, most significant first.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Final, TypeVar

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from msgtrace.api import params
from msgtrace.api.cursors import format_cursor
from msgtrace.model.search import MAX_LIMIT, Cursor, TracePlace, TraceSearch
from msgtrace.model.span import Span, TenantId
from msgtrace.otlp.encode_spans import encode_json_request, encode_request
from msgtrace.otlp.encodings import JSON, PROTOBUF
from msgtrace.storage.protocol import Storage

NEXT_CURSOR: Final = "Msgtrace-Next-Cursor"
TRACE_COUNT: Final = "Msgtrace-Trace-Count"
SPAN_COUNT: Final = "Msgtrace-Span-Count"
EXPORT_HEADERS: Final = (NEXT_CURSOR, TRACE_COUNT, SPAN_COUNT)
"""Of a reply with a limit, where they are known before the first span is read."""

LENGTH_BYTES: Final = 4

REST_SHARE: Final = 3.0
"""How long an export rests after a chunk, as a share of the time that the chunk took.

A busy machine makes chunks, and so the rests, longer by itself.
"""

T = TypeVar("T")

Encode = Callable[[Sequence[Span]], bytes]


class ExportPace:
    """Lets one chunk be made at a time, with a rest behind each."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()

    async def records(
        self, chunks: AsyncIterator[list[Span]], encode: Encode
    ) -> AsyncIterator[bytes]:
        """The chunks, encoded in a thread."""
        while True:
            async with self._turn:
                began_s = time.perf_counter()
                spans = await _undisturbed(anext(chunks, None))
                if spans is None:
                    return
                record = await asyncio.to_thread(encode, spans)
                took_s = time.perf_counter() - began_s
            yield record
            await asyncio.sleep(took_s * REST_SHARE)


async def _undisturbed(read: Awaitable[T]) -> T:
    """What `read` gives. A client that goes away ends the waiting, not the read.

    A read that is broken off costs the database connection that it runs on.
    """
    under_way = asyncio.ensure_future(read)
    under_way.add_done_callback(_forget)
    return await asyncio.shield(under_way)


def _forget(read: asyncio.Future[T]) -> None:
    """Its error is nobody's any more, if nobody waits."""
    if not read.cancelled():
        read.exception()


async def export_traces(request: Request) -> Response:
    """GET /api/v1/traces/export"""
    question = params.export_question(request)
    media_type, encode = _ENCODINGS[question.encoding]
    export = _Export(request.app.state.storage, params.tenant_id(request), question)
    first = await export.find(question.after)
    headers = export.headers(first)
    if request.method == "HEAD":
        return Response(headers=headers, media_type=media_type)
    pace: ExportPace = request.app.state.export_pace
    records = pace.records(export.chunks(first), encode)
    return StreamingResponse(records, headers=headers, media_type=media_type)


class _Export:
    """The matching traces of one tenant, page by page, newest first."""

    def __init__(
        self, storage: Storage, tenant_id: TenantId, question: params.ExportQuestion
    ) -> None:
        self._storage = storage
        self._tenant_id = tenant_id
        self._question = question
        self._page_traces = question.limit or MAX_LIMIT

    async def find(self, after: Cursor | None) -> list[TracePlace]:
        """The next page, and one trace more if there is one."""
        search = TraceSearch(filter=self._question.filter, limit=self._page_traces + 1, after=after)
        return await self._storage.find_places(self._tenant_id, search)

    def headers(self, found: Sequence[TracePlace]) -> dict[str, str]:
        """What is known of a reply with a limit."""
        if self._question.limit is None:
            return {}
        page = found[: self._page_traces]
        headers = {
            TRACE_COUNT: str(len(page)),
            SPAN_COUNT: str(sum(place.span_count for place in page)),
        }
        if len(found) > len(page):
            headers[NEXT_CURSOR] = format_cursor(page[-1].cursor)
        return headers

    async def chunks(self, found: Sequence[TracePlace]) -> AsyncIterator[list[Span]]:
        """The spans of the page that was found, and without a limit of all later ones."""
        while True:
            page = found[: self._page_traces]
            async for spans in self._storage.read_spans(self._tenant_id, page):
                yield spans
            if self._question.limit is not None or len(found) == len(page):
                return
            found = await self.find(page[-1].cursor)


def _json_line(spans: Sequence[Span]) -> bytes:
    return encode_json_request(spans) + b"\n"


def _delimited(spans: Sequence[Span]) -> bytes:
    message = encode_request(spans)
    return len(message).to_bytes(LENGTH_BYTES, "big") + message


_ENCODINGS: dict[str, tuple[str, Encode]] = {
    JSON: ("application/x-ndjson", _json_line),
    PROTOBUF: ("application/x-protobuf", _delimited),
}
