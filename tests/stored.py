"""Objects as storage hands them out, for tests of what comes after storage."""

from __future__ import annotations

import dataclasses
from typing import Any

from msgtrace.model.span import InstrumentationScope, JsonText, Resource, Span, SpanId
from msgtrace.model.trace import TraceSummary
from tests.batches import NOON_NS, TRACE_A


def span_id(number: int) -> SpanId:
    return SpanId(number.to_bytes(8, "big"))


def stored_resource(**fields: Any) -> Resource:
    resource = Resource(
        attributes=JsonText("{}"),
        dropped_attributes_count=0,
        entity_refs=JsonText("[]"),
        schema_url="",
    )
    return dataclasses.replace(resource, **fields)


def stored_scope(**fields: Any) -> InstrumentationScope:
    scope = InstrumentationScope(
        name="", version="", attributes=JsonText("{}"), dropped_attributes_count=0, schema_url=""
    )
    return dataclasses.replace(scope, **fields)


def stored_span(**fields: Any) -> Span:
    span = Span(
        trace_id=TRACE_A,
        span_id=span_id(1),
        parent_span_id=None,
        start_time_ns=NOON_NS,
        end_time_ns=NOON_NS,
        kind=1,
        status_code=0,
        flags=0,
        dropped_attributes_count=0,
        dropped_events_count=0,
        dropped_links_count=0,
        service_name="shop",
        name="GET /cart",
        status_message="",
        trace_state="",
        attributes=JsonText("{}"),
        events=JsonText("[]"),
        links=JsonText("[]"),
        resource=stored_resource(),
        scope=stored_scope(),
    )
    return dataclasses.replace(span, **fields)


def stored_summary(**fields: Any) -> TraceSummary:
    summary = TraceSummary(
        trace_id=TRACE_A,
        start_time_ns=NOON_NS,
        end_time_ns=NOON_NS,
        span_count=1,
        error_count=0,
        root_span_id=span_id(1),
        root_span_name="GET /cart",
        service_name="shop",
        services=["shop"],
        workflow_name=None,
        session_id=None,
        user_id=None,
        models=[],
        providers=[],
        operations=[],
        agents=[],
        tools=[],
        input_tokens=0,
        output_tokens=0,
        cached_tokens=0,
        reasoning_tokens=0,
        cost=0.0,
        estimated_cost=0.0,
    )
    return dataclasses.replace(summary, **fields)
