"""What a reader may ask of the trace list, and one page of the answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from msgtrace.model.span import TraceId
from msgtrace.model.trace import TraceSummary

DEFAULT_LIMIT = 100
MAX_LIMIT = 1000
EXACT_TOTAL_CAP = 10_000


@dataclass(frozen=True, slots=True)
class Cursor:
    """The place after the trace with this start and id, in the list's order."""

    start_time_ns: int
    trace_id: TraceId


class TracePlace(NamedTuple):
    """Where a trace stands in the list, and where its spans are: between its start and its end."""

    start_time_ns: int
    trace_id: TraceId
    end_time_ns: int
    span_count: int

    @property
    def cursor(self) -> Cursor:
        """The place after it."""
        return Cursor(self.start_time_ns, self.trace_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceFilter:
    """Which traces match; None asks nothing, and all that is asked must hold.

    service_name: any span of the trace is of this service. name: any span has exactly this name.
    attributes: (key, value) pairs that a span, or the resource of it, carries; a value matches the
    text form of a string, number or boolean. service_name, name and attributes must hold for one
    and the same span.
    model, tool: any model call or tool call of the trace names it. min_tokens: input and output
    together. min_cost: sent or estimated.
    start_ns, end_ns: the trace starts in [start_ns, end_ns).
    text: case-insensitive part of a span's name, status message or attribute text.
    """

    service_name: str | None = None
    workflow_name: str | None = None
    name: str | None = None
    session_id: str | None = None
    user_id: str | None = None
    model: str | None = None
    tool: str | None = None
    min_tokens: int | None = None
    min_cost: float | None = None
    has_errors: bool | None = None
    min_duration_ns: int | None = None
    max_duration_ns: int | None = None
    start_ns: int | None = None
    end_ns: int | None = None
    attributes: tuple[tuple[str, str], ...] = ()
    text: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceSearch:
    """A filter and which page of its matches.

    `after` and `offset` are alternatives; `after` is stable, `offset` is not.
    """

    filter: TraceFilter = field(default_factory=TraceFilter)
    limit: int = DEFAULT_LIMIT
    after: Cursor | None = None
    offset: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TracePage:
    """Matches, newest first.

    `total` counts all matches of the filter, up to EXACT_TOTAL_CAP; beyond it is a lower bound.
    """

    traces: list[TraceSummary]
    total: int
    is_total_exact: bool
    next_cursor: Cursor | None
