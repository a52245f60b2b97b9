"""A session: the traces of one conversation."""

from __future__ import annotations

from dataclasses import dataclass

from msgtrace.model.search import DEFAULT_LIMIT, Cursor
from msgtrace.model.span import TraceId


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSummary:
    """Sums over the traces of a session; tokens and cost as in TraceSummary.

    The session lasts from the start of its first trace to the latest end. user_id and workflow_name
    are the first by name that a trace of it states. models are sorted.
    """

    session_id: str
    newest_start_time_ns: int
    newest_trace_id: TraceId
    start_time_ns: int
    end_time_ns: int
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

    @property
    def place(self) -> Cursor:
        """Where the list goes on after it."""
        return Cursor(self.newest_start_time_ns, self.newest_trace_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSearch:
    """Which sessions, and which page of them; None asks nothing.

    user_id: a trace of the session is of this user. start_ns, end_ns: its newest trace starts in
    [start_ns, end_ns).
    """

    user_id: str | None = None
    start_ns: int | None = None
    end_ns: int | None = None
    limit: int = DEFAULT_LIMIT
    after: Cursor | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionPage:
    """Sessions, the one with the newest trace first."""

    sessions: list[SessionSummary]
    next_cursor: Cursor | None
