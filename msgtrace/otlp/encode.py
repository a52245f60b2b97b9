"""What goes back to a sender, as protobuf and as JSON.

Sources: opentelemetry-proto docs/specification.md "Full Success", "Partial Success", "Failures";
google.rpc.Status and RetryInfo.
"""

from __future__ import annotations

from typing import Any

import msgspec
from google.rpc.code_pb2 import INVALID_ARGUMENT
from google.rpc.error_details_pb2 import BadRequest, RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceResponse,
)

from msgtrace.model.batch import SpanBatch

_TYPES = "type.googleapis.com/"
_RETRY_INFO_TYPE = _TYPES + "google.rpc.RetryInfo"
_BAD_REQUEST_TYPE = _TYPES + "google.rpc.BadRequest"


def encode_export_response(batch: SpanBatch) -> bytes:
    """ExportTraceServiceResponse for a stored batch.

    Partial_success only if spans were rejected.
    """
    if not batch.rejected_spans:
        return b""
    partial_success = ExportTracePartialSuccess(
        rejected_spans=batch.rejected_spans, error_message=batch.rejection_message
    )
    return ExportTraceServiceResponse(partial_success=partial_success).SerializeToString()


def encode_export_json(batch: SpanBatch) -> bytes:
    """The same in OTLP/JSON; the count is text, as 64-bit integers are in proto3 JSON."""
    if not batch.rejected_spans:
        return b"{}"
    partial_success = {
        "rejectedSpans": str(batch.rejected_spans),
        "errorMessage": batch.rejection_message,
    }
    return msgspec.json.encode({"partialSuccess": partial_success})


def encode_status(code: int, message: str, retry_after_s: int | None) -> bytes:
    """google.rpc.Status with the gRPC `code`.

    Its detail is a RetryInfo if the sender may come back, a BadRequest if the data is bad.
    """
    status = Status(code=code, message=message)
    if code == INVALID_ARGUMENT:
        violation = BadRequest.FieldViolation(description=message)
        status.details.add().Pack(BadRequest(field_violations=[violation]))
    if retry_after_s is not None:
        status.details.add().Pack(_retry_info(retry_after_s))
    serialized: bytes = status.SerializeToString()
    return serialized


def encode_status_json(code: int, message: str, retry_after_s: int | None) -> bytes:
    """The same in JSON."""
    status: dict[str, Any] = {"code": code, "message": message}
    if code == INVALID_ARGUMENT:
        violations = [{"description": message}]
        status["details"] = [{"@type": _BAD_REQUEST_TYPE, "fieldViolations": violations}]
    if retry_after_s is not None:
        status["details"] = [{"@type": _RETRY_INFO_TYPE, "retryDelay": f"{retry_after_s}s"}]
    return msgspec.json.encode(status)


def encode_retry_info(retry_after_s: int) -> bytes:
    """A bare RetryInfo.

    OpenTelemetry's Python gRPC exporter reads the delay from it, not from the status details.
    """
    serialized: bytes = _retry_info(retry_after_s).SerializeToString()
    return serialized


def _retry_info(retry_after_s: int) -> RetryInfo:
    retry_info = RetryInfo()
    retry_info.retry_delay.seconds = retry_after_s
    return retry_info
