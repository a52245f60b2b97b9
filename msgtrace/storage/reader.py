"""Read traces with SQL that every backend understands.

A backend adds how to run it, and its dialect. SQL here has `?` for each value. `ReadSql` runs
statements in one snapshot and returns their rows as tuples.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from msgtrace.model.search import (
    EXACT_TOTAL_CAP,
    MAX_LIMIT,
    Cursor,
    TraceFilter,
    TracePage,
    TracePlace,
    TraceSearch,
)
from msgtrace.model.span import Row, Span, TenantId, TraceId
from msgtrace.model.text import stored_label, unescape_text
from msgtrace.model.trace import (
    Operation,
    SpanPlace,
    Trace,
    TraceOutline,
    TraceStats,
    TraceSummary,
)
from msgtrace.model.units import MAX_INT64
from msgtrace.storage.filtered_walk import FilteredWalk, Stretch, within_stretch
from msgtrace.storage.outlined import spans_at
from msgtrace.storage.search import (
    Condition,
    Count,
    Dialect,
    after_condition,
    all_of,
    alternatives,
    filter_conditions,
    join_conditions,
    page_conditions,
    plan_count,
)
from msgtrace.storage.sessions import SqlSessions
from msgtrace.storage.span_rows import (
    RESOURCE_READ_COLUMNS,
    SCOPE_READ_COLUMNS,
    SPAN_READ_COLUMNS,
    resource_from_row,
    scope_from_row,
    span_from_row,
)
from msgtrace.storage.span_stream import SpanStream, find_places
from msgtrace.storage.usage_sums import USAGES, group_usage, span_usage, usage_sums_sql

Statement = tuple[str, Sequence[Any]]
ReadSql = Callable[[Sequence[Statement]], Awaitable[list[list[Row]]]]

_SUMMARY = """
SELECT t.trace_id, t.start_time_ns, t.end_time_ns, t.span_count, t.error_count,
    t.root_has_parent, t.root_span_id, t.root_span_name, t.root_service_name, t.services,
    t.workflow_name, t.session_id, t.user_id, t.models, t.input_tokens, t.output_tokens, t.cost,
    t.cached_tokens, t.reasoning_tokens, t.estimated_cost,
    t.providers, t.operations, t.agents, t.tools
"""

_ONE_SUMMARY = f"{_SUMMARY} FROM traces t WHERE t.tenant_id = ? AND t.trace_id = ?"

_NEWEST_FIRST = "ORDER BY t.start_time_ns DESC, t.trace_id DESC"

# The summary's times let PostgreSQL look into the partitions of the trace's days only.
_OF_TRACE = """
s.tenant_id = ? AND s.trace_id = ?
    AND s.start_time_ns >= (SELECT start_time_ns FROM traces WHERE tenant_id = ? AND trace_id = ?)
    AND s.start_time_ns <= (SELECT end_time_ns FROM traces WHERE tenant_id = ? AND trace_id = ?)
