"""Tell the new spans of a flush from those that were sent before.

Only the slow path of a write comes here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from msgtrace.model.batch import SpanBatch, TraceDelta, TraceKey, summarize
from msgtrace.model.genai import GenAiFacts
from msgtrace.model.span import Row, SpanId, TenantId, TraceId

SpanKey = tuple[TenantId, TraceId, SpanId, int]
"""(tenant, trace id, span id, start): what makes two spans the same one."""

Incoming = dict[SpanKey, tuple[Row, GenAiFacts | None]]


def first_of_each(batches: Sequence[SpanBatch]) -> Incoming:
    """The spans of a flush by key, in order; of several with the same key, the first."""
    incoming: Incoming = {}
    for batch in batches:
        for index, row in enumerate(batch.spans):
            key = (row[0], row[1], row[2], row[4])
            incoming.setdefault(key, (row, batch.genai.get(index)))
    return incoming


@dataclass(frozen=True, slots=True)
class NewSpans:
    """Rows of spans, their GenAI facts by index, and what they add to their traces."""

    rows: list[Row]
    genai: dict[int, GenAiFacts]
    traces: dict[TraceKey, TraceDelta]


def only_new(incoming: Incoming, new: set[SpanKey]) -> NewSpans:
    """The spans whose keys are in `new`."""
    kept = [each for key, each in incoming.items() if key in new]
    rows = [row for row, _ in kept]
    genai = {index: facts for index, (_, facts) in enumerate(kept) if facts is not None}
    return NewSpans(rows, genai, summarize(rows, genai))
