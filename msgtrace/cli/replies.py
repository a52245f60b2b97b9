"""The parts of the query API's replies that are shown; fields a newer service adds are ignored.

Path: cli.client → [cli.replies] → cli.render, cli.tree. Times are integer nanoseconds here; the API
sends them as decimal strings, which msgspec reads with `strict=False`.
"""

from __future__ import annotations

from msgspec import Struct


class TraceSummary(Struct, frozen=True, kw_only=True):
    """One trace of a list."""

    trace_id: str
    start_time_unix_nano: int
    end_time_unix_nano: int
    span_count: int
    error_count: int
    service_name: str
    root_span_name: str
    models: list[str] = []
    input_tokens: int = 0
    output_tokens: int = 0

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

    @property
    def duration_ns(self) -> int:
        """End minus start as sent: negative for a clock that stepped back."""
        return self.end_time_unix_nano - self.start_time_unix_nano

    @property
    def is_error(self) -> bool:
        """Whether the span says it went wrong."""
        return self.status.status_code == "ERROR"


class SpanNode(Struct, frozen=True, kw_only=True):
    """A span and what hangs below it. relation is root, child, orphan, cycle or deep."""

    span: Span
    relation: str
    children: list[SpanNode]


class TraceTree(Struct, frozen=True, kw_only=True):
    """GET /api/v1/traces/{trace_id}/tree"""

    trace_id: str
    roots: list[SpanNode]


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


class Deleted(Struct, frozen=True, kw_only=True):
    """DELETE /api/v1/traces"""

    deleted: int


class ErrorReply(Struct, frozen=True, kw_only=True):
    """Every error of the API."""

    detail: str
