"""Write the JSON of a large trace piece by piece, the same as that of a small one.

Path: storage → query → [api.streaming] → HTTP.
Trace and tree begin before their spans are read, and hold one chunk of spans at a time. A reply
that cannot be finished is broken off: the client sees that its end is missing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable

from msgtrace.api import views
from msgtrace.model.span import Span
from msgtrace.model.trace import SpanPlace, TraceOutline
from msgtrace.query.tree import Relation, build_forest, walk

ReadSpans = Callable[[Iterable[SpanPlace]], AsyncIterator[list[Span]]]
"""Reads the spans at some places, in their order, chunk by chunk."""


async def trace_pieces(outline: TraceOutline, read: ReadSpans) -> AsyncIterator[bytes]:
    """The pieces of what `views.trace` writes."""
    yield views.trace_head(outline.summary)
    separator = b""
    async for spans in read(outline.places):
        yield separator + b",".join(map(views.span, spans))
        separator = b","
    yield b"]}"


async def tree_pieces(outline: TraceOutline, read: ReadSpans) -> AsyncIterator[bytes]:
    """The pieces of what `views.trace_tree` writes.

    The forest is built of the outline, which takes some hundred bytes a span, and then written in
    its own order.
    """
    yield views.tree_head(outline.summary.trace_id, len(outline.places))
    steps = await asyncio.to_thread(_steps, outline.places)
    position, depth = 0, -1
    async for spans in read(place for place, _, _ in steps):
        piece = bytearray()
        for span in spans:
            _, relation, below = steps[position]
            piece += _between(depth, below) + views.node_head(span, relation)
            position, depth = position + 1, below
        yield bytes(piece)
    yield b"]}" * (depth + 1) + b"]}"


def _steps(places: Iterable[SpanPlace]) -> list[tuple[SpanPlace, Relation, int]]:
    """Every span with its relation and its depth, in the order in which a tree is written."""
    return [(node.span, node.relation, depth) for depth, node in walk(build_forest(places))]


def _between(depth: int, below: int) -> bytes:
    """What stands between a node at `depth` and the next one, at `below`."""
    return b"" if below > depth else b"]}" * (depth - below + 1) + b","
