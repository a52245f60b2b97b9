"""Decode OTLP/protobuf trace exports into rows.

Path: receivers → [otlp.decode] → pipeline.batcher → storage.
Pure: bytes in, SpanBatch out; no I/O, no settings, no object per span beside its row tuple. A
native decoder may take this module's place. What a span must satisfy is decided here alone: ids of
the right length that are not all zero; anything else about it is kept as it came. Times beyond
2**63-1 ns (the year 2262) are stored as 2**63-1.
Source: opentelemetry-proto trace.proto, docs/specification.md "Partial Success".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

from msgtrace.errors import MalformedRequest
from msgtrace.model.batch import SpanBatch, summarize
from msgtrace.model.genai import read_facts
from msgtrace.model.span import (
    DEFAULT_TENANT,
    SPAN_ID_BYTES,
    TRACE_ID_BYTES,
    JsonText,
    TenantId,
)
from msgtrace.model.text import escape_text, stored_label
from msgtrace.model.units import MAX_INT64
from msgtrace.otlp.values import EMPTY_LIST, attributes_to_json, plain_map, to_json

UNKNOWN_SERVICE = "unknown_service"
"""The service of spans whose resource names none.

The name that the OpenTelemetry resource conventions give it.
"""

_NO_TRACE = bytes(TRACE_ID_BYTES)
_NO_SPAN = bytes(SPAN_ID_BYTES)

_BAD_TRACE_ID = "trace_id is not 16 bytes or is all zero"
_BAD_SPAN_ID = "span_id is not 8 bytes or is all zero"
_BAD_PARENT_ID = "parent_span_id is neither empty nor 8 bytes"


def decode_export_request(body: bytes, *, tenant_id: TenantId = DEFAULT_TENANT) -> SpanBatch:
    """Decode one serialized ExportTraceServiceRequest, already inflated and size-checked.

    Spans keep wire order. A span with an invalid id is left out and counted in `rejected_spans`.
    Raises MalformedRequest if the bytes do not parse.
    """
    try:
        request = ExportTraceServiceRequest.FromString(body)
    except DecodeError as error:
        raise MalformedRequest("the body is not an ExportTraceServiceRequest") from error
    batch = SpanBatch(body_bytes=len(body))
    rejected: Counter[str] = Counter()
    for resource_spans in request.resource_spans:
        _decode_resource_spans(resource_spans, tenant_id, batch, rejected)
    batch.traces = summarize(batch.spans, batch.genai)
    batch.rejected_spans = rejected.total()
    batch.rejection_message = "; ".join(f"{count} spans: {why}" for why, count in rejected.items())
    return batch


def _decode_resource_spans(
    envelope: ResourceSpans, tenant_id: TenantId, batch: SpanBatch, rejected: Counter[str]
) -> None:
    if not any(scope_spans.spans for scope_spans in envelope.scope_spans):
        return
    resource = envelope.resource
    content = (
        attributes_to_json(resource.attributes),
        resource.dropped_attributes_count or None,
        _entity_refs(resource.entity_refs),
        escape_text(envelope.schema_url) or None,
    )
    resource_id = _content_hash(content)
    batch.resources[resource_id] = (tenant_id, resource_id, *content)
    service_name = stored_label(_service_name(resource.attributes))
    for scope_spans in envelope.scope_spans:
        scope_id = _decode_scope(scope_spans, tenant_id, batch)
        _decode_spans(
            scope_spans.spans, (tenant_id, resource_id, scope_id, service_name), batch, rejected
        )


def _decode_scope(envelope: ScopeSpans, tenant_id: TenantId, batch: SpanBatch) -> int:
    scope = envelope.scope
    content = (
        escape_text(scope.name),
        escape_text(scope.version),
        attributes_to_json(scope.attributes),
        scope.dropped_attributes_count or None,
        escape_text(envelope.schema_url) or None,
    )
    scope_id = _content_hash(content)
    if envelope.spans:
        batch.scopes[scope_id] = (tenant_id, scope_id, *content)
    return scope_id


def _decode_spans(
    spans: Sequence[Span],
    envelope: tuple[TenantId, int, int, str],
    batch: SpanBatch,
    rejected: Counter[str],
) -> None:
    tenant_id, resource_id, scope_id, service_name = envelope
    rows, genai = batch.spans, batch.genai
    for span in spans:
        trace_id, span_id, parent_id = span.trace_id, span.span_id, span.parent_span_id
        if len(trace_id) != TRACE_ID_BYTES or trace_id == _NO_TRACE:
            rejected[_BAD_TRACE_ID] += 1
            continue
        if len(span_id) != SPAN_ID_BYTES or span_id == _NO_SPAN:
            rejected[_BAD_SPAN_ID] += 1
            continue
        if parent_id and len(parent_id) != SPAN_ID_BYTES:
            rejected[_BAD_PARENT_ID] += 1
            continue
        attributes = None
        if pairs := span.attributes:
            plain = plain_map(pairs)
            attributes = to_json(plain)
            if facts := read_facts(plain):
                genai[len(rows)] = facts
        status = span.status
        events, links = span.events, span.links
        # In SPAN_COLUMNS order.
        rows.append(
            (
                tenant_id,
                trace_id,
                span_id,
                parent_id if parent_id and parent_id != _NO_SPAN else None,
                min(span.start_time_unix_nano, MAX_INT64),
                min(span.end_time_unix_nano, MAX_INT64),
                resource_id,
                scope_id,
                span.kind,
                status.code,
                span.flags or None,
                span.dropped_attributes_count or None,
                span.dropped_events_count or None,
                span.dropped_links_count or None,
                service_name,
                escape_text(span.name),
                escape_text(status.message) or None,
                escape_text(span.trace_state) or None,
                attributes,
                to_json([_event(event) for event in events]) if events else None,
                to_json([_link(link) for link in links]) if links else None,
            )
        )


def _event(event: Span.Event) -> dict[str, Any]:
    return {
        "time_unix_nano": str(event.time_unix_nano),
        "name": event.name,
        "attributes": plain_map(event.attributes),
        "dropped_attributes_count": event.dropped_attributes_count,
    }


def _link(link: Span.Link) -> dict[str, Any]:
    return {
        "trace_id": link.trace_id.hex(),
        "span_id": link.span_id.hex(),
        "trace_state": link.trace_state,
        "attributes": plain_map(link.attributes),
        "dropped_attributes_count": link.dropped_attributes_count,
        "flags": link.flags,
    }


def _service_name(attributes: Sequence[KeyValue]) -> str:
    names = (pair.value.string_value for pair in attributes if pair.key == "service.name")
    return next(filter(None, names), UNKNOWN_SERVICE)


def _entity_refs(references: Sequence[Any]) -> JsonText:
    if not references:
        return EMPTY_LIST
    return to_json(
        [
            {
                "schema_url": each.schema_url,
                "type": each.type,
                "id_keys": list(each.id_keys),
                "description_keys": list(each.description_keys),
            }
            for each in references
        ]
    )


def _content_hash(content: tuple[Any, ...]) -> int:
    """64 bits of BLAKE2b as a signed integer, the key under which equal content is stored once."""
    digest = blake2b(repr(content).encode(), digest_size=8).digest()
    return int.from_bytes(digest, signed=True)
