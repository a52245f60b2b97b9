"""Read storages the way contract tests ask."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from opentelemetry.proto.trace.v1.trace_pb2 import Span as OtlpSpan

from msgtrace.model.batch import SpanBatch, TraceDelta, merge_traces
from msgtrace.model.search import TraceFilter, TracePage, TraceSearch
from msgtrace.model.span import DEFAULT_TENANT, SpanId, TraceId
from msgtrace.model.text import unescape_text
from msgtrace.model.trace import Trace, TraceSummary
from msgtrace.storage.protocol import Storage, TraceReader
from tests.batches import TRACE_A, make_batch, trace_id_of

TENANT = DEFAULT_TENANT


async def read_trace(storage: TraceReader, trace_id: TraceId = TRACE_A) -> Trace:
    """A trace that must be stored."""
    trace = await storage.get_trace(TENANT, trace_id)
    assert trace is not None
    return trace


async def find(storage: TraceReader, **wanted: Any) -> TracePage:
    """The first page of what a filter matches."""
    return await storage.find_traces(TENANT, TraceSearch(filter=TraceFilter(**wanted)))


async def found_names(storage: TraceReader, **wanted: Any) -> list[str]:
    """The root names of the traces that a filter matches, sorted; statistics must agree."""
    page = await find(storage, **wanted)
    stats = await storage.get_stats(TENANT, TraceFilter(**wanted))
    assert stats.total_traces == page.total == len(page.traces)
    return sorted(summary.root_span_name for summary in page.traces)


async def write_traces(storage: Storage, traces: dict[str, Iterable[OtlpSpan]]) -> None:
    """Store traces by name; whatever trace their spans say, they become of that one."""
    for name, spans in traces.items():
        own = [OtlpSpan.FromString(span.SerializeToString()) for span in spans]
        for span in own:
            span.trace_id = trace_id_of(name)
        await storage.write_spans([make_batch(*own)])


def expected_summaries(batches: Iterable[SpanBatch]) -> dict[TraceId, TraceSummary]:
    """The summaries that readers must see once exactly these batches are stored.

    No span of theirs may repeat the tokens or the cost of another.
    """
    return {key[1]: _summary(key[1], delta) for key, delta in merge_traces(batches).items()}


def _summary(trace_id: TraceId, delta: TraceDelta) -> TraceSummary:
    has_parent, _, root_span_id = delta.root
    return TraceSummary(
        trace_id=trace_id,
        start_time_ns=delta.start_time_ns,
        end_time_ns=delta.end_time_ns,
        span_count=delta.span_count,
        error_count=delta.error_count,
        root_span_id=None if has_parent else SpanId(root_span_id),
        root_span_name=unescape_text(delta.root_name),
        service_name=unescape_text(delta.root_service_name),
        services=sorted(map(unescape_text, delta.services)),
        workflow_name=None if delta.workflow is None else unescape_text(delta.workflow[1]),
        session_id=None if delta.session is None else unescape_text(delta.session[1]),
        user_id=None if delta.user is None else unescape_text(delta.user[1]),
        models=sorted(map(unescape_text, delta.models)),
        providers=sorted(map(unescape_text, delta.providers)),
        operations=sorted(delta.operations),
        agents=sorted(map(unescape_text, delta.agents)),
        tools=sorted(map(unescape_text, delta.tools)),
        input_tokens=delta.input_tokens,
        output_tokens=delta.output_tokens,
        cached_tokens=delta.cached_tokens,
        reasoning_tokens=delta.reasoning_tokens,
        cost=delta.cost,
        estimated_cost=delta.estimated_cost,
    )
