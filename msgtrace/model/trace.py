"""A trace as readers get it.

Its summary for lists, all its spans for the detail, and sums over many.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from msgtrace.model.span import Span, SpanId, TraceId


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceSummary:
    """One line of the trace list.

    root_span_id is None until a span without a parent is stored; root_span_name and service_name
    are then those of the earliest span. service_name is the root's service, services are all.
    All lists are sorted; operations are classes of `model.genai`.
    Tokens and cost count each model call once. input_tokens include cached_tokens, output_tokens
    include reasoning_tokens, cost includes estimated_cost, which nobody sent.
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
    providers: list[str]
    operations: list[str]
    agents: list[str]
    tools: list[str]
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    reasoning_tokens: int
    cost: float
    estimated_cost: float

    @property
    def duration_ns(self) -> int:
        """From the earliest start to the latest end; never negative."""
        return self.end_time_ns - self.start_time_ns


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageSums:
    """Tokens and cost of model calls, each counted once; as in TraceSummary."""

    model_calls: int
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    reasoning_tokens: int
    cost: float
    estimated_cost: float

    def plus(self, other: UsageSums) -> UsageSums:
        """Both together; `other` must be of other calls."""
        return UsageSums(
            model_calls=self.model_calls + other.model_calls,
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
            reasoning_tokens=self.reasoning_tokens + other.reasoning_tokens,
            cost=self.cost + other.cost,
            estimated_cost=self.estimated_cost + other.estimated_cost,
        )


SpanKey = tuple[SpanId, int]
"""(span id, start): a span of a trace."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpanUsage:
    """What one span states about tokens and cost.

    cost: as sent or, where is_estimated, by the price table; None for none.
    counts_tokens, counts_cost: not of a span around another that says the same. counted: what the
    trace's sums hold of it.
    """

    model: str | None
    provider: str | None
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    reasoning_tokens: int
    cost: float | None
    is_estimated: bool
    counts_tokens: bool
    counts_cost: bool
    counted: UsageSums


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """A summary and all spans, ordered by (start, span id).

    usages: of the spans that state tokens or cost.
    """

    summary: TraceSummary
    spans: list[Span]
    usages: dict[SpanKey, SpanUsage] = field(default_factory=dict)


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
    usages: dict[SpanKey, SpanUsage] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceStats:
    """Sums over the traces that match a search.

    Percentiles are nearest-rank, None when there is no trace.
    by_model, by_service: of the calls themselves, greatest cost first; None stands for a cost that
    was stated for no model. by_day: by the day in UTC (YYYY-MM-DD) on which calls began, in order.
    """

    total_traces: int
    traces_with_errors: int
    total_spans: int
    total_errors: int
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    reasoning_tokens: int
    cost: float
    estimated_cost: float
    by_model: dict[str | None, UsageSums]
    by_service: dict[str, UsageSums]
    by_day: dict[str, UsageSums]
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
