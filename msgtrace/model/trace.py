"""A trace as readers get it.

Its summary for lists, all its spans for the detail, and sums over many.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from msgtrace.model.span import Span, SpanId, TraceId


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceSummary:
    """One line of the trace list.

    root_span_id is None until a span without a parent is stored; root_span_name and service_name
    are then those of the earliest span. service_name is the root's service, services are all.
    models and services are sorted.
    """

    trace_id: TraceId
    start_time_ns: int
    end_time_ns: int
    span_count: int
    error_count: int
    root_span_id: SpanId | None
    root_span_name: str
    service_name: str
    services: list[str]
    workflow_name: str | None
    session_id: str | None
    user_id: str | None
    models: list[str]
    input_tokens: int
    output_tokens: int
    cost: float

    @property
    def duration_ns(self) -> int:
        """From the earliest start to the latest end; never negative."""
        return self.end_time_ns - self.start_time_ns


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """A summary and all spans, ordered by (start, span id)."""

    summary: TraceSummary
    spans: list[Span]


class SpanPlace(NamedTuple):
    """Where a span stands in its trace, without what it carries."""

    span_id: SpanId
    parent_span_id: SpanId | None
    start_time_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceOutline:
    """A summary and where all spans stand, ordered by (start, span id)."""

    summary: TraceSummary
    places: list[SpanPlace]


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceStats:
    """Sums over the traces that match a search.

    Percentiles are nearest-rank, None when there is no trace.
    """

    total_traces: int
    traces_with_errors: int
    total_spans: int
    total_errors: int
    input_tokens: int
    output_tokens: int
    cost: float
    duration_p50_ns: int | None
    duration_p95_ns: int | None
    duration_p99_ns: int | None

    @property
    def error_rate(self) -> float:
        """Share of traces with at least one error, 0..1."""
        return self.traces_with_errors / self.total_traces if self.total_traces else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """A span name of a service. span_kind is OTLP's number."""

    name: str
    span_kind: int
