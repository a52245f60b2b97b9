"""Sum traces up anew from their stored spans: after a change of the alias table or of the prices.

What a summary is when all spans of a trace are there is decided in `storage.recompute`; a backend
runs it, some traces at a time, with the rows of those traces locked. A writer that adds to one of
them meanwhile waits, and then adds to the new sums: totals stay right under ingest.
Each batch is one transaction. Whoever is interrupted goes on where it ended: traces that are
brought up to the alias table say so themselves, a rebuild of all keeps its place in
`summary_rebuild`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from msgtrace.model.batch import TraceDelta, TraceKey, summarize
from msgtrace.model.genai import ALIASES_VERSION
from msgtrace.model.prices import PriceTable
from msgtrace.model.span import Row, SpanId, TenantId, TraceId
from msgtrace.storage.recompute import SUMMED_COLUMNS, stored_facts, take_usage
from msgtrace.storage.summary import TRACE_COLUMNS
from msgtrace.storage.usage import by_trace, counted, usage_rows, with_verdict

BATCH_TRACES = 500
BATCH_SPANS = 10_000
"""What one transaction takes; a single larger trace is taken whole."""

SUMMARY_COLUMNS = TRACE_COLUMNS[2:]
"""What a rebuild writes: all but the key."""

# Not narrowed by the times of the summaries: what those say is in question.
SPANS_OF = f"""
SELECT {", ".join(SUMMED_COLUMNS)} FROM spans WHERE tenant_id = ? AND trace_id {{members}}
"""  # noqa: S608 - built from constants

_NEXT = """
SELECT tenant_id, trace_id, span_count FROM traces
WHERE (tenant_id, trace_id) > (?, ?) {} ORDER BY tenant_id, trace_id LIMIT {}
"""

NEXT_OF_ALL = _NEXT.format("", BATCH_TRACES)
NEXT_OUTDATED = _NEXT.format(f"AND aliases_version < {ALIASES_VERSION}", BATCH_TRACES)

COUNT_ALL = "SELECT count(*) FROM traces"
COUNT_OUTDATED = f"{COUNT_ALL} WHERE aliases_version < {ALIASES_VERSION}"

GET_PLACE = "SELECT tenant_id, trace_id, trace_count FROM summary_rebuild"
FORGET_PLACE = "DELETE FROM summary_rebuild"
KEEP_PLACE = """
INSERT INTO summary_rebuild (started_at_ns, trace_count, tenant_id, trace_id) VALUES (?, ?, ?, ?)
"""

START: TraceKey = (TenantId(-1), TraceId(b""))
"""The place before every trace."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How many of the traces are done; `total` is as counted when it began."""

    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """One batch: how many traces, and the last of them; None if there was none left."""

    trace_count: int
    last: TraceKey | None


@dataclass(frozen=True, slots=True)
class NewSummaries:
    """What takes the place of some traces' summaries and of their rows in `model_usage`."""

    traces: dict[TraceKey, TraceDelta]
    usage: list[Row]


class RebuildableStorage(Protocol):
    """What a backend does for a rebuild."""

    async def rebuild_batch(
        self, prices: PriceTable, after: TraceKey, *, is_of_all: bool, done: int
    ) -> Rebuilt:
        """Rebuild the next traces behind `after`, in one transaction.

        is_of_all: otherwise only those of an older alias table. done: how many were before these,
        kept with the place of a rebuild of all.
        """
        ...

    async def get_rebuild_place(self) -> tuple[TraceKey, int] | None:
        """Where a rebuild of all was interrupted, and how many it had done."""
        ...

    async def forget_rebuild_place(self) -> None:
        """A rebuild of all is over, or begins anew."""
        ...

    async def doubt_operations(self) -> None:
        """A rebuild of all begins: what no span says of operations is to be found out."""
        ...

    async def delete_doubted_operations(self) -> None:
        """Delete what no span has said since then."""
        ...

    async def count_for_rebuild(self, *, is_of_all: bool) -> int:
        """How many traces there are to rebuild."""
        ...


async def rebuild_summaries(
    storage: RebuildableStorage, prices: PriceTable, *, is_of_all: bool, restarts: bool = False
) -> AsyncGenerator[Progress, None]:
    """Rebuild batch by batch, and tell after each.

    is_of_all: every trace, as after a change of prices; otherwise those that an older alias table
    summed up. restarts: do not go on where a rebuild of all was interrupted.
    """
    if restarts:
        await storage.forget_rebuild_place()
    total = await storage.count_for_rebuild(is_of_all=is_of_all)
    place = await storage.get_rebuild_place() if is_of_all else None
    if is_of_all and place is None:
        await storage.doubt_operations()
    after, done = place or (START, 0)
    yield Progress(done, total)
    while True:
        rebuilt = await storage.rebuild_batch(prices, after, is_of_all=is_of_all, done=done)
        if rebuilt.last is None:
            break
        after, done = rebuilt.last, done + rebuilt.trace_count
        yield Progress(done, max(done, total))
    if is_of_all:
        await storage.delete_doubted_operations()
        await storage.forget_rebuild_place()


def take_batch(candidates: Sequence[Row]) -> list[TraceKey]:
    """The first of the traces (tenant, trace id, span count) that one transaction takes."""
    taken: list[TraceKey] = []
    spans = 0
    for tenant_id, trace_id, span_count in candidates:
        spans += span_count
        is_other_tenant = bool(taken) and taken[0][0] != tenant_id
        if taken and (spans > BATCH_SPANS or is_other_tenant):
            break
        taken.append((tenant_id, trace_id))
    return taken


def resummarize(spans: Sequence[Row], prices: PriceTable) -> NewSummaries:
    """The summaries of the traces that these spans are all of.

    spans: rows as SPANS_OF gives them.
    """
    genai = stored_facts(spans, prices)
    traces = summarize(spans, genai)
    parents: dict[TraceKey, dict[SpanId, SpanId]] = defaultdict(dict)
    for tenant_id, trace_id, span_id, parent_id in (row[:4] for row in spans):
        if parent_id is not None:
            parents[tenant_id, trace_id][span_id] = parent_id
    usage: list[Row] = []
    for key, rows in by_trace(usage_rows(spans, genai)).items():
        usages = counted(rows, parents[key])
        settled = [with_verdict(row, each) for row, each in zip(rows, usages, strict=True)]
        take_usage(traces[key], settled)
        usage += settled
    return NewSummaries(traces, usage)


def set_summary(cast: Callable[[str], str] = lambda column: "?") -> str:
    """The UPDATE of one trace: its SUMMARY_COLUMNS, then its key.

    cast: the placeholder of a column.
    """
    assignments = ", ".join(f"{column} = {cast(column)}" for column in SUMMARY_COLUMNS)
    return f"UPDATE traces SET {assignments} WHERE tenant_id = ? AND trace_id = ?"  # noqa: S608 - built from constants
