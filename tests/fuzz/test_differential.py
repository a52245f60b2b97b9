"""Three ways to read one request end in the same rows."""

from __future__ import annotations

import dataclasses

from hypothesis import HealthCheck, given, settings
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from msgtrace.model.batch import SpanBatch
from msgtrace.otlp.decode import decode_export_request
from msgtrace.otlp.json import decode_export_json
from msgtrace.otlp.lenient import repair_text
from tests.conformance.json_encoder import to_json
from tests.fuzz.batches import check_batch
from tests.fuzz.exports import requests

some = settings(
    max_examples=300, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)


def rows(batch: SpanBatch) -> SpanBatch:
    """The batch without the size of its request."""
    check_batch(batch)
    return dataclasses.replace(batch, body_bytes=0)


@some
@given(requests)
def test_json_and_protobuf_of_one_request_are_the_same_rows(
    request: ExportTraceServiceRequest,
) -> None:
    binary = decode_export_request(request.SerializeToString())

    assert rows(decode_export_json(to_json(request))) == rows(binary)


@some
@given(requests)
def test_the_reading_that_repairs_text_changes_nothing_else(
    request: ExportTraceServiceRequest,
) -> None:
    body = request.SerializeToString()

    assert rows(decode_export_request(repair_text(body))) == rows(decode_export_request(body))
