"""Write what storage returned as the JSON of api.replies.

Path: storage → query → [api.views] → HTTP response.
The stored JSON texts (attributes, events, links, entity references) go through unparsed and so come
back to the digit.
Nothing here recurses in Python, and `query.tree` bounds the depth of what msgspec encodes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
from msgspec import Raw

from msgtrace.api.cursors import format_cursor
from msgtrace.api.replies import (
    NodeView,
    OperationView,
    PageView,
    PercentilesView,
    ResourceView,
    ScopeView,
    SpanUsageView,
    SpanView,
    StatsView,
    StatusView,
    SummaryView,
    TraceView,
    TreeView,
    UsageSumsView,
    UsageView,
)
from msgtrace.model.search import TracePage, TraceSearch
from msgtrace.model.span import (
    KIND_NAMES,
    STATUS_NAMES,
    InstrumentationScope,
    Resource,
    Span,
)
from msgtrace.model.trace import (
    Operation,
    SpanUsage,
    Trace,
    TraceOutline,
    TraceStats,
    TraceSummary,
    UsageSums,
)
from msgtrace.model.units import NS_PER_MS, rfc3339
from msgtrace.query.usage import NO_USAGE, UsageNode

_ENCODER: Final = msgspec.json.Encoder()


def trace_page(search: TraceSearch, page: TracePage) -> bytes:
    """One page of the trace list."""
    return _ENCODER.encode(
        PageView(
            traces=[summary_view(summary) for summary in page.traces],
            total=page.total,
            total_is_exact=page.is_total_exact,
            limit=search.limit,
            offset=search.offset,
            next_cursor=format_cursor(page.next_cursor) if page.next_cursor else None,
        )
    )


def trace(trace: Trace) -> bytes:
    """A trace with its spans in the order they come in."""
    summary = msgspec.structs.asdict(summary_view(trace.summary))
    return _ENCODER.encode(TraceView(**summary, spans=[_span(span) for span in trace.spans]))


def trace_head(summary: TraceSummary) -> bytes:
    """What a trace begins with, up to its first span; `]}` ends it."""
    view = TraceView(**msgspec.structs.asdict(summary_view(summary)), spans=[])
    return _ENCODER.encode(view).removesuffix(b"]}")


def span(span: Span) -> bytes:
    """One span of a trace."""
    return _ENCODER.encode(_span(span))


def tree_head(outline: TraceOutline) -> bytes:
    """What a tree begins with, up to its first root; `]}` ends it."""
    summary = outline.summary
    view = TreeView(summary.trace_id.hex(), len(outline.places), summary_view(summary), [])
    return _ENCODER.encode(view).removesuffix(b"]}")


def node_head(node: UsageNode) -> bytes:
    """What a node of a tree begins with, up to its first child; `]}` ends it."""
    return _ENCODER.encode(_node(node)).removesuffix(b"]}")


def trace_tree(trace: Trace, roots: Sequence[UsageNode]) -> bytes:
    """The forest that was built of the trace's spans."""
    return _ENCODER.encode(
        TreeView(
            trace.summary.trace_id.hex(),
            len(trace.spans),
            summary_view(trace.summary),
            _forest(roots),
        )
    )


def stats(stats: TraceStats) -> bytes:
    """Sums over the matching traces."""
    return _ENCODER.encode(
        StatsView(
            total_traces=stats.total_traces,
            traces_with_errors=stats.traces_with_errors,
            error_rate=stats.error_rate,
            total_spans=stats.total_spans,
            total_errors=stats.total_errors,
            duration_ms=PercentilesView(
                p50=_milliseconds(stats.duration_p50_ns),
                p95=_milliseconds(stats.duration_p95_ns),
                p99=_milliseconds(stats.duration_p99_ns),
            ),
            input_tokens=stats.input_tokens,
            output_tokens=stats.output_tokens,
            cached_tokens=stats.cached_tokens,
            reasoning_tokens=stats.reasoning_tokens,
            cost=stats.cost,
            estimated_cost=stats.estimated_cost,
            by_model=_usage(stats.by_model),
            by_service=_usage(stats.by_service),
            by_day=_usage(stats.by_day),
        )
    )


def services(names: Sequence[str]) -> bytes:
    """The names in the order they come in."""
    return _ENCODER.encode({"services": names})


def operations(operations: Sequence[Operation]) -> bytes:
    """The operations in the order they come in."""
    views = [OperationView(each.name, _word(KIND_NAMES, each.span_kind)) for each in operations]
    return _ENCODER.encode({"operations": views})


def deleted(count: int) -> bytes:
    """How many traces a deletion took away."""
    return _ENCODER.encode({"deleted": count})


