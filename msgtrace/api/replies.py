"""The shapes of the JSON replies that docs/api.md promises: the same fields in the same order.

`Raw` is a stored JSON text that goes through unparsed. api.views fills the shapes.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw


class SummaryView(msgspec.Struct, kw_only=True):
    """A line of the trace list."""

    trace_id: str
    start_time: str
    end_time: str
    start_time_unix_nano: str
    end_time_unix_nano: str
    duration_ms: float
    span_count: int
    error_count: int
    service_name: str
    services: list[str]
    root_span_id: str | None
    root_span_name: str
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


class StatusView(msgspec.Struct):
    """OTLP's Status; `description` is its message."""

    status_code: str | int
    description: str


class ResourceView(msgspec.Struct, kw_only=True):
    """What produced the span."""

    attributes: Raw
    dropped_attributes_count: int
    entity_refs: Raw
    schema_url: str


class ScopeView(msgspec.Struct, kw_only=True):
    """The library that made the span."""

    name: str
    version: str
    attributes: Raw
    dropped_attributes_count: int
    schema_url: str


class SpanView(msgspec.Struct, kw_only=True):
    """A span with everything that was sent."""

    trace_id: str
    span_id: str
    parent_span_id: str | None
    name: str
    kind: str | int
    start_time: str
    end_time: str
    start_time_unix_nano: str
    end_time_unix_nano: str
    duration_ms: float
    status: StatusView
    trace_state: str
    flags: int
    service_name: str
    attributes: Raw
    dropped_attributes_count: int
    events: Raw
    dropped_events_count: int
    links: Raw
    dropped_links_count: int
    resource: ResourceView
    scope: ScopeView


class TraceView(SummaryView, kw_only=True):
    """A summary and all spans."""

    spans: list[SpanView]


class UsageSumsView(msgspec.Struct, kw_only=True):
    """What counts of a span and all beneath it."""

    model_calls: int
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    reasoning_tokens: int
    cost: float
    estimated_cost: float


class SpanUsageView(msgspec.Struct, kw_only=True):
    """What one span states about tokens and cost."""

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


class NodeView(msgspec.Struct, kw_only=True):
    """A span in the tree."""

    span: SpanView
    relation: str
    operation: str | None
    usage: SpanUsageView | None
    subtree: UsageSumsView
    folded_count: int
    children: list[NodeView]


class TreeView(msgspec.Struct):
    """The forest of a trace."""

    trace_id: str
    span_count: int
    summary: SummaryView
    roots: list[NodeView]


class PageView(msgspec.Struct, kw_only=True):
    """A page of the trace list."""

    traces: list[SummaryView]
    total: int
    total_is_exact: bool
    limit: int
    offset: int
    next_cursor: str | None


class PercentilesView(msgspec.Struct):
    """Nearest-rank percentiles, null without traces."""

    p50: float | None
    p95: float | None
    p99: float | None


class UsageView(msgspec.Struct, kw_only=True):
    """Tokens and cost of a group of model calls. `name` is null for a cost of no model."""

    name: str | None
    model_calls: int
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    reasoning_tokens: int
    cost: float
    estimated_cost: float


class StatsView(msgspec.Struct, kw_only=True):
    """Sums over the matching traces."""

    total_traces: int
    traces_with_errors: int
    error_rate: float
    total_spans: int
    total_errors: int
    duration_ms: PercentilesView
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    reasoning_tokens: int
    cost: float
    estimated_cost: float
    by_model: list[UsageView]
    by_service: list[UsageView]
    by_day: list[UsageView]


class SessionView(msgspec.Struct, kw_only=True):
    """A session of the list."""

    session_id: str
    start_time: str
    end_time: str
    start_time_unix_nano: str
    end_time_unix_nano: str
    newest_trace_id: str
    newest_start_time: str
    newest_start_time_unix_nano: str
    trace_count: int
    traces_with_errors: int
    span_count: int
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


class SessionPageView(msgspec.Struct, kw_only=True):
    """A page of the list of sessions."""

    sessions: list[SessionView]
    limit: int
    next_cursor: str | None


class SessionDetailView(SessionView, kw_only=True):
    """A session and a page of its traces."""

    traces: list[SummaryView]
    limit: int
    next_cursor: str | None


class MessageView(msgspec.Struct, kw_only=True):
    """One message of a conversation."""

    role: str
    parts: list[dict[str, Any]]
    finish_reason: str | None


class ToolCallView(msgspec.Struct, kw_only=True):
    """A tool call with its result."""

    id: str | None
    name: str | None
    arguments: Any
    result: Any
    is_answered: bool
    span_id: str | None


class ConversationView(msgspec.Struct, kw_only=True):
    """What was said in a model call or a tool call."""

    trace_id: str
    span_id: str
    operation: str | None
    model: str | None
    input: list[MessageView]
    output: list[MessageView]
    tool_calls: list[ToolCallView]
    tool_definitions: Any


class OperationView(msgspec.Struct):
    """A span name of a service."""

    name: str
    span_kind: str | int
