"""Days before today, and purges, as tests of retention need them."""

from __future__ import annotations

import time
from collections.abc import Iterable

from msgtrace.maintenance.retention import purge_all
from msgtrace.model.batch import SpanBatch
from msgtrace.model.maintenance import Purged
from msgtrace.model.search import TraceFilter, TraceSearch
from msgtrace.model.units import NS_PER_DAY
from msgtrace.storage.protocol import Storage
from tests.batches import make_batch, span, trace_id_of
from tests.contract.reading import TENANT, expected_summaries


def midnight(days_from_today: int) -> int:
    """When that day began, UTC: a time at which every database can cut."""
    return (time.time_ns() // NS_PER_DAY + days_from_today) * NS_PER_DAY


async def purge(storage: Storage, before_ns: int) -> Purged:
    """Purge as the only one."""
    async with storage.maintenance.purging() as purger:
        assert purger is not None
        return await purge_all(purger, before_ns)


async def require_exactly(storage: Storage, batches: Iterable[SpanBatch]) -> None:
    """What is stored is what these batches make, as readers see it, and nothing else."""
    batches = list(batches)
    wanted = expected_summaries(batches)
    page = await storage.find_traces(TENANT, TraceSearch(filter=TraceFilter(), limit=1000))
    assert {each.trace_id: each for each in page.traces} == wanted
    span_ids: dict[bytes, set[bytes]] = {}
    for batch in batches:
        for row in batch.spans:
            span_ids.setdefault(row[1], set()).add(row[2])
    for trace_id, ids in span_ids.items():
        trace = await storage.get_trace(TENANT, trace_id)  # type: ignore[arg-type]  # rows are untyped
        assert trace is not None
        assert {each.span_id for each in trace.spans} == ids


def trace_at(name: str, *starts_ns: int, duration_ns: int = 5) -> SpanBatch:
    """A trace with a span at each time; the first is its root, and around none of the others.

    So each counts its tokens and its cost.
    """
    return make_batch(
        *(
            span(
                f"{name} {number}",
                trace_id=trace_id_of(name),
                parent=f"{name} not sent" if number else None,
                start_ns=start_ns,
                duration_ns=duration_ns,
                attributes={
                    "gen_ai.operation.name": "chat",
                    "gen_ai.request.model": f"model-{number}",
                    "gen_ai.usage.input_tokens": 10 + number,
                    "gen_ai.usage.cost.amount": 0.5,
                    "session.id": f"session-{number}",
                    "note": "\0 ␀",
                },
                status_code=2 if number % 2 else 0,
            )
            for number, start_ns in enumerate(starts_ns)
        )
    )
