"""Turn the parameters of a request into what storage is asked.

Path: HTTP request → [api.params] → storage.
Whatever is unknown, repeated or out of bounds is refused by InvalidParameter, which names it as the
client spelled it: a misspelt filter must never look like a result.
Text is bounded and otherwise passed on as it is. Not here: which endpoint takes what (api.traces).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

from starlette.requests import Request

from msgtrace.api.cursors import parse_cursor
from msgtrace.errors import InvalidParameter
from msgtrace.model.search import DEFAULT_LIMIT, MAX_LIMIT, Cursor, TraceFilter, TraceSearch
from msgtrace.model.session import SessionSearch
from msgtrace.model.span import (
    DEFAULT_TENANT,
    SPAN_ID_BYTES,
    TRACE_ID_BYTES,
    SpanId,
    TenantId,
    TraceId,
)
from msgtrace.model.units import KIB, MAX_INT64, NS_PER_MS, parse_time_ns
from msgtrace.otlp.encodings import JSON, PROTOBUF

MAX_TEXT_BYTES = KIB
MAX_ATTRIBUTES = 16

FILTER_PARAMETERS = frozenset(
    {
        "service_name",
        "workflow_name",
        "name",
        "session_id",
        "user_id",
        "model",
        "tool",
        "min_tokens",
        "min_cost",
        "has_errors",
        "min_duration_ms",
        "max_duration_ms",
        "start",
        "end",
        "attr",
        "q",
    }
)
PAGE_PARAMETERS = frozenset({"limit", "cursor", "offset"})
EXPORT_PARAMETERS = frozenset({"limit", "cursor", "format"})
REPEATABLE = frozenset({"attr"})
ENCODINGS = (JSON, PROTOBUF)
WRAPPERS = "wrappers"
MAX_COST = 10**15

_HEX = re.compile(r"[0-9a-fA-F]*")
_DECIMAL = re.compile(r"[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?")
_MAX_DURATION_MS = Decimal(MAX_INT64) / NS_PER_MS
_TIME_WANTED = (
    "must be RFC 3339 with an offset, such as 2026-03-01T12:00:00Z (a + is %2B in a URL), "
    "or Unix nanoseconds, from 1970 to 2262"
)
_SHOWN_NAME_LENGTH = 64


def tenant_id(request: Request) -> TenantId:
    """Whose traces the request may see: the one place that decides it."""
    return DEFAULT_TENANT


def trace_id(request: Request) -> TraceId:
    """The id in the path: 32 hex digits in any case."""
    text = str(request.path_params["trace_id"])
    if len(text) != 2 * TRACE_ID_BYTES or not _HEX.fullmatch(text):
        raise InvalidParameter("trace_id", f"must be {2 * TRACE_ID_BYTES} hex digits")
    return TraceId(bytes.fromhex(text))


def service_name(request: Request) -> str:
    """The service in the path; it may be empty, as in a span that names none."""
    name = str(request.path_params["service"])
    _refuse_long("service", name)
    return name


def span_id(request: Request) -> SpanId:
    """The id of a span in the path: 16 hex digits in any case."""
    text = str(request.path_params["span_id"])
    if len(text) != 2 * SPAN_ID_BYTES or not _HEX.fullmatch(text):
        raise InvalidParameter("span_id", f"must be {2 * SPAN_ID_BYTES} hex digits")
    return SpanId(bytes.fromhex(text))


def session_id(request: Request) -> str:
    """The session in the path."""
    text = str(request.path_params["session_id"])
    _refuse_long("session_id", text)
    return text


def folds_wrappers(request: Request) -> bool:
    """Whether a tree is wanted without its wrapper spans."""
    fold = _single_values(request, frozenset({"fold"})).get("fold")
    if fold not in (None, WRAPPERS):
        raise InvalidParameter("fold", f"must be {WRAPPERS}")
    return fold is not None


def session_search(request: Request) -> SessionSearch:
    """Filter and page of the list of sessions."""
    values = _single_values(request, frozenset({"user_id", "start", "end", "limit", "cursor"}))
    return SessionSearch(
        user_id=_text(values, "user_id"),
        start_ns=_time_ns(values, "start"),
        end_ns=_time_ns(values, "end"),
        limit=_integer(values, "limit", DEFAULT_LIMIT, at_least=1, at_most=MAX_LIMIT),
        after=_cursor(values),
    )


def session_page(request: Request) -> TraceSearch:
    """A page of the traces of the session in the path."""
    values = _single_values(request, frozenset({"limit", "cursor"}))
    return TraceSearch(
        filter=TraceFilter(session_id=session_id(request)),
        limit=_integer(values, "limit", DEFAULT_LIMIT, at_least=1, at_most=MAX_LIMIT),
        after=_cursor(values),
    )


def refuse_all(request: Request) -> None:
    """For an endpoint without parameters."""
    _single_values(request, frozenset())


def trace_search(request: Request) -> TraceSearch:
    """Filter and page of the trace list."""
    values = _single_values(request, FILTER_PARAMETERS | PAGE_PARAMETERS)
    if "cursor" in values and "offset" in values:
        raise InvalidParameter("offset", "must not be given together with cursor")
    return TraceSearch(
        filter=_filter(request, values),
        limit=_integer(values, "limit", DEFAULT_LIMIT, at_least=1, at_most=MAX_LIMIT),
        after=_cursor(values),
        offset=_integer(values, "offset", 0, at_least=0, at_most=MAX_INT64),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportQuestion:
    """What is exported, and in which encoding.

    limit: how many traces one reply has at most, None for all of them.
    """

    filter: TraceFilter
    after: Cursor | None
    limit: int | None
    encoding: str


def export_question(request: Request) -> ExportQuestion:
    """Filter, place and encoding of an export."""
    values = _single_values(request, FILTER_PARAMETERS | EXPORT_PARAMETERS)
    has_limit = "limit" in values
    return ExportQuestion(
        filter=_filter(request, values),
        after=_cursor(values),
        limit=_integer(values, "limit", 0, at_least=1, at_most=MAX_LIMIT) if has_limit else None,
        encoding=_choice(values, "format", ENCODINGS),
    )


def trace_filter(request: Request) -> TraceFilter:
    """The filter alone, for sums over the matching traces."""
    return _filter(request, _single_values(request, FILTER_PARAMETERS))


def deletion_filter(request: Request) -> TraceFilter:
    """The filter of a deletion.

    No filter has to be said by `all=true`, so that a forgotten one deletes nothing.
    """
    values = _single_values(request, FILTER_PARAMETERS | {"all"})
    is_all = _boolean(values, "all") or False
    is_filtered = not FILTER_PARAMETERS.isdisjoint(request.query_params)
    if is_all and is_filtered:
        raise InvalidParameter("all", "must not be true together with a filter")
    if not is_all and not is_filtered:
        raise InvalidParameter("all", "must be true to delete every trace when no filter is given")
    return _filter(request, values)


def _single_values(request: Request, known: frozenset[str]) -> dict[str, str]:
    """Every parameter by name, without the repeatable ones."""
    values: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name not in known:
            raise InvalidParameter(name[:_SHOWN_NAME_LENGTH], "unknown parameter")
        if name in values:
            raise InvalidParameter(name, "must be given only once")
        _refuse_long(name, value)
        if name not in REPEATABLE:
            values[name] = value
    return values


def _refuse_long(name: str, value: str) -> None:
    if len(value.encode()) > MAX_TEXT_BYTES:
        raise InvalidParameter(name, f"must be at most {MAX_TEXT_BYTES} bytes long")


def _filter(request: Request, values: Mapping[str, str]) -> TraceFilter:
    return TraceFilter(
        service_name=_text(values, "service_name"),
        workflow_name=_text(values, "workflow_name"),
        name=_text(values, "name"),
        session_id=_text(values, "session_id"),
        user_id=_text(values, "user_id"),
        model=_text(values, "model"),
        tool=_text(values, "tool"),
        min_tokens=_tokens(values),
        min_cost=_cost(values),
        has_errors=_boolean(values, "has_errors"),
        min_duration_ns=_duration_ns(values, "min_duration_ms", ROUND_CEILING),
        max_duration_ns=_duration_ns(values, "max_duration_ms", ROUND_FLOOR),
        start_ns=_time_ns(values, "start"),
        end_ns=_time_ns(values, "end"),
        attributes=_attributes(request.query_params.getlist("attr")),
        text=_text(values, "q"),
    )


def _text(values: Mapping[str, str], name: str) -> str | None:
    text = values.get(name)
    if text == "":
        raise InvalidParameter(name, "must not be empty")
    return text


def _cursor(values: Mapping[str, str]) -> Cursor | None:
    text = values.get("cursor")
    if text is None:
        return None
    try:
        return parse_cursor(text)
    except ValueError as error:
        raise InvalidParameter("cursor", "must be the next_cursor of a page") from error


def _boolean(values: Mapping[str, str], name: str) -> bool | None:
    text = values.get(name)
    if text not in (None, "true", "false"):
        raise InvalidParameter(name, "must be true or false")
    return None if text is None else text == "true"


def _choice(values: Mapping[str, str], name: str, choices: Sequence[str]) -> str:
    """One of the choices, the first by default."""
    text = values.get(name, choices[0])
    if text not in choices:
        raise InvalidParameter(name, f"must be {' or '.join(choices)}")
    return text


def _integer(
    values: Mapping[str, str], name: str, default: int, *, at_least: int, at_most: int
) -> int:
    text = values.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and at_least <= int(text) <= at_most):
        raise InvalidParameter(name, f"must be a whole number from {at_least} to {at_most}")
    return int(text)


def _duration_ns(values: Mapping[str, str], name: str, rounding: str) -> int | None:
    """Milliseconds as nanoseconds, rounded to the inside of the bound."""
    text = values.get(name)
    if text is None:
        return None
    if not _DECIMAL.fullmatch(text) or (duration_ms := Decimal(text)) > _MAX_DURATION_MS:
        raise InvalidParameter(
            name, f"must be a number of milliseconds from 0 to {_MAX_DURATION_MS}"
        )
    return int((duration_ms * NS_PER_MS).to_integral_value(rounding))


def _tokens(values: Mapping[str, str]) -> int | None:
    if "min_tokens" not in values:
        return None
    return _integer(values, "min_tokens", 0, at_least=0, at_most=MAX_INT64)


def _cost(values: Mapping[str, str]) -> float | None:
    text = values.get("min_cost")
    if text is None:
        return None
    if not _DECIMAL.fullmatch(text) or Decimal(text) > MAX_COST:
        raise InvalidParameter("min_cost", f"must be a number from 0 to {MAX_COST}")
    return float(text)


def _time_ns(values: Mapping[str, str], name: str) -> int | None:
    text = values.get(name)
    if text is None:
        return None
    try:
        return parse_time_ns(text)
    except ValueError as error:
        raise InvalidParameter(name, _TIME_WANTED) from error


def _attributes(pairs: list[str]) -> tuple[tuple[str, str], ...]:
    if len(pairs) > MAX_ATTRIBUTES:
        raise InvalidParameter("attr", f"must not be given more than {MAX_ATTRIBUTES} times")
    return tuple(_attribute(pair) for pair in pairs)


def _attribute(pair: str) -> tuple[str, str]:
    key, separator, value = pair.partition("=")
    if not (key and separator):
        raise InvalidParameter("attr", "must be key=value")
    return key, value
