"""A TraceFilter as SQL conditions over `traces t` and `spans s`.

The meaning is decided here, the SQL by each backend. Values are always parameters: a condition is
constant text with a `?` for each value.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

from msgtrace.model.search import TraceFilter, TraceSearch
from msgtrace.model.text import escape_json, escape_text, stored_label

_NUMBER = re.compile(r"-?\d+(\.\d+)?([eE][+-]?\d+)?", re.ASCII)

Condition = tuple[str, tuple[Any, ...]]
"""SQL text, and the values of its `?` in order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """The conditions of one backend, named after the filter's fields.

    Each takes one value, or those in its comment.
    """

    service_name: str
    model: str
    tool: str
    attribute: Callable[[str, str, str, float | None], Condition]
    """(table alias, key, value, value as a number): an attribute of a span or a resource."""
    text: str  # pattern for the name, for the status message, for JSON text
    name: str = "s.name = ?"
    span_service_name: str = "s.service_name = ?"
    workflow_name: str = "t.workflow_name = ?"
    session_id: str = "t.session_id = ?"
    user_id: str = "t.user_id = ?"
    # `has_usage` names the index of traces that use models.
    min_tokens: str = "t.has_usage AND t.input_tokens + t.output_tokens >= ?"
    min_cost: str = "t.has_usage AND t.cost >= ?"
    min_duration_ns: str = "t.duration_ns >= ?"
    max_duration_ns: str = "t.duration_ns <= ?"
    start_ns: str = "t.start_time_ns >= ?"
    end_ns: str = "t.start_time_ns < ?"
    after: str = "(t.start_time_ns, t.trace_id) < (?, ?)"


_ANY_SPAN = (
    "EXISTS (SELECT 1 FROM spans s WHERE s.tenant_id = t.tenant_id AND s.trace_id = t.trace_id"
    " AND s.start_time_ns BETWEEN t.start_time_ns AND t.end_time_ns AND {})"
)


_OF_RESOURCE = (
    "EXISTS (SELECT 1 FROM resources r WHERE r.tenant_id = s.tenant_id"
    " AND r.resource_id = s.resource_id AND {})"
)


def filter_conditions(dialect: Dialect, trace_filter: TraceFilter) -> list[Condition]:
    """Conditions that all must hold for a row `t` of traces."""
    return [*_trace_conditions(dialect, trace_filter), *_span_conditions(dialect, trace_filter)]


def page_conditions(dialect: Dialect, search: TraceSearch) -> list[Condition]:
    """The filter's conditions, and those of the place in the list where the page begins."""
    conditions = filter_conditions(dialect, search.filter)
    if search.after is not None:
        conditions.append((dialect.after, (search.after.start_time_ns, search.after.trace_id)))
    return conditions


def join_conditions(conditions: Iterable[Condition]) -> tuple[str, list[Any]]:
    """One WHERE text beginning with the tenant, its first `?`, and the values of all others."""
    texts = ["t.tenant_id = ?"]
    values: list[Any] = []
    for text, parameters in conditions:
        texts.append(text)
        values.extend(parameters)
    return " AND ".join(texts), values


def _trace_conditions(dialect: Dialect, wanted: TraceFilter) -> list[Condition]:
    given: list[Condition] = [
        (getattr(dialect, field), (stored_label(label),))
        for field in (
            "service_name",
            "workflow_name",
            "session_id",
            "user_id",
            "model",
            "tool",
        )
        if (label := getattr(wanted, field)) is not None
    ]
    given += [
        (getattr(dialect, field), (bound,))
        for field in (
            "min_duration_ns",
            "max_duration_ns",
            "start_ns",
            "end_ns",
        )
        if (bound := getattr(wanted, field)) is not None
    ]
    given += [
        (getattr(dialect, field), (bound,))
        for field in ("min_tokens", "min_cost")
        if (bound := getattr(wanted, field))  # every trace has at least 0
    ]
    if wanted.has_errors is not None:
        given.append(("t.error_count > 0" if wanted.has_errors else "t.error_count = 0", ()))
    return given


def _span_conditions(dialect: Dialect, wanted: TraceFilter) -> list[Condition]:
    given: list[Condition] = []
    same_span: list[Condition] = []
    if wanted.name is not None:
        same_span.append((dialect.name, (escape_text(wanted.name),)))
    same_span += [_attribute(dialect, key, value) for key, value in wanted.attributes]
    if same_span and wanted.service_name is not None:
        same_span.append((dialect.span_service_name, (stored_label(wanted.service_name),)))
    if same_span:
        given.append(_any_span(same_span))
    if wanted.text is not None:
        given.append(_any_span([(dialect.text, _patterns(wanted.text))]))
    return given


def _any_span(conditions: list[Condition]) -> Condition:
    text = _ANY_SPAN.format(" AND ".join(text for text, _ in conditions))
    return text, tuple(value for _, values in conditions for value in values)


def _attribute(dialect: Dialect, key: str, value: str) -> Condition:
    wanted = escape_text(key), escape_text(value), _as_number(value)
    on_span, span_values = dialect.attribute("s", *wanted)
    on_resource, resource_values = dialect.attribute("r", *wanted)
    return f"({on_span} OR {_OF_RESOURCE.format(on_resource)})", span_values + resource_values


def _as_number(value: str) -> float | None:
    return float(value) if _NUMBER.fullmatch(value) else None


def _patterns(text: str) -> tuple[str, str, str]:
    in_json = escape_json(msgspec.json.encode(text).decode())[1:-1]
    name = _like(escape_text(text))
    return name, name, _like(in_json)


def _like(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{escaped}%"
