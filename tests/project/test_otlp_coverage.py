"""No field of OTLP gets lost in silence, on any backend.

The table says where a reader finds each field of the published messages. A new field of OTLP fails
here until it is stored, or excused by name with the reason.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import (
    AnyValue,
    ArrayValue,
    EntityRef,
    InstrumentationScope,
    KeyValue,
    KeyValueList,
)
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

from msgtrace.model import span as model
from msgtrace.model.span import DEFAULT_TENANT, TraceId
from msgtrace.model.text import escape_json
from msgtrace.otlp.decode import decode_export_request
from msgtrace.otlp.values import attributes_from_json
from msgtrace.storage.protocol import Storage
from tests.batches import any_value

READ_AT: dict[type[Message], dict[str, str]] = {
    ResourceSpans: {
        "resource": "resource",
        "scope_spans": "scope",
        "schema_url": "resource.schema_url",
    },
    Resource: {
        "attributes": "resource.attributes",
        "dropped_attributes_count": "resource.dropped_attributes_count",
        "entity_refs": "resource.entity_refs",
    },
    EntityRef: {
        "schema_url": "resource.entity_refs.0.schema_url",
        "type": "resource.entity_refs.0.type",
        "id_keys": "resource.entity_refs.0.id_keys",
        "description_keys": "resource.entity_refs.0.description_keys",
    },
    ScopeSpans: {
        "scope": "scope",
        "spans": "span_id",
        "schema_url": "scope.schema_url",
    },
    InstrumentationScope: {
        "name": "scope.name",
        "version": "scope.version",
        "attributes": "scope.attributes",
        "dropped_attributes_count": "scope.dropped_attributes_count",
    },
    Span: {
        "trace_id": "trace_id",
        "span_id": "span_id",
        "trace_state": "trace_state",
        "parent_span_id": "parent_span_id",
        "flags": "flags",
        "name": "name",
        "kind": "kind",
        "start_time_unix_nano": "start_time_ns",
        "end_time_unix_nano": "end_time_ns",
        "attributes": "attributes",
        "dropped_attributes_count": "dropped_attributes_count",
        "events": "events",
        "dropped_events_count": "dropped_events_count",
        "links": "links",
        "dropped_links_count": "dropped_links_count",
        "status": "status_code",
    },
    Span.Event: {
        "time_unix_nano": "events.0.time_unix_nano",
        "name": "events.0.name",
        "attributes": "events.0.attributes",
        "dropped_attributes_count": "events.0.dropped_attributes_count",
    },
    Span.Link: {
        "trace_id": "links.0.trace_id",
        "span_id": "links.0.span_id",
        "trace_state": "links.0.trace_state",
        "attributes": "links.0.attributes",
        "dropped_attributes_count": "links.0.dropped_attributes_count",
        "flags": "links.0.flags",
    },
    Status: {"message": "status_message", "code": "status_code"},
    # Values are in every attributes text, under the name of their field.
    AnyValue: {
        "string_value": "attributes.string_value",
        "bool_value": "attributes.bool_value",
        "int_value": "attributes.int_value",
        "double_value": "attributes.double_value",
        "array_value": "attributes.array_value",
        "kvlist_value": "attributes.kvlist_value",
        "bytes_value": "attributes.bytes_value.$bytes",
        "string_value_strindex": "attributes.string_value_strindex.$strindex",
    },
    ArrayValue: {"values": "attributes.array_value.0"},
    KeyValueList: {"values": "attributes.kvlist_value.$map"},
    KeyValue: {
        "key": "attributes.kvlist_value.$map.0.0",
        "value": "attributes.kvlist_value.$map.0.1",
        "key_strindex": "attributes.kvlist_value.$map.1.0.$strindex",
    },
}

LEFT_OUT: dict[type[Message], dict[str, str]] = {}
"""Fields that are not stored, each with the reason."""

FIELDS = [(message, field) for message, places in READ_AT.items() for field in places]


def reachable(message: type[Message]) -> Iterator[str]:
    """The full names of a message and of all that it holds."""
    waiting, seen = [message.DESCRIPTOR], set()
    while waiting:
        descriptor = waiting.pop()
        if descriptor.full_name not in seen:
            seen.add(descriptor.full_name)
            waiting += [each.message_type for each in descriptor.fields if each.message_type]
            yield descriptor.full_name


def test_the_table_has_every_message_of_an_export() -> None:
    assert {each.DESCRIPTOR.full_name for each in READ_AT} == set(reachable(ResourceSpans))


@pytest.mark.parametrize("message", READ_AT, ids=lambda message: message.DESCRIPTOR.name)
def test_every_field_is_stored_or_excused(message: type[Message]) -> None:
    stored, left_out = READ_AT[message], LEFT_OUT.get(message, {})

    assert set(message.DESCRIPTOR.fields_by_name) == stored.keys() | left_out.keys()
    assert stored.keys().isdisjoint(left_out)
    assert all(left_out.values())


def one_attribute_of_each_kind() -> list[KeyValue]:
    inner = [
        KeyValue(key="key", value=any_value("of a map")),
        KeyValue(key_strindex=11, value=any_value(1)),
    ]
    values = {
        "string_value": any_value("text"),
        "bool_value": any_value(True),
        "int_value": any_value(7),
        "double_value": any_value(2.0),
        "array_value": any_value(["in a list"]),
        "kvlist_value": AnyValue(kvlist_value=KeyValueList(values=inner)),
        "bytes_value": any_value(b"\xff"),
        "string_value_strindex": AnyValue(string_value_strindex=5),
    }
    assert values.keys() == set(AnyValue.DESCRIPTOR.fields_by_name)
    return [KeyValue(key=key, value=value) for key, value in values.items()]


def fill(message: Message, numbers: Iterator[int]) -> None:
    """Set every field to a value that no other has."""
    for field in message.DESCRIPTOR.fields:
        target = getattr(message, field.name)
        if field.message_type is None:
            value = scalar(field, next(numbers))
            if field.is_repeated:
                target.append(value)
            else:
                setattr(message, field.name, value)
        elif field.message_type is KeyValue.DESCRIPTOR:
            target.extend(one_attribute_of_each_kind())
        else:
            fill(target.add() if field.is_repeated else target, numbers)


def scalar(field: Any, number: int) -> Any:
    match field.type:
        case FieldDescriptor.TYPE_STRING:
            return f"text {number} ␀\0"
        case FieldDescriptor.TYPE_BYTES:
            return number.to_bytes(16 if field.name == "trace_id" else 8)
        case FieldDescriptor.TYPE_FIXED64:
            return 2**62 + number
        case FieldDescriptor.TYPE_UINT32 | FieldDescriptor.TYPE_FIXED32:
            return 2**32 - number
        case FieldDescriptor.TYPE_ENUM:
            return 1_000 + number
    raise AssertionError(f"{field.full_name} has a type that this test does not know")


def messages_in(message: Message) -> Iterator[Message]:
    """A message and all that it holds, but not the values of attributes."""
    yield message
    for field, value in message.ListFields():
        if field.message_type not in (None, KeyValue.DESCRIPTOR):
            for each in value if field.is_repeated else [value]:
                yield from messages_in(each)


def look_up(span: model.Span, place: str) -> Any:
    """What is read at a place of the table; JSON texts are looked into."""
    found: Any = dataclasses.asdict(span)
    for step in place.split("."):
        found = found[int(step)] if isinstance(found, list) else found[step]
        if isinstance(found, str) and step in ("attributes", "events", "links", "entity_refs"):
            found = json.loads(found)
    return found


def as_read(field: FieldDescriptor, value: Any, place: str) -> Any:
    """How a reader gets the value of a field: within JSON, ids are hex and times decimal text."""
    if field.is_repeated:
        return list(value)
    if "." in place and field.type == FieldDescriptor.TYPE_BYTES:
        return value.hex()
    if "." in place and field.type == FieldDescriptor.TYPE_FIXED64:
        return str(value)
    return value


def attribute_texts(span: model.Span) -> list[str]:
    """Every attributes text of a span with one event and one link."""
    nested = [json.loads(text)[0]["attributes"] for text in (span.events, span.links)]
    own = [span.attributes, span.resource.attributes, span.scope.attributes]
    return [*own, *(json.dumps(each, ensure_ascii=False) for each in nested)]


async def test_every_field_is_read_where_the_table_says(storage: Storage) -> None:
    export = ExportTraceServiceRequest()
    fill(export.resource_spans.add(), itertools.count(1))
    sent = export.resource_spans[0].scope_spans[0].spans[0]
    await storage.write_spans([decode_export_request(export.SerializeToString())])

    trace = await storage.get_trace(DEFAULT_TENANT, TraceId(sent.trace_id))

    assert trace is not None
    [stored] = trace.spans
    checked = set()
    for message in messages_in(export.resource_spans[0]):
        for field, value in message.ListFields():
            if field.message_type is None:
                place = READ_AT[type(message)][field.name]
                assert look_up(stored, place) == as_read(field, value, place), field.full_name
            checked.add((type(message), field.name))
    for text in attribute_texts(stored):
        assert attributes_from_json(escape_json(text)) == one_attribute_of_each_kind()
    values = (AnyValue, ArrayValue, KeyValueList, KeyValue)
    for message_type, name in FIELDS:
        if message_type in values:
            assert look_up(stored, READ_AT[message_type][name]) is not None
            checked.add((message_type, name))
    assert checked == set(FIELDS)


def test_the_columns_of_a_row_are_the_fields_that_readers_get() -> None:
    own = {each.name for each in dataclasses.fields(model.Span)} - {"resource", "scope"}

    assert own == set(model.SPAN_COLUMNS) - {"tenant_id", "resource_id", "scope_id"}
    for table, read_type in (
        (model.RESOURCE_COLUMNS, model.Resource),
        (model.SCOPE_COLUMNS, model.InstrumentationScope),
    ):
        assert [each.name for each in dataclasses.fields(read_type)] == list(table[2:])
