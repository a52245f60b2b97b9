"""No field of OTLP is lost between the wire and the API, future ones included."""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Iterator
from itertools import count, cycle
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans

from tests.batches import any_value, request, span
from tests.end_to_end.processes import RunningProcess
from tests.end_to_end.rebuild import sent_spans, shown_spans
from tests.end_to_end.senders import export

UNNAMED_ENUM_NUMBER = 77

_numbers = count(1)
_VALUES: Iterator[AnyValue] = cycle(
    [
        any_value("text"),
        any_value(-7),
        any_value([1, 2.0, None, {"a": b"\0"}]),
        any_value({"$int": "0"}),
        any_value(math.nan),
        AnyValue(string_value_strindex=3),
        AnyValue(),
    ]
)

_SCALARS: dict[int, Callable[[], Any]] = {
    FieldDescriptor.TYPE_STRING: lambda: f"text {next(_numbers)} \0 ␀",
    FieldDescriptor.TYPE_BYTES: lambda: secrets.token_bytes(8),
    FieldDescriptor.TYPE_UINT32: lambda: 2**31 + next(_numbers),
    FieldDescriptor.TYPE_INT32: lambda: next(_numbers),
    FieldDescriptor.TYPE_FIXED32: lambda: 2**31 + next(_numbers),
    FieldDescriptor.TYPE_FIXED64: lambda: 2**62 + next(_numbers),
    FieldDescriptor.TYPE_ENUM: lambda: UNNAMED_ENUM_NUMBER,
}


def fill(message: Message) -> None:
    """Set every field, repeated ones twice, whatever the published descriptors have."""
    for field in message.DESCRIPTOR.fields:
        for _ in range(2 if field.is_repeated else 1):
            _fill_field(message, field)


def _fill_field(message: Message, field: Any) -> None:
    if isinstance(message, KeyValue) and field.name == "key_strindex":
        return  # either this or a key
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        target = getattr(message, field.name)
        inner = target.add() if field.is_repeated else target
        if isinstance(inner, AnyValue):
            inner.CopyFrom(next(_VALUES))
            inner.SetInParent()
        else:
            fill(inner)
    elif field.is_repeated:
        getattr(message, field.name).append(_SCALARS[field.type]())
    else:
        setattr(message, field.name, _SCALARS[field.type]())


def full_request() -> ExportTraceServiceRequest:
    """Two envelopes with two scopes with two spans each, of one trace."""
    full = ExportTraceServiceRequest()
    fill(full)
    trace_id = secrets.token_bytes(16)
    for resource_spans in full.resource_spans:
        for scope_spans in resource_spans.scope_spans:
            for each in scope_spans.spans:
                each.trace_id = trace_id
    return full


def assert_comes_back(
    service: RunningProcess, sent_request: ExportTraceServiceRequest, wire: str = "http"
) -> None:
    sent = sent_spans(sent_request)
    [trace_id] = {trace_id for trace_id, _, _ in sent}

    assert not export(service, sent_request.SerializeToString(), wire).HasField("partial_success")

    stored = shown_spans(service.get_trace(trace_id))
    assert stored.keys() == sent.keys()
    for key, text in sent.items():
        assert stored[key] == text


@pytest.mark.parametrize("wire", ["http", "grpc"])
def test_every_field_that_otlp_has_comes_back(service: RunningProcess, wire: str) -> None:
    full = full_request()
    assert sum(len(scope.spans) for each in full.resource_spans for scope in each.scope_spans) == 8

    assert_comes_back(service, full, wire)


def test_a_span_with_nothing_but_its_ids_comes_back(service: RunningProcess) -> None:
    bare = ExportTraceServiceRequest(resource_spans=[ResourceSpans()])
    bare.resource_spans[0].scope_spans.add().spans.add(
        trace_id=secrets.token_bytes(16), span_id=secrets.token_bytes(8)
    )
    bare.resource_spans[0].resource.SetInParent()
    bare.resource_spans[0].scope_spans[0].scope.SetInParent()

    assert_comes_back(service, bare)


def test_attributes_with_a_repeated_key_come_back(service: RunningProcess) -> None:
    twice = request(span(trace_id=secrets.token_bytes(16)))
    attributes = twice.resource_spans[0].scope_spans[0].spans[0].attributes
    attributes.add(key="a", value=any_value(1))
    attributes.add(key="a", value=any_value("two"))
    attributes.add(key="", value=any_value(True))
    attributes.add(key_strindex=5, value=any_value(False))

    assert_comes_back(service, twice)


def test_a_value_that_is_nested_thirty_deep_comes_back(service: RunningProcess) -> None:
    value: Any = "core"
    for level in range(30):
        value = {"map": value} if level % 2 else [value]

    assert_comes_back(
        service, request(span(trace_id=secrets.token_bytes(16), attributes={"deep": value}))
    )


def test_a_long_trace_comes_back(service: RunningProcess) -> None:
    trace_id = secrets.token_bytes(16)
    many = [
        span(f"{number}", trace_id=trace_id, parent=f"{number - 1}" if number else None)
        for number in range(5_000)
    ]

    assert_comes_back(service, request(*many))
