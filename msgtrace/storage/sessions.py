"""Sessions in SQL that every backend understands: traces grouped by their session.

A page is found by walking the traces of sessions newest first, and taking those that have no newer
one of the same session; then only the sessions of the page are summed up.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

from msgtrace.model.search import Cursor
from msgtrace.model.session import SessionPage, SessionSearch, SessionSummary
from msgtrace.model.span import Row, TenantId, TraceId
from msgtrace.model.text import stored_label, unescape_text
from msgtrace.storage.search import Condition, join_conditions

_PAGE = """
WITH page AS (
    SELECT t.tenant_id, t.session_id, t.start_time_ns, t.trace_id
    FROM traces t
    WHERE {where} AND t.session_id IS NOT NULL AND NOT EXISTS (
        SELECT 1 FROM traces newer
        WHERE newer.tenant_id = t.tenant_id AND newer.session_id = t.session_id
            AND (newer.start_time_ns, newer.trace_id) > (t.start_time_ns, t.trace_id)
    )
    ORDER BY t.start_time_ns DESC, t.trace_id DESC LIMIT ?
)
"""

_OF_PAGE = (
    "FROM page JOIN traces s ON s.tenant_id = page.tenant_id AND s.session_id = page.session_id"
)

_OF_USER = (
    "EXISTS (SELECT 1 FROM traces own WHERE own.tenant_id = t.tenant_id"
    " AND own.session_id = t.session_id AND own.user_id = ?)"
)

_SUMS = f"""
{_PAGE}
SELECT page.session_id, page.start_time_ns, page.trace_id, min(s.user_id),
    min(s.workflow_name), min(s.start_time_ns), max(s.end_time_ns), count(*),
    count(*) FILTER (WHERE s.error_count > 0), sum(s.span_count), sum(s.error_count),
    sum(s.input_tokens), sum(s.output_tokens), sum(s.cached_tokens), sum(s.reasoning_tokens),
    sum(s.cost), sum(s.estimated_cost)
{_OF_PAGE}
GROUP BY page.session_id, page.start_time_ns, page.trace_id
ORDER BY page.start_time_ns DESC, page.trace_id DESC
"""

_MODELS = f"{_PAGE} SELECT DISTINCT page.session_id, s.models {_OF_PAGE} AND s.has_usage"


class SqlSessions:
    """Reads sessions over the `_read` and `_read_list` of a SqlReader."""

    _read: Any
    _read_list: Callable[[Any], list[str]]

    async def find_sessions(self, tenant_id: TenantId, search: SessionSearch) -> SessionPage:
        """See TraceReader."""
        # One more than asked tells whether there is a next page.
        found = await self._sum_sessions(tenant_id, _conditions(search), search.limit + 1)
        sessions = found[: search.limit]
        has_next = len(found) > search.limit
        return SessionPage(sessions=sessions, next_cursor=sessions[-1].place if has_next else None)

    async def get_session(self, tenant_id: TenantId, session_id: str) -> SessionSummary | None:
        """See TraceReader."""
        of_session: Condition = ("t.session_id = ?", (stored_label(session_id),))
        found = await self._sum_sessions(tenant_id, [of_session], 1)
        return found[0] if found else None

    async def _sum_sessions(
        self, tenant_id: TenantId, conditions: list[Condition], limit: int
    ) -> list[SessionSummary]:
        where, values = join_conditions(conditions)
        parameters = [tenant_id, *values, limit]
        sums, used = await self._read(
            [(_SUMS.format(where=where), parameters), (_MODELS.format(where=where), parameters)]
        )
        models: dict[str, set[str]] = defaultdict(set)
        for session_id, column in used:
            models[session_id].update(map(unescape_text, self._read_list(column)))
        return [_session(row, sorted(models[row[0]])) for row in sums]


def _conditions(search: SessionSearch) -> list[Condition]:
    given: list[Condition] = []
    if search.user_id is not None:
        given.append((_OF_USER, (stored_label(search.user_id),)))
    if search.start_ns is not None:
        given.append(("t.start_time_ns >= ?", (search.start_ns,)))
    if search.end_ns is not None:
        given.append(("t.start_time_ns < ?", (search.end_ns,)))
    if search.after is not None:
        given.append(("(t.start_time_ns, t.trace_id) < (?, ?)", _place(search.after)))
    return given


def _place(cursor: Cursor) -> tuple[int, TraceId]:
    return cursor.start_time_ns, cursor.trace_id


def _session(row: Row, models: list[str]) -> SessionSummary:
    session_id, newest_start_ns, newest_trace_id, user_id, workflow_name, start_ns, end_ns = row[:7]
    traces, with_errors, spans, errors, given, made, cached, reasoning = map(int, row[7:15])
    return SessionSummary(
        session_id=unescape_text(session_id),
        newest_start_time_ns=newest_start_ns,
        newest_trace_id=newest_trace_id,
        start_time_ns=start_ns,
        end_time_ns=end_ns,
        trace_count=traces,
        traces_with_errors=with_errors,
        span_count=spans,
        error_count=errors,
        user_id=None if user_id is None else unescape_text(user_id),
        workflow_name=None if workflow_name is None else unescape_text(workflow_name),
        models=models,
        input_tokens=given,
        output_tokens=made,
        cached_tokens=cached,
        reasoning_tokens=reasoning,
        cost=float(row[15]),
        estimated_cost=float(row[16]),
    )