def summary_view(summary: TraceSummary) -> SummaryView:
    """A line of a list."""
    return SummaryView(
        trace_id=summary.trace_id.hex(),
        start_time=rfc3339(summary.start_time_ns),
        end_time=rfc3339(summary.end_time_ns),
        start_time_unix_nano=str(summary.start_time_ns),
        end_time_unix_nano=str(summary.end_time_ns),
        duration_ms=summary.duration_ns / NS_PER_MS,
        span_count=summary.span_count,
        error_count=summary.error_count,
        service_name=summary.service_name,
        services=summary.services,
        root_span_id=summary.root_span_id.hex() if summary.root_span_id else None,
        root_span_name=summary.root_span_name,
        workflow_name=summary.workflow_name,
        session_id=summary.session_id,
        user_id=summary.user_id,
        models=summary.models,
        providers=summary.providers,
        operations=summary.operations,
        agents=summary.agents,
        tools=summary.tools,
        input_tokens=summary.input_tokens,
        output_tokens=summary.output_tokens,
        cached_tokens=summary.cached_tokens,
        reasoning_tokens=summary.reasoning_tokens,
        cost=summary.cost,
        estimated_cost=summary.estimated_cost,
    )


def _usage(groups: Mapping[str | None, UsageSums] | Mapping[str, UsageSums]) -> list[UsageView]:
    return [UsageView(name=name, **dataclasses.asdict(sums)) for name, sums in groups.items()]


def _forest(roots: Sequence[UsageNode]) -> list[NodeView]:
    """The same forest of views; a stack stands in for recursion."""
    forest: list[NodeView] = []
    waiting = [(node, forest) for node in reversed(roots)]
    while waiting:
        node, siblings = waiting.pop()
        view = _node(node)
        siblings.append(view)
        waiting.extend((child, view.children) for child in reversed(node.children))
    return forest


def _node(node: UsageNode) -> NodeView:
    """Without its children."""
    return NodeView(
        span=_span(node.span),
        relation=node.relation,
        operation=node.operation,
        usage=_span_usage(node.usage),
        subtree=_NO_USAGE if node.subtree is NO_USAGE else _usage_sums(node.subtree),
        folded_count=node.folded_count,
        children=[],
    )


def _span_usage(usage: SpanUsage | None) -> SpanUsageView | None:
    if usage is None:
        return None
    return SpanUsageView(
        model=usage.model,
        provider=usage.provider,
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cached_tokens=usage.cached_tokens,
        reasoning_tokens=usage.reasoning_tokens,
        cost=usage.cost,
        is_estimated=usage.is_estimated,
        counts_tokens=usage.counts_tokens,
        counts_cost=usage.counts_cost,
    )


def _usage_sums(sums: UsageSums) -> UsageSumsView:
    return UsageSumsView(**dataclasses.asdict(sums))


_NO_USAGE: Final = _usage_sums(NO_USAGE)


def _span(span: Span) -> SpanView:
    return SpanView(
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_span_id=span.parent_span_id.hex() if span.parent_span_id else None,
        name=span.name,
        kind=_word(KIND_NAMES, span.kind),
        start_time=rfc3339(span.start_time_ns),
        end_time=rfc3339(span.end_time_ns),
        start_time_unix_nano=str(span.start_time_ns),
        end_time_unix_nano=str(span.end_time_ns),
        duration_ms=span.duration_ns / NS_PER_MS,
        status=StatusView(_word(STATUS_NAMES, span.status_code), span.status_message),
        trace_state=span.trace_state,
        flags=span.flags,
        service_name=span.service_name,
        attributes=Raw(span.attributes),
        dropped_attributes_count=span.dropped_attributes_count,
        events=Raw(span.events),
        dropped_events_count=span.dropped_events_count,
        links=Raw(span.links),
        dropped_links_count=span.dropped_links_count,
        resource=_resource(span.resource),
        scope=_scope(span.scope),
    )


def _resource(resource: Resource) -> ResourceView:
    return ResourceView(
        attributes=Raw(resource.attributes),
        dropped_attributes_count=resource.dropped_attributes_count,
        entity_refs=Raw(resource.entity_refs),
        schema_url=resource.schema_url,
    )


def _scope(scope: InstrumentationScope) -> ScopeView:
    return ScopeView(
        name=scope.name,
        version=scope.version,
        attributes=Raw(scope.attributes),
        dropped_attributes_count=scope.dropped_attributes_count,
        schema_url=scope.schema_url,
    )


def _word(words: Sequence[str], number: int) -> str | int:
    """OTLP's name of an enum value, or the number where OTLP has none."""
    return words[number] if 0 <= number < len(words) else number


def _milliseconds(duration_ns: int | None) -> float | None:
    return None if duration_ns is None else duration_ns / NS_PER_MS
