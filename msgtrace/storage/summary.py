"""How a trace delta becomes, or joins, a row of `traces`.

The same rules in SQL for every backend.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgtrace.model.batch import TraceDelta, TraceKey
from msgtrace.model.genai import ALIASES_VERSION
from msgtrace.model.span import Row
from msgtrace.model.terms import MAX_TERMS, Term, operation_terms

TRACE_COLUMNS = (
    "tenant_id",
    "trace_id",
    "start_time_ns",
    "end_time_ns",
    "span_count",
    "error_count",
    "input_tokens",
    "output_tokens",
    "cost",
    "cached_tokens",
    "reasoning_tokens",
    "estimated_cost",
    "usage_count",
    "has_usage",
    "aliases_version",
    "root_has_parent",
    "root_start_time_ns",
    "root_span_id",
    "root_span_name",
    "root_service_name",
    "workflow_start_ns",
    "workflow_name",
    "session_start_ns",
    "session_id",
    "user_start_ns",
    "user_id",
    "terms",
    "services",
    "models",
    "providers",
    "operations",
    "agents",
    "tools",
)

LIST_COLUMNS = TRACE_COLUMNS[TRACE_COLUMNS.index("terms") :]
TEXT_LIST_COLUMNS = TRACE_COLUMNS[TRACE_COLUMNS.index("services") :]
"""Columns that hold a sorted list, and those of them whose lists are of texts."""

_SUMS = (
    "span_count",
    "error_count",
    "input_tokens",
    "output_tokens",
    "cost",
    "cached_tokens",
    "reasoning_tokens",
    "estimated_cost",
    "usage_count",
)


def trace_row(
    key: TraceKey,
    delta: TraceDelta,
    to_column: Callable[[list[str]], Any],
    to_terms: Callable[[list[Term]], Any] | None = None,
) -> Row:
    """A row in TRACE_COLUMNS order.

    to_column: writes a sorted list as the backend's columns hold it. to_terms: the same for terms;
    as texts without it. They are None, as in the rows of a time without terms, if there are too
    many, or none because nobody told of them. Most traces are not of generative AI: their lists
    that only it has are NULL, which takes no space.
    """
    terms = {term for operation in delta.span_names for term in operation_terms(*operation)}
    if not 0 < len(terms) <= MAX_TERMS:
        terms_column = None
    elif to_terms is None:
        terms_column = to_column(sorted(map(str, terms)))
    else:
        terms_column = to_terms(sorted(terms))
    return (
        *key,
        delta.start_time_ns,
        delta.end_time_ns,
        delta.span_count,
        delta.error_count,
        delta.input_tokens,
        delta.output_tokens,
        delta.cost,
        delta.cached_tokens,
        delta.reasoning_tokens,
        delta.estimated_cost,
        delta.usage_count,
        delta.usage_count > 0,
        ALIASES_VERSION,
        *delta.root,
        delta.root_name,
        delta.root_service_name,
        *(delta.workflow or (None, None)),
        *(delta.session or (None, None)),
        *(delta.user or (None, None)),
        terms_column,
        to_column(sorted(delta.services)),
        to_column(sorted(delta.models)),
        *(
            to_column(sorted(names)) if names else None
            for names in (delta.providers, delta.operations, delta.agents, delta.tools)
        ),
    )


def on_known_trace(
    *,
    least: str,
    greatest: str,
    unite: Callable[[str], str],
    unite_terms: str,
    collation: str = "",
) -> str:
    """The ON CONFLICT clause that merges as `TraceDelta.merged_with` does.

    least, greatest: the backend's functions. unite: the union of both rows' column as an
    expression. unite_terms: as an expression, the union of both rows' terms with {max} for the most
    that it may hold, else NULL.
    collation: makes text compare by code point, as Python does.
    """
    root = (
        "(excluded.root_has_parent, excluded.root_start_time_ns, excluded.root_span_id)"
        " < (traces.root_has_parent, traces.root_start_time_ns, traces.root_span_id)"
    )
    assignments = [
        f"start_time_ns = {least}(traces.start_time_ns, excluded.start_time_ns)",
        f"end_time_ns = {greatest}(traces.end_time_ns, excluded.end_time_ns)",
        *(_add(column) for column in _SUMS),
        "has_usage = traces.has_usage OR excluded.has_usage",
        f"aliases_version = {least}(traces.aliases_version, excluded.aliases_version)",
        *(_take(column, root) for column in TRACE_COLUMNS if column.startswith("root_")),
        *(_take_earliest("workflow_start_ns", "workflow_name", collation)),
        *(_take_earliest("session_start_ns", "session_id", collation)),
        *(_take_earliest("user_start_ns", "user_id", collation)),
        _unite_terms(unite_terms.format(max=MAX_TERMS)),
        *(_unite_changed(column, unite(column)) for column in TEXT_LIST_COLUMNS),
    ]
    return f"ON CONFLICT (tenant_id, trace_id) DO UPDATE SET {', '.join(assignments)}"


def _add(column: str) -> str:
    return f"{column} = traces.{column} + excluded.{column}"


def _take(column: str, condition: str) -> str:
    return f"{column} = CASE WHEN {condition} THEN excluded.{column} ELSE traces.{column} END"


def _take_earliest(start: str, value: str, collation: str) -> list[str]:
    condition = (
        f"traces.{start} IS NULL OR (excluded.{start}, excluded.{value} {collation})"
        f" < (traces.{start}, traces.{value} {collation})"
    )
    return [_take(start, condition), _take(value, condition)]


def _unite_terms(union: str) -> str:
    """Once there were too many, or none were known, it stays so."""
    return (
        "terms = CASE WHEN traces.terms = excluded.terms THEN traces.terms"
        f" WHEN traces.terms IS NOT NULL AND excluded.terms IS NOT NULL THEN {union} END"
    )


def _unite_changed(column: str, union: str) -> str:
    return (
        f"{column} = CASE WHEN excluded.{column} IS NULL OR traces.{column} = excluded.{column}"
        f" THEN traces.{column} WHEN traces.{column} IS NULL THEN excluded.{column}"
        f" ELSE {union} END"
    )
