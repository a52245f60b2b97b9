"""Stored spans as OTLP export requests, in protobuf and in JSON.

Path: storage → [otlp.encode_spans] → api, and from there into a file or another collector.
The inverse of `otlp.rows`: decoding what is made here gives the same rows, in both encodings. Pure,
and off the event loop: a span of ten attributes takes some 20 µs.
Sources: opentelemetry-proto trace.proto; docs/specification.md "JSON Protobuf Encoding".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import msgspec
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import EntityRef
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope as OtlpScope
from opentelemetry.proto.resource.v1.resource_pb2 import Resource as OtlpResource
from opentelemetry.proto.trace.v1.trace_pb2 import Span as OtlpSpan

from msgtrace.model.span import InstrumentationScope, Resource, Span
from msgtrace.otlp.values import EMPTY_LIST, EMPTY_MAP, add_pairs

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode

_TAGGED_JSON: dict[str, Callable[[Any], dict[str, Any]]] = {
    "$bytes": lambda text: {"bytesValue": text},
    "$int": lambda text: {"intValue": text},
    "$double": lambda word: {"doubleValue": word},
    "$strindex": lambda index: {"stringValueStrindex": index},
}


def encode_request(spans: Sequence[Span]) -> bytes:
    """One serialized ExportTraceServiceRequest with these spans, in order within their scope."""
    request = ExportTraceServiceRequest()
    for resource, scopes in _grouped(spans):
        envelope = request.resource_spans.add(schema_url=resource.schema_url)
        _add_attributes(envelope.resource, resource.attributes)
        envelope.resource.dropped_attributes_count = resource.dropped_attributes_count
        envelope.resource.entity_refs.extend(
            EntityRef(**each) for each in _items(resource.entity_refs)
        )
        for scope, members in scopes:
            scope_spans = envelope.scope_spans.add(schema_url=scope.schema_url)
            scope_spans.scope.name = scope.name
            scope_spans.scope.version = scope.version
            _add_attributes(scope_spans.scope, scope.attributes)
            scope_spans.scope.dropped_attributes_count = scope.dropped_attributes_count
            for span in members:
                _fill(scope_spans.spans.add(), span)
    serialized: bytes = request.SerializeToString()
    return serialized


def encode_json_request(spans: Sequence[Span]) -> bytes:
    """The same in OTLP/JSON, on one line without its end."""
    return _encode(
        {
            "resourceSpans": [
                {
                    "resource": _json_resource(resource),
                    "scopeSpans": [_json_scope_spans(*each) for each in scopes],
                    "schemaUrl": resource.schema_url,
                }
                for resource, scopes in _grouped(spans)
            ]
        }
    )


Scopes = Iterable[tuple[InstrumentationScope, list[Span]]]


def _grouped(spans: Sequence[Span]) -> Iterator[tuple[Resource, Scopes]]:
    """The spans by resource and, within, by scope, each in the order of its first span."""
    groups: dict[Resource, dict[InstrumentationScope, list[Span]]] = {}
    for span in spans:
        groups.setdefault(span.resource, {}).setdefault(span.scope, []).append(span)
    for resource, scopes in groups.items():
        yield resource, scopes.items()


def _fill(message: OtlpSpan, span: Span) -> None:
    message.trace_id = span.trace_id
    message.span_id = span.span_id
    message.parent_span_id = span.parent_span_id or b""
    message.trace_state = span.trace_state
    message.flags = span.flags
    message.name = span.name
    message.kind = span.kind  # type: ignore[assignment]  # any number is legal
    message.start_time_unix_nano = span.start_time_ns
    message.end_time_unix_nano = span.end_time_ns
    _add_attributes(message, span.attributes)
    message.dropped_attributes_count = span.dropped_attributes_count
    for event in _items(span.events):
        _fill_event(message.events.add(), event)
    message.dropped_events_count = span.dropped_events_count
    for link in _items(span.links):
        _fill_link(message.links.add(), link)
    message.dropped_links_count = span.dropped_links_count
    if span.status_code or span.status_message:
        message.status.code = span.status_code  # type: ignore[assignment]  # any number is legal
        message.status.message = span.status_message


def _fill_event(message: OtlpSpan.Event, event: dict[str, Any]) -> None:
    message.time_unix_nano = int(event["time_unix_nano"])
    message.name = event["name"]
    add_pairs(message.attributes, event["attributes"])
    message.dropped_attributes_count = event["dropped_attributes_count"]


def _fill_link(message: OtlpSpan.Link, link: dict[str, Any]) -> None:
    message.trace_id = bytes.fromhex(link["trace_id"])
    message.span_id = bytes.fromhex(link["span_id"])
    message.trace_state = link["trace_state"]
    add_pairs(message.attributes, link["attributes"])
    message.dropped_attributes_count = link["dropped_attributes_count"]
    message.flags = link["flags"]


def _add_attributes(message: OtlpSpan | OtlpResource | OtlpScope, attributes: str) -> None:
    if attributes != EMPTY_MAP:
        add_pairs(message.attributes, _decode(attributes))


def _items(array: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = _decode(array) if array != EMPTY_LIST else []
    return items


def _json_resource(resource: Resource) -> dict[str, Any]:
    return {
        "attributes": _json_attributes(resource.attributes),
        "droppedAttributesCount": resource.dropped_attributes_count,
        "entityRefs": [
            {
                "schemaUrl": each["schema_url"],
                "type": each["type"],
                "idKeys": each["id_keys"],
                "descriptionKeys": each["description_keys"],
            }
            for each in _items(resource.entity_refs)
        ],
    }


def _json_scope_spans(scope: InstrumentationScope, spans: Sequence[Span]) -> dict[str, Any]:
    return {
        "scope": {
            "name": scope.name,
            "version": scope.version,
            "attributes": _json_attributes(scope.attributes),
            "droppedAttributesCount": scope.dropped_attributes_count,
        },
        "spans": list(map(_json_span, spans)),
        "schemaUrl": scope.schema_url,
    }


def _json_span(span: Span) -> dict[str, Any]:
    fields = {
        "traceState": span.trace_state,
        "parentSpanId": span.parent_span_id.hex() if span.parent_span_id else "",
        "flags": span.flags,
        "kind": span.kind,
        "attributes": _json_attributes(span.attributes),
        "droppedAttributesCount": span.dropped_attributes_count,
        "events": list(map(_json_event, _items(span.events))),
        "droppedEventsCount": span.dropped_events_count,
        "links": list(map(_json_link, _items(span.links))),
        "droppedLinksCount": span.dropped_links_count,
    }
    said = {name: value for name, value in fields.items() if value}
    if span.status_code or span.status_message:
        said["status"] = {"message": span.status_message, "code": span.status_code}
    return {
        "traceId": span.trace_id.hex(),
        "spanId": span.span_id.hex(),
        "name": span.name,
        "startTimeUnixNano": str(span.start_time_ns),
        "endTimeUnixNano": str(span.end_time_ns),
        **said,
    }


def _json_event(event: dict[str, Any]) -> dict[str, Any]:
    return {
        "timeUnixNano": event["time_unix_nano"],
        "name": event["name"],
        "attributes": _json_pairs(event["attributes"]),
        "droppedAttributesCount": event["dropped_attributes_count"],
    }


def _json_link(link: dict[str, Any]) -> dict[str, Any]:
    return {
        "traceId": link["trace_id"],
        "spanId": link["span_id"],
        "traceState": link["trace_state"],
        "attributes": _json_pairs(link["attributes"]),
        "droppedAttributesCount": link["dropped_attributes_count"],
        "flags": link["flags"],
    }


def _json_attributes(attributes: str) -> list[dict[str, Any]]:
    return _json_pairs(_decode(attributes)) if attributes != EMPTY_MAP else []


def _json_pairs(plain: dict[str, Any]) -> list[dict[str, Any]]:
    pairs = plain["$map"] if plain.keys() == {"$map"} else plain.items()
    return [_json_pair(key, value) for key, value in pairs]


def _json_pair(key: str | dict[str, int], value: Any) -> dict[str, Any]:
    # Text first: it is most of what attributes hold.
    content = {"stringValue": value} if type(value) is str else _json_value(value)
    if isinstance(key, dict):
        return {"keyStrindex": key["$strindex"], "value": content}
    return {"key": key, "value": content}


def _json_value(plain: Any) -> dict[str, Any]:
    match plain:
        case None:
            return {}
        case str():
            return {"stringValue": plain}
        case bool():
            return {"boolValue": plain}
        case int():
            return {"intValue": str(plain)}
        case float():
            return {"doubleValue": plain}
        case list():
            return {"arrayValue": {"values": list(map(_json_value, plain))}}
        case dict():
            return _json_map(plain)
    raise TypeError(f"not a JSON value: {type(plain).__name__}")


def _json_map(plain: dict[str, Any]) -> dict[str, Any]:
    if len(plain) == 1:
        [(tag, content)] = plain.items()
        if (tagged := _TAGGED_JSON.get(tag)) is not None:
            return tagged(content)
    return {"kvlistValue": {"values": _json_pairs(plain)}}
