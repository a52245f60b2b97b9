"""Rebuild OTLP messages from the JSON of the API, to be compared with the request that was sent."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from google.protobuf import text_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import EntityRef, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

from msgtrace.otlp.values import value_from_plain

SpanKey = tuple[str, str, int]
"""What makes a span that span: trace id and span id in hex, start in nanoseconds."""


def sent_spans(request: ExportTraceServiceRequest) -> dict[SpanKey, str]:
    """Every span of a request with its own resource and scope around it, as protobuf text."""
    return {_key(message): _to_text(message) for message in _split(request)}


def shown_spans(trace: dict[str, Any]) -> dict[SpanKey, str]:
    """The same of a trace of the API."""
    messages = [_resource_spans(span) for span in trace["spans"]]
    return {_key(message): _to_text(message) for message in messages}


def _split(request: ExportTraceServiceRequest) -> Iterator[ResourceSpans]:
    for resource_spans in request.resource_spans:
        for scope_spans in resource_spans.scope_spans:
            for span in scope_spans.spans:
                yield ResourceSpans(
                    resource=resource_spans.resource,
                    schema_url=resource_spans.schema_url,
                    scope_spans=[
                        ScopeSpans(
                            scope=scope_spans.scope,
                            schema_url=scope_spans.schema_url,
                            spans=[span],
                        )
                    ],
                )


def _key(message: ResourceSpans) -> SpanKey:
    span = message.scope_spans[0].spans[0]
    return span.trace_id.hex(), span.span_id.hex(), span.start_time_unix_nano


def _to_text(message: ResourceSpans) -> str:
    """Text, because a message with NaN in it does not equal itself."""
    span = message.scope_spans[0].spans[0]
    span.status.SetInParent()  # the API does not tell an absent status from an empty one
    return text_format.MessageToString(message, as_utf8=True)


def _resource_spans(span: dict[str, Any]) -> ResourceSpans:
    resource, scope = span["resource"], span["scope"]
    return ResourceSpans(
        resource=Resource(
            attributes=_attributes(resource["attributes"]),
            dropped_attributes_count=resource["dropped_attributes_count"],
            entity_refs=[EntityRef(**each) for each in resource["entity_refs"]],
        ),
        schema_url=resource["schema_url"],
        scope_spans=[
            ScopeSpans(
                scope=InstrumentationScope(
                    name=scope["name"],
                    version=scope["version"],
                    attributes=_attributes(scope["attributes"]),
                    dropped_attributes_count=scope["dropped_attributes_count"],
                ),
                schema_url=scope["schema_url"],
                spans=[_span(span)],
            )
        ],
    )


def _span(span: dict[str, Any]) -> Span:
    status = span["status"]
    return Span(
        trace_id=bytes.fromhex(span["trace_id"]),
        span_id=bytes.fromhex(span["span_id"]),
        parent_span_id=bytes.fromhex(span["parent_span_id"] or ""),
        trace_state=span["trace_state"],
        flags=span["flags"],
        name=span["name"],
        kind=_number(Span.SpanKind, "SPAN_KIND", span["kind"]),
        start_time_unix_nano=int(span["start_time_unix_nano"]),
        end_time_unix_nano=int(span["end_time_unix_nano"]),
        attributes=_attributes(span["attributes"]),
        dropped_attributes_count=span["dropped_attributes_count"],
        events=[_event(each) for each in span["events"]],
        dropped_events_count=span["dropped_events_count"],
        links=[_link(each) for each in span["links"]],
        dropped_links_count=span["dropped_links_count"],
        status=Status(
            code=_number(Status.StatusCode, "STATUS_CODE", status["status_code"]),
            message=status["description"],
        ),
    )


def _event(event: dict[str, Any]) -> Span.Event:
    return Span.Event(
        time_unix_nano=int(event["time_unix_nano"]),
        name=event["name"],
        attributes=_attributes(event["attributes"]),
        dropped_attributes_count=event["dropped_attributes_count"],
    )


def _link(link: dict[str, Any]) -> Span.Link:
    return Span.Link(
        trace_id=bytes.fromhex(link["trace_id"]),
        span_id=bytes.fromhex(link["span_id"]),
        trace_state=link["trace_state"],
        attributes=_attributes(link["attributes"]),
        dropped_attributes_count=link["dropped_attributes_count"],
        flags=link["flags"],
    )


def _attributes(plain: dict[str, Any]) -> list[KeyValue]:
    return list(value_from_plain(plain).kvlist_value.values)


def _number(names: Any, prefix: str, shown: str | int) -> Any:
    """The number of an enum value; the API shows one that OTLP has not named as it is."""
    return names.Value(f"{prefix}_{shown}") if isinstance(shown, str) else shown
