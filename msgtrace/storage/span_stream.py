"""Read the spans of many traces, or of a very large one, a few at a time.

Path: storage → [storage.span_stream] → otlp.encode_spans → api. SQL that every backend understands,
as in `storage.reader`. Each chunk is a read of its own: no snapshot stays open for as long as a
slow client takes, which would keep the database from clearing up behind its writers.
What is deleted meanwhile is left out; spans that come meanwhile may be in it or not.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from msgtrace.model.search import TracePlace, TraceSearch
from msgtrace.model.span import InstrumentationScope, Resource, Row, Span, TenantId
from msgtrace.model.units import KIB
from msgtrace.storage.search import Dialect, join_conditions, page_conditions
from msgtrace.storage.span_rows import (
    RESOURCE_READ_COLUMNS,
    SCOPE_READ_COLUMNS,
    SPAN_READ_COLUMNS,
    resource_from_row,
    scope_from_row,
    span_from_row,
)

if TYPE_CHECKING:
    from msgtrace.storage.reader import ReadSql  # which makes use of this module

CHUNK_TEXT_BYTES = 192 * KIB
"""Text that one chunk aims at: a request of it stays below what a collector decodes at once."""

MAX_CHUNK_SPANS = 256
FIRST_CHUNK_SPANS = 32
"""How long the spans are is known only once some were read."""

GROUP_TRACES = 64
"""Traces whose spans are read by one statement; fewer are filled up, so that it stays the same."""

MAX_REMEMBERED = 1_000
"""Resources and scopes that are kept for the spans to come."""

_PLACES = """
SELECT t.start_time_ns, t.trace_id, t.end_time_ns, t.span_count FROM traces t WHERE {where}
ORDER BY t.start_time_ns DESC, t.trace_id DESC LIMIT ?
"""

_MARKS = ", ".join("?" * GROUP_TRACES)

# In the order of the index that makes a span unique, so that nothing is sorted.
_SPANS = f"""
SELECT {SPAN_READ_COLUMNS}
FROM spans s
WHERE s.tenant_id = ? AND s.trace_id IN ({_MARKS}) AND s.start_time_ns BETWEEN ? AND ?
    AND (s.trace_id, s.span_id, s.start_time_ns) > (?, ?, ?)
ORDER BY s.trace_id, s.span_id, s.start_time_ns LIMIT ?
"""  # noqa: S608 - built from constants

_CONTENT_MARKS = ", ".join("?" * MAX_CHUNK_SPANS)

_RESOURCES = f"""
SELECT {RESOURCE_READ_COLUMNS} FROM resources
WHERE tenant_id = ? AND resource_id IN ({_CONTENT_MARKS})
"""  # noqa: S608 - built from constants

_SCOPES = f"""
SELECT {SCOPE_READ_COLUMNS} FROM scopes WHERE tenant_id = ? AND scope_id IN ({_CONTENT_MARKS})
"""  # noqa: S608 - built from constants

_BEFORE_ALL = (b"", b"", 0)


async def find_places(
    read: ReadSql, dialect: Dialect, tenant_id: TenantId, search: TraceSearch
) -> list[TracePlace]:
    """Where the traces of one page are, without counting all that match."""
    where, values = join_conditions(page_conditions(dialect, search))
    [rows] = await read([(_PLACES.format(where=where), [tenant_id, *values, search.limit])])
    return [TracePlace(*row) for row in rows]


class SpanStream:
    """Reads spans of one tenant, and remembers the resources and scopes that it met."""

    def __init__(self, read: ReadSql, tenant_id: TenantId) -> None:
        self._read = read
        self._tenant_id = tenant_id
        self._chunk_spans = FIRST_CHUNK_SPANS
        self._resources: dict[int, Resource] = {}
        self._scopes: dict[int, InstrumentationScope] = {}

    async def spans_of(self, places: Sequence[TracePlace]) -> AsyncIterator[list[Span]]:
        """All spans of these traces in chunks; those of one trace stand together."""
        for start in range(0, len(places), GROUP_TRACES):
            group = places[start : start + GROUP_TRACES]
            last: tuple[bytes, bytes, int] | None = _BEFORE_ALL
            while last is not None:
                rows = await self._read_chunk(group, last)
                # Fewer than asked for are all that there are.
                last = _key(rows[-1]) if len(rows) == self._chunk_spans else None
                self._chunk_spans = next_size(self._chunk_spans, rows)
                if spans := await self.make_spans(rows):
                    yield spans

    async def _read_chunk(
        self, group: Sequence[TracePlace], after: tuple[bytes, bytes, int]
    ) -> list[Row]:
        ids = filled_up((place.trace_id for place in group), GROUP_TRACES)
        first_ns = min(place.start_time_ns for place in group)
        last_ns = max(place.end_time_ns for place in group)
        values = (self._tenant_id, *ids, first_ns, last_ns, *after, self._chunk_spans)
        [rows] = await self._read([(_SPANS, values)])
        return rows

    async def make_spans(self, rows: Sequence[Row]) -> list[Span]:
        """The spans of rows whose resource and scope are still there."""
        await self._learn(rows)
        resources, scopes = self._resources, self._scopes
        return [
            span_from_row(row, resources[row[0]], scopes[row[1]])
            for row in rows
            if row[0] in resources and row[1] in scopes
        ]

    async def _learn(self, rows: Sequence[Row]) -> None:
        """Read the resources and scopes that are not known yet."""
        if len(self._resources) > MAX_REMEMBERED or len(self._scopes) > MAX_REMEMBERED:
            self._resources.clear()
            self._scopes.clear()
        if unknown := {row[0] for row in rows} - self._resources.keys():
            [found] = await self._read([(_RESOURCES, self._content_values(unknown))])
            self._resources.update((row[0], resource_from_row(row)) for row in found)
        if unknown := {row[1] for row in rows} - self._scopes.keys():
            [found] = await self._read([(_SCOPES, self._content_values(unknown))])
            self._scopes.update((row[0], scope_from_row(row)) for row in found)

    def _content_values(self, ids: Iterable[int]) -> tuple[Any, ...]:
        return (self._tenant_id, *filled_up(ids, MAX_CHUNK_SPANS))


def filled_up(ids: Iterable[Any], count: int) -> list[Any]:
    """So many ids, the last one again and again."""
    filled = list(islice(ids, count))
    return filled + filled[-1:] * (count - len(filled))


def _key(row: Row) -> tuple[bytes, bytes, int]:
    return row[2], row[3], row[5]


def next_size(size: int, rows: Sequence[Row]) -> int:
    """How many spans the next chunk may hold, if they are as long as these."""
    text_bytes = sum(len(text) for row in rows for text in row[17:20] if text is not None)
    fitting = CHUNK_TEXT_BYTES * len(rows) // text_bytes if text_bytes else MAX_CHUNK_SPANS
    return max(1, min(fitting, 2 * size, MAX_CHUNK_SPANS))
