"""What spans state about tokens and cost, as rows of `model_usage`; and which of them count.

A flush adds what its spans state to their traces as it is, and then, holding the rows of those
traces, takes back what nested spans state twice (`model.usage`). Whoever comes last sees all, so
the sums are right whatever the order, the split into requests and the number of collectors.
A trace with more than `MAX_SETTLED` statements keeps the plain sums: each flush of it reads all of
them. `msgtrace-admin rebuild-summaries` settles such a trace.
A backend adds how to run the SQL, which has `?` for each value.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from msgtrace.model.batch import TraceKey
from msgtrace.model.genai import GenAiFacts
from msgtrace.model.span import Row, SpanId, TraceId
from msgtrace.model.usage import Usage, UsageTotals, count_once, sum_counted

USAGE_COLUMNS = (
    "tenant_id",
    "trace_id",
    "span_id",
    "start_time_ns",
    "parent_span_id",
    "is_model_call",
    "input_tokens",
    "output_tokens",
    "cached_tokens",
    "reasoning_tokens",
    "cost",
    "estimate",
    "counts_tokens",
    "counts_cost",
    "service_name",
    "model",
    "provider",
)

MAX_SETTLED = 1_000
"""Statements of one trace beyond which a flush does not look for nested ones."""

KEPT_USAGE = f"""
SELECT {", ".join(USAGE_COLUMNS)} FROM model_usage
WHERE tenant_id = ? AND trace_id {{members}} AND start_time_ns >= ?
"""  # noqa: S608 - built from constants
"""Of traces that lose their older spans, what is left."""

_COUNTS_TOKENS = USAGE_COLUMNS.index("counts_tokens")

_STATED = f"""
SELECT {", ".join(USAGE_COLUMNS)} FROM model_usage WHERE tenant_id = ? AND trace_id {{members}}
"""  # noqa: S608 - built from constants

# Each span above a statement once, with its parent; UNION ends at a ring of parents.
_LINKS = """
WITH RECURSIVE link (trace_id, span_id, parent_span_id, first_ns, last_ns) AS (
    SELECT u.trace_id, u.span_id, u.parent_span_id, t.start_time_ns, t.end_time_ns
    FROM model_usage u JOIN traces t ON t.tenant_id = u.tenant_id AND t.trace_id = u.trace_id
    WHERE u.tenant_id = ? AND u.trace_id {members} AND u.parent_span_id IS NOT NULL
    UNION
    SELECT link.trace_id, above.span_id, above.parent_span_id, link.first_ns, link.last_ns
    FROM link {join}
)
SELECT trace_id, span_id, parent_span_id FROM link
"""

_OF_PARENT = (
    "{0}.tenant_id = ? AND {0}.trace_id = link.trace_id AND {0}.span_id = link.parent_span_id"
    " AND {0}.start_time_ns BETWEEN link.first_ns AND link.last_ns"
    " AND {0}.parent_span_id IS NOT NULL"
)

SAY_WHAT_COUNTS = """
UPDATE model_usage SET counts_tokens = ?, counts_cost = ?
WHERE tenant_id = ? AND trace_id = ? AND span_id = ? AND start_time_ns = ?
"""

SET_TOTALS = """
UPDATE traces SET input_tokens = ?, output_tokens = ?, cached_tokens = ?, reasoning_tokens = ?,
    cost = ?, estimated_cost = ?