"""

_IS_SMALL = "(SELECT span_count FROM traces WHERE tenant_id = ? AND trace_id = ?) <= ?"

_SPANS = f"""
SELECT {SPAN_READ_COLUMNS}
FROM spans s WHERE {_OF_TRACE} AND {_IS_SMALL} ORDER BY s.start_time_ns, s.span_id
"""  # noqa: S608 - built from constants

_RESOURCES = f"""
SELECT {RESOURCE_READ_COLUMNS} FROM resources
WHERE tenant_id = ? AND resource_id IN (
    SELECT s.resource_id FROM spans s WHERE {_OF_TRACE} AND {_IS_SMALL}
)
"""  # noqa: S608 - built from constants

_SCOPES = f"""
SELECT {SCOPE_READ_COLUMNS} FROM scopes
WHERE tenant_id = ? AND scope_id IN (
    SELECT s.scope_id FROM spans s WHERE {_OF_TRACE} AND {_IS_SMALL}
)
"""  # noqa: S608 - built from constants

_PLACES = f"""
SELECT s.span_id, s.parent_span_id, s.start_time_ns
FROM spans s WHERE {_OF_TRACE} ORDER BY s.start_time_ns, s.span_id
"""  # noqa: S608 - built from constants

_FEW = f"""
WITH few AS MATERIALIZED (SELECT * FROM ({{few}}) AS candidates LIMIT ?),
counted AS (SELECT count(*) AS total FROM few)
SELECT counted.total, page.* FROM counted
LEFT JOIN (
    {_SUMMARY} FROM (
        SELECT t.trace_id FROM few t WHERE {{after}} AND (SELECT total FROM counted) < ?
        {_NEWEST_FIRST} LIMIT ? OFFSET ?
    ) AS place
    JOIN traces t ON t.tenant_id = ? AND t.trace_id = place.trace_id
) AS page ON true
ORDER BY page.start_time_ns DESC, page.trace_id DESC
"""  # noqa: S608 - built from constants

_CANDIDATES = "(SELECT t.start_time_ns, t.trace_id FROM traces t WHERE {} LIMIT ?)"

# Jumps from one service to the next along the index instead of reading every operation.
_SERVICES = """
WITH RECURSIVE service (name) AS (
    SELECT min(service_name) FROM operations WHERE tenant_id = ?
    UNION ALL
    SELECT (
        SELECT min(o.service_name) FROM operations o
        WHERE o.tenant_id = ? AND o.service_name > service.name
    )
    FROM service WHERE service.name IS NOT NULL
)
SELECT name FROM service WHERE name IS NOT NULL
"""

_OPERATIONS = "SELECT name, kind FROM operations WHERE tenant_id = ? AND service_name = ?"


class SqlReader(SqlSessions):
    """A TraceReader over `read` and `dialect`.

    `read_list` turns a services or models column into a list.
    """

    def __init__(
        self, read: ReadSql, dialect: Dialect, read_list: Callable[[Any], list[str]]
    ) -> None:
        self._read = read
        self._dialect = dialect
        self._read_list = read_list

    async def find_traces(self, tenant_id: TenantId, search: TraceSearch) -> TracePage:
        """See TraceReader."""
        plan = plan_count(self._dialect, search.filter)
        page, counted, looked_at = await self._find_page(tenant_id, search, plan)
        traces = [self._summary(row) for row in page[: search.limit]]
        has_next = len(page) > search.limit
        total, is_exact = _total(search, page, counted, looked_at < plan.candidates)
        return TracePage(
            traces=traces,
            total=total,
            is_total_exact=is_exact,
            next_cursor=Cursor(traces[-1].start_time_ns, traces[-1].trace_id) if has_next else None,
        )

    async def _find_page(
        self, tenant_id: TenantId, search: TraceSearch, plan: Count
    ) -> tuple[list[Row], int, int]:
        """The rows of a page and one more if there is one, and what `plan` counts."""
        count = _count_statement(tenant_id, plan)
        if _is_worth_a_walk(search):
            page = await self._walk(tenant_id, search)
            if search.after is None and len(page) <= search.limit:
                return page, 0, 0  # there are no others to count
            [[(counted, looked_at)]] = await self._read([count])
            return page, counted, looked_at
        statement = self._page_statement(tenant_id, search, search.limit + 1, search.offset)
        if not plan.is_unordered:
            page, [(counted, looked_at)] = await self._read([statement, count])
            return page, counted, looked_at
        [rows] = await self._read([self._few_statement(tenant_id, search, plan.candidates)])
        counted = rows[0][0]
        if counted == plan.candidates:  # so many that the newest are soon found
            [page] = await self._read([statement])
        else:
            page = [row[1:] for row in rows if row[1] is not None]
        return page, counted, counted

    def _page_statement(
        self,
        tenant_id: TenantId,
        search: TraceSearch,
        limit: int,
        offset: int = 0,
        traces: Condition = ("traces t", ()),
    ) -> Statement:
        """traces: what is read, with its values."""
        table, table_values = traces
        where, values = join_conditions(page_conditions(self._dialect, search))
        sql = f"{_SUMMARY} FROM {table} WHERE {where} {_NEWEST_FIRST} LIMIT ? OFFSET ?"
        return sql, [*table_values, tenant_id, *values, limit, offset]

    def _few_statement(self, tenant_id: TenantId, search: TraceSearch, most: int) -> Statement:
        """How many matches there are, up to `most`; the page, if there are fewer. In one pass."""
        parts, values = [], []
        for conditions in alternatives(self._dialect, search.filter):
            where, of_where = join_conditions(conditions)
            parts.append(_CANDIDATES.format(where))
            values += [tenant_id, *of_where, most]
        after, of_after = after_condition(self._dialect, search)
        sql = _FEW.format(few=" UNION ALL ".join(parts), after=after)
        place = (*of_after, most, search.limit + 1, search.offset)
        return sql, [*values, most, *place, tenant_id]

    async def _walk(self, tenant_id: TenantId, search: TraceSearch) -> list[Row]:
        """The rows of a page, and one more if there is one."""

        def statement(stretches: Sequence[Stretch], count: int) -> Statement:
            if len(stretches) > 1:
                traces = self._dialect.stretches(tenant_id, stretches)
                return self._page_statement(tenant_id, search, count, traces=traces)
            [stretch] = stretches
            traces = self._dialect.stretch(tenant_id, *stretch)
            within = within_stretch(search, stretch)
            return self._page_statement(tenant_id, within, count, traces=traces)

        walk = FilteredWalk(self._read, self._dialect.lets_in, tenant_id, search)
        rows = await walk.take(search.offset + search.limit + 1, statement)
        return rows[search.offset :]

    async def get_trace(self, tenant_id: TenantId, trace_id: TraceId) -> Trace | None:
        """See TraceReader."""
        return await self._get_trace(tenant_id, trace_id, MAX_INT64)

    async def get_trace_or_outline(
        self, tenant_id: TenantId, trace_id: TraceId, *, max_spans: int
    ) -> Trace | TraceOutline | None:
        """See TraceReader."""
        trace = await self._get_trace(tenant_id, trace_id, max_spans)
        if trace is None or trace.summary.span_count <= max_spans:
            return trace
        key = (tenant_id, trace_id)
        summaries, places, usages = await self._read(
            [(_ONE_SUMMARY, key), (_PLACES, key * 3), (USAGES, key)]
        )
        if not summaries:
            return None
        return TraceOutline(
            summary=self._summary(summaries[0]),
            places=[SpanPlace(*row) for row in places],
            usages=dict(map(span_usage, usages)),
        )

    def read_outlined(
        self, tenant_id: TenantId, trace_id: TraceId, places: Iterable[SpanPlace]
    ) -> AsyncIterator[list[Span]]:
        """See TraceReader."""
        return spans_at(self._read, self._dialect, tenant_id, trace_id, places)

    async def _get_trace(
        self, tenant_id: TenantId, trace_id: TraceId, max_spans: int
    ) -> Trace | None:
        """The trace; without its spans if they are more than `max_spans`."""
        key = (tenant_id, trace_id)
        of_trace = (*key * 4, max_spans)
        summaries, spans, resources, scopes, usages = await self._read(
            [
                (_ONE_SUMMARY, key),
                (_SPANS, of_trace),
                (_RESOURCES, (tenant_id, *of_trace)),
                (_SCOPES, (tenant_id, *of_trace)),
                (USAGES, key),
            ]
        )
        if not summaries:
            return None
        resource_of = {row[0]: resource_from_row(row) for row in resources}
        scope_of = {row[0]: scope_from_row(row) for row in scopes}
        return Trace(
            summary=self._summary(summaries[0]),
            spans=[span_from_row(row, resource_of[row[0]], scope_of[row[1]]) for row in spans],
            usages=dict(map(span_usage, usages)),
        )

    async def get_stats(self, tenant_id: TenantId, trace_filter: TraceFilter) -> TraceStats:
        """See TraceReader."""
        where, values = join_conditions(filter_conditions(self._dialect, trace_filter))
        sql = self._dialect.stats.format(where=where), usage_sums_sql(where)
        [[row], usage] = await self._read([(each, [tenant_id, *values]) for each in sql])
        total, with_errors, spans, errors, input_tokens, output_tokens, cost = row[:7]
        cached_tokens, reasoning_tokens, estimated_cost, p50, p95, p99 = row[7:]
        by_model, by_service, by_day = group_usage(usage)
        return TraceStats(
            total_traces=total,
            traces_with_errors=with_errors,
            total_spans=int(spans or 0),
            total_errors=int(errors or 0),
            input_tokens=int(input_tokens or 0),
            output_tokens=int(output_tokens or 0),
            cached_tokens=int(cached_tokens or 0),
            reasoning_tokens=int(reasoning_tokens or 0),
            cost=float(cost or 0),
            estimated_cost=float(estimated_cost or 0),
            by_model=by_model,
            by_service=by_service,
            by_day=by_day,
            duration_p50_ns=p50,
            duration_p95_ns=p95,
            duration_p99_ns=p99,
        )

    async def list_services(self, tenant_id: TenantId) -> list[str]:
        """See TraceReader."""
        [rows] = await self._read([(_SERVICES, (tenant_id, tenant_id))])
        return sorted(unescape_text(name) for (name,) in rows)

    async def list_operations(self, tenant_id: TenantId, service_name: str) -> list[Operation]:
        """See TraceReader."""
        [rows] = await self._read([(_OPERATIONS, (tenant_id, stored_label(service_name)))])
        names = sorted((unescape_text(name), kind) for name, kind in rows)
        return [Operation(name=name, span_kind=kind) for name, kind in names]

    async def find_places(self, tenant_id: TenantId, search: TraceSearch) -> list[TracePlace]:
        """See TraceReader."""
        return await find_places(self._read, self._dialect, tenant_id, search)

    def read_spans(
        self, tenant_id: TenantId, places: Sequence[TracePlace]
    ) -> AsyncIterator[list[Span]]:
        """See TraceReader."""
        return SpanStream(self._read, tenant_id).spans_of(places)

    async def find_ids(
        self, tenant_id: TenantId, search: TraceSearch
    ) -> tuple[list[TraceId], Cursor | None]:
        """The ids of one page and the place after it, without counting the matches."""
        where, values = join_conditions(page_conditions(self._dialect, search))
        sql = (
            f"SELECT t.trace_id, t.start_time_ns FROM traces t WHERE {where}"  # noqa: S608 - constant conditions
            f" {_NEWEST_FIRST} LIMIT ?"
        )
        [rows] = await self._read([(sql, [tenant_id, *values, search.limit])])
        return [TraceId(row[0]) for row in rows], Cursor(rows[-1][1], rows[-1][0]) if rows else None

    def _summary(self, row: Row) -> TraceSummary:
        return TraceSummary(
            trace_id=row[0],
            start_time_ns=row[1],
            end_time_ns=row[2],
            span_count=row[3],
            error_count=row[4],
            root_span_id=None if row[5] else row[6],
            root_span_name=unescape_text(row[7]),
            service_name=unescape_text(row[8]),
            services=self._texts(row[9]),
            workflow_name=_optional_text(row[10]),
            session_id=_optional_text(row[11]),
            user_id=_optional_text(row[12]),
            models=self._texts(row[13]),
            input_tokens=row[14],
            output_tokens=row[15],
            cost=row[16],
            cached_tokens=row[17],
            reasoning_tokens=row[18],
            estimated_cost=row[19],
            providers=self._texts(row[20]),
            operations=self._texts(row[21]),
            agents=self._texts(row[22]),
            tools=self._texts(row[23]),
        )

    def _texts(self, column: Any) -> list[str]:
        return [] if column is None else sorted(map(unescape_text, self._read_list(column)))


def _is_worth_a_walk(search: TraceSearch) -> bool:
    """No index leads to attributes. A person or a session has few traces."""
    wanted = search.filter
    return bool(wanted.attributes) and not (wanted.session_id or wanted.user_id)


def _count_statement(tenant_id: TenantId, plan: Count) -> Statement:
    """One row: how many of the candidates match, and how many candidates there are."""
    where, values = join_conditions(plan.led)
    if not plan.checked:
        sql = f"SELECT count(*), count(*) FROM (SELECT 1 FROM traces t WHERE {where} LIMIT ?) AS c"  # noqa: S608 - constant conditions
        return sql, [tenant_id, *values, plan.candidates]
    checked, checked_values = all_of(plan.checked)
    # Within the FILTER: as a column's value SQLite would work out both sides of each AND and OR,
    # and look for spans where a trace's terms have answered already.
    sql = (
        f"SELECT count(*) FILTER (WHERE {checked}), count(*)"  # noqa: S608 - constant conditions
        f" FROM (SELECT * FROM traces t WHERE {where} LIMIT ?) AS t"
    )
    return sql, [*checked_values, tenant_id, *values, plan.candidates]


def _total(
    search: TraceSearch, page: Sequence[Row], counted: int, has_seen_all: bool
) -> tuple[int, bool]:
    """How many traces match, and whether that is all of them."""
    is_at_the_end = len(page) <= search.limit and (page or not search.offset)
    if search.after is None and is_at_the_end:
        counted, has_seen_all = search.offset + len(page), True
    total = max(counted, search.offset * bool(page) + len(page))
    return min(total, EXACT_TOTAL_CAP), has_seen_all and total <= EXACT_TOTAL_CAP


async def delete_matching(
    reader: SqlReader,
    delete: Callable[[TenantId, Sequence[TraceId]], Awaitable[int]],
    tenant_id: TenantId,
    trace_filter: TraceFilter,
) -> int:
    """Delete page by page, newest first: it ends, however many traces arrive meanwhile."""
    deleted = 0
    search = TraceSearch(filter=trace_filter, limit=MAX_LIMIT)
    while True:
        trace_ids, place = await reader.find_ids(tenant_id, search)
        if not trace_ids:
            return deleted
        deleted += await delete(tenant_id, trace_ids)
        search = replace(search, after=place)


def _optional_text(stored: str | None) -> str | None:
    return None if stored is None else unescape_text(stored)
