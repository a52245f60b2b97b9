"""Write the JSON of a large trace piece by piece, the same as that of a small one.

Path: storage → query → [api.streaming] → HTTP.
Trace and tree begin before their spans are read, and hold one chunk of spans at a time. A reply
that cannot be finished is broken off: the client sees that its end is missing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass

from msgtrace.api import views
from msgtrace.model.span import Span
from msgtrace.model.trace import SpanPlace, TraceOutline, UsageSums
from msgtrace.query.tree import Relation, build_forest, walk
from msgtrace.query.usage import NO_USAGE, added, usage_node

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
    yield views.tree_head(outline)
    steps = await asyncio.to_thread(_steps, outline)
    position, depth = 0, -1
    async for spans in read(step.place for step in steps):
        piece = bytearray()
        for span in spans:
            step = steps[position]
            node = usage_node(span, step.relation, outline.usages, step.subtree)
            piece += _between(depth, step.depth) + views.node_head(node)
            position, depth = position + 1, step.depth
        yield bytes(piece)
    yield b"]}" * (depth + 1) + b"]}"


@dataclass(slots=True)
class _Step:
    """A span in the order in which a tree is written. subtree: what it and those beneath it use."""

    place: SpanPlace
    relation: Relation
    depth: int
    subtree: UsageSums = NO_USAGE


def _steps(outline: TraceOutline) -> list[_Step]:
    forest = walk(build_forest(outline.places))
    steps = [_Step(node.span, node.relation, depth) for depth, node in forest]
    _sum_subtrees(steps, outline)
    return steps


def _sum_subtrees(steps: Sequence[_Step], outline: TraceOutline) -> None:
    if not outline.usages:
        return
    beneath: dict[int, UsageSums] = {}  # by depth: the siblings behind, with all beneath them
    for step in reversed(steps):
        usage = outline.usages.get((step.place.span_id, step.place.start_time_ns))
        own = NO_USAGE if usage is None else usage.counted
        step.subtree = added(own, beneath.pop(step.depth + 1, NO_USAGE))
        beneath[step.depth] = added(beneath.get(step.depth, NO_USAGE), step.subtree)


def _between(depth: int, below: int) -> bytes:
    """What stands between a node at `depth` and the next one, at `below`."""
    return b"" if below > depth else b"]}" * (depth - below + 1) + b","
