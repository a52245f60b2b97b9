"""The parts of the query API's replies that are shown; fields a newer service adds are ignored.

Path: cli.client → [cli.replies] → cli.render, cli.tree. Times are integer nanoseconds here; the API
sends them as decimal strings, which msgspec reads with `strict=False`.
"""

from __future__ import annotations

from msgspec import Raw, Struct


class TraceSummary(Struct, frozen=True, kw_only=True):
    """One trace of a list."""

    trace_id: str
    start_time_unix_nano: int
    end_time_unix_nano: int
    span_count: int
    error_count: int
    service_name: str
    root_span_name: str
    workflow_name: str | None = None
    session_id: str | None = None
    user_id: str | None = None
    models: list[str] = []
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    cost: float = 0.0
    estimated_cost: float = 0.0

    @property
    def uses_models(self) -> bool:
        """Whether it says anything of generative AI."""
        return bool(self.models or self.input_tokens or self.output_tokens or self.cost)

    @property
    def duration_ns(self) -> int:
        """From the earliest start to the latest end."""
        return self.end_time_unix_nano - self.start_time_unix_nano


class TraceList(Struct, frozen=True, kw_only=True):
    """GET /api/v1/traces"""

    traces: list[TraceSummary]
    total: int
    total_is_exact: bool = True
    next_cursor: str | None = None


class SpanStatus(Struct, frozen=True, kw_only=True):
    """status_code is UNSET, OK or ERROR, or a number that OTLP has not named."""

    status_code: str | int
    description: str = ""


class Span(Struct, frozen=True, kw_only=True):
    """One span of a tree."""

    name: str
    service_name: str
    start_time_unix_nano: int
    end_time_unix_nano: int
    status: SpanStatus
    span_id: str = ""
    attributes: Raw = Raw(b"{}")
    events: Raw = Raw(b"[]")

    @property
    def duration_ns(self) -> int:
        """End minus start as sent: negative for a clock that stepped back."""
        return self.end_time_unix_nano - self.start_time_unix_nano

    @property
    def is_error(self) -> bool:
        """Whether the span says it went wrong."""
        return self.status.status_code == "ERROR"


class SpanUsage(Struct, frozen=True, kw_only=True):
    """What a span itself states of the model that it called."""

    model: str | None = None


class UsageSums(Struct, frozen=True, kw_only=True):
    """What counts of a span and all beneath it."""

    input_tokens: int = 0
    output_tokens: int = 0
    cost: float = 0.0
    estimated_cost: float = 0.0


class SpanNode(Struct, frozen=True, kw_only=True):
    """A span and what hangs below it. relation is root, child, orphan, cycle or deep.

    folded_count: wrapper spans that were taken out directly above it.
    """

    span: Span
    relation: str
    children: list[SpanNode]
    operation: str | None = None
    usage: SpanUsage | None = None
    subtree: UsageSums = UsageSums()
    folded_count: int = 0


class TraceTree(Struct, frozen=True, kw_only=True):
    """GET /api/v1/traces/{trace_id}/tree"""

    trace_id: str
    roots: list[SpanNode]
    span_count: int = 0
    summary: TraceSummary | None = None


class SessionSummary(Struct, frozen=True, kw_only=True):
    """One session of a list."""

    session_id: str
    start_time_unix_nano: int
    end_time_unix_nano: int
    newest_start_time_unix_nano: int
    trace_count: int
    error_count: int
    user_id: str | None
    workflow_name: str | None
    models: list[str]
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    reasoning_tokens: int
    cost: float
    estimated_cost: float

    @property
    def duration_ns(self) -> int:
        """From the start of its first trace to the latest end."""
        return self.end_time_unix_nano - self.start_time_unix_nano


class SessionList(Struct, frozen=True, kw_only=True):
    """GET /api/v1/sessions"""

    sessions: list[SessionSummary]
    next_cursor: str | None = None


class SessionDetail(SessionSummary, frozen=True, kw_only=True):
    """GET /api/v1/sessions/{session_id}"""

    traces: list[TraceSummary]
    next_cursor: str | None = None


class DurationPercentiles(Struct, frozen=True, kw_only=True):
    """Milliseconds, None when there is no trace."""

    p50: float | None
    p95: float | None
    p99: float | None


class TraceStats(Struct, frozen=True, kw_only=True):
    """GET /api/v1/stats"""

    total_traces: int
    traces_with_errors: int
    error_rate: float
    total_spans: int
    total_errors: int
    duration_ms: DurationPercentiles
    input_tokens: int
    output_tokens: int
    cost: float
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    estimated_cost: float = 0.0
    by_model: list[UsageGroup] = []


class UsageGroup(UsageSums, frozen=True, kw_only=True):
    """Tokens and cost of one model; None for a cost of none."""

    name: str | None
    model_calls: int


class Deleted(Struct, frozen=True, kw_only=True):
    """DELETE /api/v1/traces"""

    deleted: int


class ErrorReply(Struct, frozen=True, kw_only=True):
    """Every error of the API."""

    detail: str
