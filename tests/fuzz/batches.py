"""What may become of a request, and what must hold of every batch."""

from __future__ import annotations

from collections.abc import Sequence

from msgtrace.model.batch import SpanBatch, join_traces
from msgtrace.model.span import Row
from msgtrace.model.units import MAX_INT64
from msgtrace.storage.sqlite.writer import json_list
from msgtrace.storage.summary import trace_row

TAKEN, REFUSED = "taken", "refused"
NATIVELY, DECLINED = "taken natively", "declined"
"""What may become of an input; the latter two of one that both decoders take."""


def check_batch(batch: SpanBatch) -> None:
    """Every value fits its column, on every backend."""
    for row in batch.spans:
        _, trace_id, span_id, parent_id, start_ns, end_ns, *_, kind, status = row[:10]
        assert (len(trace_id), len(span_id), len(parent_id or span_id)) == (16, 8, 8)
        assert 0 <= start_ns <= MAX_INT64
        assert 0 <= end_ns <= MAX_INT64
        assert -(2**31) <= kind < 2**31
        assert -(2**31) <= status < 2**31
        for text in row:
            assert not isinstance(text, str) or _is_storable(text)
    assert sum(delta.span_count for delta in batch.traces.values()) == len(batch.spans)
    assert bool(batch.rejected_spans) == bool(batch.rejection_message)


def summaries(batches: Sequence[SpanBatch]) -> list[Row]:
    """The rows of what batches add to their traces, by trace."""
    traces = join_traces(batches)
    if isinstance(traces, dict):
        return [trace_row(key, traces[key], json_list) for key in sorted(traces)]
    rows = list(traces.to_tuples())
    assert len(traces) == len(rows)
    assert list(traces.times()) == [row[2:4] for row in rows]
    return rows


def _is_storable(text: str) -> bool:
    """Whether PostgreSQL takes it: UTF-8 without U+0000."""
    return "\0" not in text and bool(text.encode()) == bool(text)
