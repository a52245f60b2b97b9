"""What every parameter and every field of the API means, with its unit.

Path: [api.descriptions] → api.openapi. A parameter or field without an entry fails a test.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from msgtrace.api import params
from msgtrace.model.search import DEFAULT_LIMIT, EXACT_TOTAL_CAP, MAX_LIMIT
from msgtrace.model.span import SPAN_ID_BYTES, TRACE_ID_BYTES
from msgtrace.model.units import MAX_INT64

# At most MAX_TEXT_BYTES in UTF-8, where a character takes up to four.
_TEXT: Final[Mapping[str, Any]] = {
    "type": "string",
    "minLength": 1,
    "maxLength": params.MAX_TEXT_BYTES // 4,
}
_MILLISECONDS: Final[Mapping[str, Any]] = {
    "type": "number",
    "minimum": 0,
    "maximum": 9_223_372_036_854,
}
_TIME: Final[Mapping[str, Any]] = {
    "type": "string",
    "examples": ["2026-03-01T12:00:00Z", "1772366400000000000"],
}


def _whole(least: int, greatest: int, **more: int) -> Mapping[str, Any]:
    return {"type": "integer", "minimum": least, "maximum": greatest, **more}


PARAMETERS: Final[Mapping[str, tuple[Mapping[str, Any], str]]] = {
    "trace_id": (
        {"type": "string", "pattern": f"^[0-9a-fA-F]{{{2 * TRACE_ID_BYTES}}}$"},
        "The trace's id in hex, in either case.",
    ),
    "span_id": (
        {"type": "string", "pattern": f"^[0-9a-fA-F]{{{2 * SPAN_ID_BYTES}}}$"},
        "The span's id in hex, in either case.",
    ),
    "service": (
        {"type": "string", "minLength": 1, "maxLength": params.MAX_TEXT_BYTES // 4},
        "The service's name, percent-encoded; slashes may stay.",
    ),
    "service_name": (_TEXT, "A span of the trace is of this service."),
    "name": (_TEXT, "A span has exactly this name."),
    "attr": (
        {
            "type": "array",
            "maxItems": params.MAX_ATTRIBUTES,
            "items": {
                "type": "string",
                "pattern": "^[^=]+=",
                "maxLength": params.MAX_TEXT_BYTES // 4,
            },
        },
        "key=value, repeatable: a span or its resource carries the attribute. The value is compared"
        " with the text of a string, number or boolean.",
    ),
    "workflow_name": (_TEXT, "The trace is a run of this workflow."),
    "session_id": (_TEXT, "The trace belongs to this session."),
    "user_id": (_TEXT, "The trace belongs to this user."),
    "model": (_TEXT, "A span of the trace called this model."),
    "tool": (_TEXT, "A span of the trace called this tool."),
    "min_tokens": (
        _whole(0, MAX_INT64),
        "The trace used at least so many tokens, input and output together.",
    ),
    "min_cost": (
        {"type": "number", "minimum": 0, "maximum": params.MAX_COST},
        "The trace cost at least so much, sent or estimated, in the unit of cost.",
    ),
    "has_errors": ({"type": "boolean"}, "The trace has spans with errors, or has none."),
    "min_duration_ms": (_MILLISECONDS, "The trace took at least so long, in milliseconds."),
    "max_duration_ms": (_MILLISECONDS, "The trace took at most so long, in milliseconds."),
    "start": (
        _TIME,
        "The trace starts at this time or later: RFC 3339 with an offset, or Unix nanoseconds.",
    ),
    "end": (
        _TIME,
        "The trace starts before this time: RFC 3339 with an offset, or Unix nanoseconds.",
    ),
    "q": (_TEXT, "Part of a span's name, status message or attributes, in any case."),
    "limit": (
        _whole(1, MAX_LIMIT),
        f"How many traces or sessions the reply has at most; {DEFAULT_LIMIT} if not given, but for"
        " an export, which then has all.",
    ),
    "cursor": (
        {"type": "string", "pattern": "^[A-Za-f][A-Za-z0-9_-]{31}$"},
        "Where the page before ended: its next_cursor.",
    ),
    "offset": (
        _whole(0, MAX_INT64, default=0),
        "How many traces to skip, for old clients: it shifts when traces arrive. Not together with"
        " cursor.",
    ),
    "fold": (
        {"type": "string", "enum": [params.WRAPPERS]},
        "Takes out spans that only wrap others; their children stand in their places.",
    ),
    "all": ({"type": "boolean"}, "Must be true to delete everything, and only then."),
    "format": (
        {"type": "string", "enum": list(params.ENCODINGS), "default": params.ENCODINGS[0]},
        "The encoding of OTLP.",
    ),
}
"""Name → (JSON Schema, meaning)."""

_RFC3339 = "RFC 3339 in UTC with nanoseconds"
_UNIX_NANO = "nanoseconds since 1970 as decimal text, as it exceeds what JavaScript counts exactly"

FIELDS: Final[Mapping[str, str]] = {
    "trace_id": f"{2 * TRACE_ID_BYTES} lowercase hex digits.",
    "span_id": f"{2 * SPAN_ID_BYTES} lowercase hex digits.",
    "parent_span_id": "The id of the span's parent; null for a root span.",
    "start_time": f"When it started: {_RFC3339}.",
    "end_time": f"When it ended: {_RFC3339}.",
    "start_time_unix_nano": f"When it started: {_UNIX_NANO}.",
    "end_time_unix_nano": f"When it ended: {_UNIX_NANO}.",
    "time_unix_nano": f"When it happened: {_UNIX_NANO}.",
    "duration_ms": "How long it took, in milliseconds.",
    "span_count": "How many spans are stored.",
    "error_count": "How many spans have status ERROR.",
    "service_name": "The service: of the span, or of the trace's root span.",
    "services": "The names of all services, sorted.",
    "root_span_id": "The root span; null until a span without a parent is stored.",
    "root_span_name": "The name of the root span; until there is one, of the earliest span.",
    "workflow_name": "The workflow that the trace is a run of, derived from attributes; or null.",
    "session_id": "The session, derived from attributes; or null.",
    "user_id": "The user, derived from attributes; or null.",
    "models": "The models that were called, sorted.",
    "providers": "The providers of the models, sorted.",
    "SummaryView.operations": "What its spans do, sorted: inference, embeddings, retrieval,"
    " execute_tool, invoke_agent, invoke_workflow, step, wrapper or other.",
    "agents": "The agents that ran, sorted.",
    "tools": "The tools that were called, sorted.",
    "model_calls": "How many calls of models count.",
    "input_tokens": "Tokens that were sent to models, with the cached ones.",
    "output_tokens": "Tokens that models gave, with those of reasoning.",
    "cached_tokens": "Those of the input tokens that the provider had in its cache.",
    "reasoning_tokens": "Those of the output tokens that were spent on reasoning.",
    "cost": "What the model calls cost, stated or estimated, in the currency of the prices: US"
    " dollars if nothing else is set.",
    "estimated_cost": "The part of the cost that no span stated, in the same currency.",
    "model": "The model that was called; null without one.",
    "provider": "The provider of the model; null if no span names it.",
    "SpanUsageView.cost": "What the call cost, in the unit of the trace's cost; null if unknown.",
    "is_estimated": "Whether no span stated the cost, and it is reckoned from tokens and prices.",
    "counts_tokens": "Whether the tokens count, and not those of a span beneath it.",
    "counts_cost": "Whether the cost counts, and not that of another span.",
    "name": "The name as it was sent.",
    "version": "The version as it was sent.",
    "kind": "UNSPECIFIED, INTERNAL, SERVER, CLIENT, PRODUCER or CONSUMER; a number without a name.",
    "span_kind": "As the kind of a span.",
    "status": "How the span ended.",
    "StatusView.status_code": "UNSET, OK or ERROR; a number without a name.",
    "StatusView.description": "The message that was sent with the status.",
    "trace_state": "The W3C tracestate of the span.",
    "flags": "OTLP's flags: the W3C trace flags, and whether the parent is remote.",
    "attributes": "A map; docs/api.md tells how values look that JSON has no form for.",
    "dropped_attributes_count": "How many attributes the sender dropped.",
    "events": "What happened during the span.",
    "dropped_events_count": "How many events the sender dropped.",
    "links": "The spans that it names.",
    "dropped_links_count": "How many links the sender dropped.",
    "resource": "What produced the span.",
    "scope": "The library that made the span.",
    "entity_refs": "What identifies the entities of the resource.",
    "schema_url": "The schema of the attributes.",
    "EntityRefView.type": "The type of the entity.",
    "EntityRefView.id_keys": "The attributes that identify it.",
    "EntityRefView.description_keys": "The attributes that describe it.",
    "spans": "All spans, ordered by start, then span id.",
    "NodeView.span": "The span.",
    "NodeView.relation": "root, child, orphan (its parent is not stored), cycle (a ring of parents"
    " was cut open here) or deep (it stands nearer to the root than it was sent).",
    "NodeView.children": "The spans below it, ordered by start.",
    "operation": "What the span does, one of a summary's operations; null if nothing tells.",
    "NodeView.usage": "The tokens and the cost that the span itself states; null for nothing.",
    "NodeView.subtree": "What counts of the span and of all beneath it.",
    "NodeView.folded_count": "How many wrapper spans were taken out directly above it.",
    "TreeView.summary": "The trace's line in the list.",
    "TreeView.roots": "The spans on top, ordered by start.",
    "traces": "The traces of this page.",
    "sessions": "The sessions of this page.",
    "SessionView.session_id": "The session's id as it was sent.",
    "SessionDetailView.session_id": "The session's id as it was sent.",
    "newest_trace_id": "The trace of the session that started last.",
    "newest_start_time": f"When that trace started: {_RFC3339}.",
    "newest_start_time_unix_nano": f"When that trace started: {_UNIX_NANO}.",
    "trace_count": "How many traces the session has.",
    "input": "The messages that were sent to the model or the tool.",
    "output": "The messages that it gave.",
    "tool_calls": "All tool calls of these messages.",
    "tool_definitions": "The tools that the model was offered, as sent; null without any.",
    "role": "As sent: system, user, assistant, tool and others.",
    "parts": "Each with a type: text and reasoning with content, tool_call with id, name and"
    " arguments, tool_call_response with id and result, or what the sender names, as sent.",
    "finish_reason": "Why the model stopped, as sent; null if nothing tells.",
    "ToolCallView.id": "The id that the model gave the call; null without one.",
    "ToolCallView.name": "The tool's name; null without one.",
    "ToolCallView.span_id": f"The tool's span in the trace, {2 * SPAN_ID_BYTES} lowercase hex"
    " digits; null if there is none.",
    "arguments": "What the tool was given.",
    "result": "What the tool returned; null if nothing tells.",
    "is_answered": "Whether the result is known.",
    "PageView.total": f"How many traces match, counted up to {EXACT_TOTAL_CAP}.",
    "PageView.total_is_exact": "Whether total is all that match, and not only a lower bound.",
    "limit": "How many a page has at most.",
    "offset": "How many were skipped.",
    "next_cursor": "What cursor is to be for the next page; null after the last.",
    "PercentilesView.p50": "Half of the traces took at most so many milliseconds.",
    "PercentilesView.p95": "95 % of the traces took at most so many milliseconds.",
    "PercentilesView.p99": "99 % of the traces took at most so many milliseconds.",
    "StatsView.total_traces": "How many traces match.",
    "traces_with_errors": "How many of the traces have a span with status ERROR.",
    "StatsView.error_rate": "The share of them, 0 to 1.",
    "StatsView.total_spans": "How many spans they have.",
    "StatsView.total_errors": "How many of these have status ERROR.",
    "StatsView.duration_ms": "How long the traces took.",
    "by_model": "By the model that was called, the greatest cost first.",
    "by_service": "By the service that called the model, the greatest cost first.",
    "by_day": "By the day in UTC on which the model was called, in order.",
    "UsageView.name": "The model, service or day; null for a cost that was stated for no model.",
    "operations": "Sorted by name, then kind.",
    "deleted": "How many traces were deleted.",
    "detail": "What is wrong, in one sentence; for a parameter it begins with its name.",
    "HealthReply.status": "healthy.",
    "HealthReply.service": "msgtrace.",
    "HealthReply.version": "The version of msgtrace.",
    "ReadyReply.status": "ready or not ready.",
    "ReadyReply.reasons": "Why it is not ready.",
}
"""Field, or struct and field → meaning with its unit."""
