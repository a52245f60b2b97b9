"""Spans for tests.

`span(...)` is an OTLP span with sensible fields, `make_batch(...)` what the decoder makes of some.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from msgtrace.model.batch import SpanBatch
from msgtrace.model.span import SpanId, TraceId
from msgtrace.otlp.decode import decode_export_request

NOON_NS = 1_772_366_400_000_000_000
"""2026-03-01T12:00:00Z."""

TRACE_A = TraceId(bytes.fromhex("aa" * 16))
TRACE_B = TraceId(bytes.fromhex("bb" * 16))


def trace_id_of(name: str) -> TraceId:
    """A trace id that is the same for the same name."""
    return TraceId(hashlib.blake2b(name.encode(), digest_size=16).digest())


def span_id_of(name: str) -> SpanId:
    """A span id that is the same for the same name."""
    return SpanId(hashlib.blake2b(name.encode(), digest_size=8).digest())


def span(
    name: str = "work",
    *,
    trace_id: bytes = TRACE_A,
    span_id: bytes | None = None,
    parent: str | bytes | None = None,
    start_ns: int = NOON_NS,
    duration_ns: int = 1_000_000,
    attributes: Mapping[str, Any] | None = None,
    status_code: int = 0,
    status_message: str = "",
    **fields: Any,
) -> Span:
    """An OTLP span. Its id follows from its name; `parent` is the parent's name or id."""
    parent_id = span_id_of(parent) if isinstance(parent, str) else parent
    return Span(
        trace_id=trace_id,
        span_id=span_id_of(name) if span_id is None else span_id,
        parent_span_id=parent_id or b"",
        name=name,
        start_time_unix_nano=start_ns,
        end_time_unix_nano=start_ns + duration_ns,
        attributes=key_values(attributes or {}),
        status=Status(code=status_code, message=status_message),  # type: ignore[arg-type]  # any number is legal
        **fields,
    )


def request(
    *spans: Span, service: str = "shop", resource: Mapping[str, Any] | None = None
) -> ExportTraceServiceRequest:
    """One export request with these spans in one scope of one resource."""
    export = ExportTraceServiceRequest()
    resource_spans = export.resource_spans.add()
    resource_spans.resource.attributes.extend(
        key_values({"service.name": service} | dict(resource or {}))
    )
    scope_spans = resource_spans.scope_spans.add()
    scope_spans.scope.name = "tests"
    scope_spans.spans.extend(spans)
    return export


def make_batch(
    *spans: Span, service: str = "shop", resource: Mapping[str, Any] | None = None
) -> SpanBatch:
    """What the decoder makes of `request(...)`."""
    return decode_export_request(
        request(*spans, service=service, resource=resource).SerializeToString()
    )


def key_values(attributes: Mapping[str, Any]) -> list[KeyValue]:
    """Plain Python values as OTLP attributes."""
    return [KeyValue(key=key, value=any_value(value)) for key, value in attributes.items()]


def any_value(value: Any) -> AnyValue:  # noqa: C901 - one case a kind
    """A plain Python value as an OTLP value."""
    match value:
        case None:
            return AnyValue()
        case bool():
            return AnyValue(bool_value=value)
        case int():
            return AnyValue(int_value=value)
        case float():
            return AnyValue(double_value=value)
        case bytes():
            return AnyValue(bytes_value=value)
        case str():
            return AnyValue(string_value=value)
        case list():
            return AnyValue(array_value=ArrayValue(values=map(any_value, value)))
        case dict():
            return AnyValue(kvlist_value=KeyValueList(values=key_values(value)))
    raise TypeError(type(value).__name__)
