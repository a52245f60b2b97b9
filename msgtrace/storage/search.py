"""A TraceFilter as SQL conditions over `traces t` and `spans s`.

The meaning is decided here, the SQL by each backend. Values are always parameters: a condition is
constant text with a `?` for each value.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import msgspec

from msgtrace.model.search import EXACT_TOTAL_CAP, TraceFilter, TraceSearch
from msgtrace.model.terms import Term, name_term, operation_term
from msgtrace.model.text import escape_json, escape_text, stored_label
from msgtrace.model.trace import SpanPlace
from msgtrace.storage.attribute_filters import as_number

COUNTED_BY_ROW = 10_000
"""Traces whose rows are looked at to count those that match."""

COUNTED_BY_SPANS = 200
"""Traces whose spans are looked at to count those that match."""

_SPELLED_ALIKE = re.compile(r"[ !#-\[\]-~]+")
_MAY_BE_NO_TEXT = re.compile(r"-?[0-9].*|-?Infinity|NaN|true|false")

Condition = tuple[str, tuple[Any, ...]]
"""SQL text, and the values of its `?` in order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """The conditions of one backend, named after the filter's fields.

    Each takes one value, or those in its comment.
    indexed: fields of the filter whose matches the backend finds by an index. unordered: those of
    them whose index knows nothing of the list's order.
    stats: sums over the traces of {where}; see `SqlReader.get_stats`.
    """

    indexed: frozenset[str]
    unordered: frozenset[str]
    stats: str
    service_name: Callable[[str], Condition]
    model: Callable[[str], Condition]
    tool: Callable[[str], Condition]
    term: Callable[[Term], Condition]
    attribute: Callable[[str, str, str, float | None], Condition]
    """(table alias, key, value, value as a number): an attribute of a span or a resource."""
    stretches: Callable[[int, Sequence[tuple[int, int]]], Condition]
    """(tenant, stretches of first and last start): the traces in them, as `t`."""
    spans_at: Callable[[int, bytes, Sequence[SpanPlace]], Condition]
    """(tenant, trace, places): the spans there, as `s`; with their conditions."""
    lets_in: str  # the place and the bits of a probe, see storage.attribute_filters
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
    stretch: Callable[[int, int, int], Condition] = lambda *_: ("traces t", ())
    """(tenant, first, last start): `traces t` for a search that only the index of times helps."""
    after: str = "(t.start_time_ns, t.trace_id) < (?, ?)"


# With an OFFSET it is asked of one trace after the other. Without, PostgreSQL may turn it round and
# read the spans of all traces to answer for a hundred.
_ANY_SPAN = (
    "EXISTS (SELECT 1 FROM spans s WHERE s.tenant_id = t.tenant_id AND s.trace_id = t.trace_id"
    " AND s.start_time_ns BETWEEN t.start_time_ns AND t.end_time_ns AND {} LIMIT 1 OFFSET 0)"
)


_OF_RESOURCE = (
    "EXISTS (SELECT 1 FROM resources r WHERE r.tenant_id = s.tenant_id"
    " AND r.resource_id = s.resource_id AND {} LIMIT 1 OFFSET 0)"
)


def filter_conditions(dialect: Dialect, trace_filter: TraceFilter) -> list[Condition]:
    """Conditions that all must hold for a row `t` of traces."""
    return [*_trace_conditions(dialect, trace_filter), *_span_conditions(dialect, trace_filter)]


def alternatives(dialect: Dialect, wanted: TraceFilter) -> list[list[Condition]]:
    """Conditions of which one list holds wherever the filter's do, and only one.

    An index answers each as a whole; it would have to look at every row for their disjunction.
    """
    if wanted.name is None or wanted.attributes:
        return [filter_conditions(dialect, wanted)]
    others = filter_conditions(dialect, replace(wanted, name=None, service_name=None))
    unknown, values = _any_span(_name_conditions(dialect, wanted))
    return [
        [_known_name(dialect, wanted), *others],
        [(f"t.terms IS NULL AND {unknown}", values), *others],
    ]


def page_conditions(dialect: Dialect, search: TraceSearch) -> list[Condition]:
    """The filter's conditions, and those of the place in the list where the page begins."""
    return [*filter_conditions(dialect, search.filter), after_condition(dialect, search)]


def after_condition(dialect: Dialect, search: TraceSearch) -> Condition:
    """That of the place where the page begins."""
    if search.after is None:
        return "true", ()
    return dialect.after, (search.after.start_time_ns, search.after.trace_id)


@dataclass(frozen=True, slots=True)
class Count:
    """How to count what a filter matches, in a time that does not grow with the database.

    Of the traces for which `led` holds, which an index leads to, at most `candidates` are looked
    at; `checked` is what must also hold for them. Nothing checked: every candidate counts.
    is_unordered: the candidates are all read anyway, before the first of the list is known.
    """

    led: list[Condition]
    checked: list[Condition]
    candidates: int
    is_unordered: bool = False