WHERE tenant_id = ? AND trace_id = ?
"""


@dataclass(frozen=True, slots=True)
class SettlingSql:
    """The two questions about some traces of one tenant.

    stated: rows in USAGE_COLUMNS order; takes the tenant and the traces. links: (trace id, span id,
    parent span id); takes the tenant, the traces and the tenant again.
    """

    stated: str
    links: str


def settling_sql(*, members: str, is_lateral: bool) -> SettlingSql:
    """members: `IN (…)` or the like, for the trace ids.

    is_lateral: keeps PostgreSQL from reading whole partitions for the sake of a few parents.
    """
    join = (
        f"CROSS JOIN LATERAL (SELECT * FROM spans s WHERE {_OF_PARENT.format('s')} OFFSET 0) above"  # noqa: S608 - built from constants
        if is_lateral
        else f"JOIN spans above ON {_OF_PARENT.format('above')}"
    )
    return SettlingSql(_STATED.format(members=members), _LINKS.format(members=members, join=join))


def usage_rows(spans: Sequence[Row], genai: Mapping[int, GenAiFacts]) -> list[Row]:
    """Rows in USAGE_COLUMNS order for the spans that state tokens or cost.

    spans: rows in SPAN_COLUMNS order; genai: facts by index into them. All is taken to count, as
    `TraceDelta` does.
    """
    rows: list[Row] = []
    for index, facts in genai.items():
        if not facts.states_usage:
            continue
        tenant_id, trace_id, span_id, parent_id, start_ns = spans[index][:5]
        service_name = spans[index][14]
        rows.append(
            (
                tenant_id,
                trace_id,
                span_id,
                start_ns,
                parent_id,
                facts.is_model_call,
                facts.input_tokens,
                facts.output_tokens,
                facts.cached_tokens,
                facts.reasoning_tokens,
                facts.cost,
                facts.estimate,
                facts.is_model_call,
                facts.cost is not None or facts.estimate is not None,
                service_name,
                facts.model,
                facts.provider,
            )
        )
    return rows


@dataclass(slots=True)
class Settlement:
    """What changes: parameters of SAY_WHAT_COUNTS and of SET_TOTALS."""

    verdicts: list[tuple[Any, ...]] = field(default_factory=list)
    totals: list[tuple[Any, ...]] = field(default_factory=list)


def settle(stated: Iterable[Row], links: Iterable[tuple[TraceId, SpanId, SpanId]]) -> Settlement:
    """What is to be written so that each trace's sums hold what counts, and nothing twice.

    stated: all statements of each trace, in USAGE_COLUMNS order. links: see SettlingSql.
    """
    parents: dict[TraceId, dict[SpanId, SpanId]] = defaultdict(dict)
    for trace_id, span_id, parent_id in links:
        parents[trace_id][span_id] = parent_id
    settlement = Settlement()
    for key, rows in by_trace(stated).items():
        usages = counted(rows, parents[key[1]])
        changed = [
            (usage.counts_tokens, usage.counts_cost, *row[:4])
            for usage, row in zip(usages, rows, strict=True)
            if (usage.counts_tokens, usage.counts_cost) != _said(row)
        ]
        if changed:
            settlement.verdicts += changed
            settlement.totals.append((*_values(sum_counted(usages)), *key))
    return settlement


def counted(rows: Sequence[Row], parents: Mapping[SpanId, SpanId]) -> list[Usage]:
    """The statements of one trace, each saying whether it counts."""
    usages = [usage_of(row) for row in rows]
    verdicts = count_once(usages, parents)
    return [
        replace(usage, counts_tokens=tokens, counts_cost=cost)
        for usage, (tokens, cost) in zip(usages, verdicts, strict=True)
    ]


def with_verdict(row: Row, usage: Usage) -> Row:
    """The row saying what counts of it."""
    return (
        *row[:_COUNTS_TOKENS],
        usage.counts_tokens,
        usage.counts_cost,
        *row[_COUNTS_TOKENS + 2 :],
    )


def by_trace(rows: Iterable[Row]) -> dict[TraceKey, list[Row]]:
    """Rows that begin with tenant and trace id, by these."""
    of_trace: dict[TraceKey, list[Row]] = defaultdict(list)
    for row in rows:
        of_trace[row[0], row[1]].append(row)
    return of_trace


def usage_of(row: Row) -> Usage:
    """A row in USAGE_COLUMNS order."""
    tokens, cost = _said(row)
    return Usage(
        counts_tokens=tokens,
        counts_cost=cost,
        span_id=row[2],
        start_time_ns=row[3],
        is_model_call=bool(row[5]),
        input_tokens=row[6],
        output_tokens=row[7],
        cached_tokens=row[8],
        reasoning_tokens=row[9],
        cost=row[10],
        estimate=row[11],
    )


def _said(row: Row) -> tuple[bool, bool]:
    return bool(row[_COUNTS_TOKENS]), bool(row[_COUNTS_TOKENS + 1])


def _values(totals: UsageTotals) -> tuple[Any, ...]:
    return (
        totals.input_tokens,
        totals.output_tokens,
        totals.cached_tokens,
        totals.reasoning_tokens,
        totals.cost,
        totals.estimated_cost,
    )
