"""Decode OTLP/protobuf trace exports.

Path: receivers → [otlp.decode] → pipeline.batcher → storage.
Pure: bytes in, SpanBatch out; no I/O, no settings. A native decoder may take this module's place.
"""

from __future__ import annotations

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from msgtrace.errors import MalformedRequest
from msgtrace.model.batch import SpanBatch
from msgtrace.model.span import DEFAULT_TENANT, TenantId
from msgtrace.otlp.lenient import repair_text
from msgtrace.otlp.rows import make_batch
from msgtrace.otlp.values import plain_map


def decode_export_request(body: bytes, *, tenant_id: TenantId = DEFAULT_TENANT) -> SpanBatch:
    """Decode one serialized ExportTraceServiceRequest, already inflated and size-checked.

    Text that is not UTF-8 comes out with U+FFFD for what is wrong in it.
    Raises MalformedRequest if the bytes do not parse. See `otlp.rows` for what becomes of a span.
    """
    try:
        request = ExportTraceServiceRequest.FromString(body)
    except DecodeError:
        request = _parse_repaired(body)
    return make_batch(request, plain_map, tenant_id=tenant_id, body_bytes=len(body))


def _parse_repaired(body: bytes) -> ExportTraceServiceRequest:
    try:
        return ExportTraceServiceRequest.FromString(repair_text(body))
    except DecodeError as error:
        raise MalformedRequest("the body is not an ExportTraceServiceRequest") from error
