"""What goes back to a sender, as protobuf.

Sources: opentelemetry-proto docs/specification.md "Full Success", "Partial Success", "Failures";
google.rpc.Status and RetryInfo.
"""

from __future__ import annotations

from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceResponse,
)

from msgtrace.model.batch import SpanBatch


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


def encode_status(code: int, message: str, retry_after_s: int | None) -> bytes:
    """google.rpc.Status with the gRPC `code`; a RetryInfo detail if the sender may come back."""
    status = Status(code=code, message=message)
    if retry_after_s is not None:
        status.details.add().Pack(_retry_info(retry_after_s))
    serialized: bytes = status.SerializeToString()
    return serialized


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