def plan_count(dialect: Dialect, wanted: TraceFilter) -> Count:
    """What an index answers, and what the rows or their spans must be read for."""
    asked = {each.name for each in fields(wanted) if getattr(wanted, each.name) not in (None, ())}
    unled = asked - dialect.indexed
    if not unled:
        is_unordered = not asked.isdisjoint(dialect.unordered)
        return Count(filter_conditions(dialect, wanted), [], EXACT_TOTAL_CAP + 1, is_unordered)
    led: dict[str, Any] = {name: getattr(wanted, name) for name in asked - unled}
    return Count(
        filter_conditions(dialect, TraceFilter(**led)),
        filter_conditions(dialect, wanted),
        COUNTED_BY_SPANS if unled & {"attributes", "text"} else COUNTED_BY_ROW,
    )


def join_conditions(conditions: Iterable[Condition]) -> tuple[str, list[Any]]:
    """One WHERE text beginning with the tenant, its first `?`, and the values of all others."""
    text, values = all_of([("t.tenant_id = ?", ()), *conditions])
    return text, list(values)


def all_of(conditions: Iterable[Condition]) -> Condition:
    """One condition that holds where all of at least one hold."""
    given = list(conditions)
    return " AND ".join(text for text, _ in given), tuple(
        value for _, values in given for value in values
    )


def _trace_conditions(dialect: Dialect, wanted: TraceFilter) -> list[Condition]:
    given: list[Condition] = [
        condition(stored_label(label))
        for condition, label in (
            # A name comes with its service, see _span_conditions.
            (dialect.service_name, wanted.service_name if wanted.name is None else None),
            (dialect.model, wanted.model),
            (dialect.tool, wanted.tool),
        )
        if label is not None
    ]
    given += [
        (getattr(dialect, field), (stored_label(label),))
        for field in ("workflow_name", "session_id", "user_id")
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
    of_name = _name_conditions(dialect, wanted)
    if wanted.attributes:
        same_span = [_attribute(dialect, key, value) for key, value in wanted.attributes]
        if of_name:
            given.append(_unless_known(dialect, wanted, ("true", ())))
            same_span += of_name
        elif wanted.service_name is not None:
            same_span.append((dialect.span_service_name, (stored_label(wanted.service_name),)))
        given.append(_any_span(same_span))
    elif of_name:
        given.append(_unless_known(dialect, wanted, _any_span(of_name)))
    if wanted.text is not None:
        given.append(_any_span([(dialect.text, _patterns(wanted.text))]))
    return given


def _name_conditions(dialect: Dialect, wanted: TraceFilter) -> list[Condition]:
    """What must hold for one span because of its name."""
    if wanted.name is None:
        return []
    conditions = [(dialect.name, (escape_text(wanted.name),))]
    if wanted.service_name is not None:
        conditions.append((dialect.span_service_name, (stored_label(wanted.service_name),)))
    return conditions


def _unless_known(dialect: Dialect, wanted: TraceFilter, otherwise: Condition) -> Condition:
    """The wanted name is among the trace's terms or, if those are not known, `otherwise` holds."""
    known, known_values = _known_name(dialect, wanted)
    text, values = otherwise
    return f"({known} OR (t.terms IS NULL AND {text}))", (*known_values, *values)


def _known_name(dialect: Dialect, wanted: TraceFilter) -> Condition:
    name = escape_text(wanted.name or "")
    if wanted.service_name is None:
        return dialect.term(name_term(name))
    return dialect.term(operation_term(stored_label(wanted.service_name), name))


def _any_span(conditions: Iterable[Condition]) -> Condition:
    text, values = all_of(conditions)
    return _ANY_SPAN.format(text), values


def needle(key: str, value: str) -> str:
    """What is certainly in the JSON text of attributes that match; it may be empty.

    To look for it is much cheaper than to take the text apart. Texts that an encoder might spell in
    more than one way are not looked for.
    """
    if not _SPELLED_ALIKE.fullmatch(key):
        return ""
    if not _SPELLED_ALIKE.fullmatch(value) or _MAY_BE_NO_TEXT.fullmatch(value):
        return f'"{key}":'
    return f'"{key}":"{value}"'


def is_spelled_alike(text: str) -> bool:
    """Whether every encoder writes this JSON string in the same way."""
    return _SPELLED_ALIKE.fullmatch(text) is not None


def _attribute(dialect: Dialect, key: str, value: str) -> Condition:
    wanted = escape_text(key), escape_text(value), as_number(value)
    on_span, span_values = dialect.attribute("s", *wanted)
    on_resource, resource_values = dialect.attribute("r", *wanted)
    return f"({on_span} OR {_OF_RESOURCE.format(on_resource)})", span_values + resource_values


def _patterns(text: str) -> tuple[str, str, str]:
    in_json = escape_json(msgspec.json.encode(text).decode())[1:-1]
    name = _like(escape_text(text))
    return name, name, _like(in_json)


def _like(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{escaped}%"
