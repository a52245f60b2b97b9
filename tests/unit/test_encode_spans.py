"""What is stored comes out as OTLP that is stored as the same again."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import HealthCheck, given, settings
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from msgtrace.model.batch import SpanBatch, take_spans
from msgtrace.model.span import RESOURCE_COLUMNS, SCOPE_COLUMNS, SPAN_COLUMNS, Span
from msgtrace.otlp.decode import decode_export_request
from msgtrace.otlp.encode_spans import encode_json_request, encode_request
from msgtrace.otlp.json import decode_export_json
from msgtrace.storage.span_rows import (
    SPAN_READ_COLUMNS,
    resource_from_row,
    scope_from_row,
    span_from_row,
)
from tests.batches import request, span
from tests.end_to_end.captured import CAPTURED, read
from tests.fuzz.exports import requests
from tests.stored import stored_resource, stored_span

some = settings(
    max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)

_READ = [name.strip().removeprefix("s.") for name in SPAN_READ_COLUMNS.split(",")]


def spans_of(batch: SpanBatch) -> list[Span]:
    """The batch as a reader hands it out."""
    resources = {
        key: resource_from_row(row[RESOURCE_COLUMNS.index("resource_id") :])
        for key, row in batch.resources.items()
    }
    scopes = {
        key: scope_from_row(row[SCOPE_COLUMNS.index("scope_id") :])
        for key, row in batch.scopes.items()
    }
    rows = [dict(zip(SPAN_COLUMNS, row, strict=True)) for row in batch.spans]
    return [
        span_from_row(
            tuple(row[name] for name in _READ),
            resources[row["resource_id"]],
            scopes[row["scope_id"]],
        )
        for row in rows
    ]


def content(batch: SpanBatch) -> object:
    """What is stored of a batch, in any order; nothing of what only spans left out refer to."""
    batch = take_spans(batch, range(len(batch.spans)))
    return (
        sorted(batch.spans, key=repr),
        batch.resources,
        batch.scopes,
        {
            key: dataclasses.replace(delta, cost=round(delta.cost, 6))
            for key, delta in batch.traces.items()
        },
    )


def assert_same_rows(sent: ExportTraceServiceRequest) -> None:
    stored = decode_export_request(sent.SerializeToString())
    spans = spans_of(stored)

    assert content(decode_export_request(encode_request(spans))) == content(stored)
    assert content(decode_export_json(encode_json_request(spans))) == content(stored)


@some
@given(requests)
def test_any_request_comes_back_as_the_same_rows_from_both_encodings(
    sent: ExportTraceServiceRequest,
) -> None:
    assert_same_rows(sent)


@pytest.mark.parametrize("name", CAPTURED)
def test_what_real_programs_sent_comes_back_as_the_same_rows(name: str) -> None:
    assert_same_rows(read(name)[1])


def test_spans_of_one_resource_and_scope_stand_under_it_once() -> None:
    batch = decode_export_request(request(span("a"), span("b")).SerializeToString())

    encoded = ExportTraceServiceRequest.FromString(encode_request(spans_of(batch)))

    [resource_spans] = encoded.resource_spans
    [scope_spans] = resource_spans.scope_spans
    assert [each.name for each in scope_spans.spans] == ["a", "b"]


def test_json_is_one_line_with_hex_ids_and_64_bit_integers_as_text() -> None:
    line = encode_json_request([stored_span(end_time_ns=2**63 - 1)])

    assert b"\n" not in line
    [envelope] = json.loads(line)["resourceSpans"]
    [shown] = envelope["scopeSpans"][0]["spans"]
    assert shown["traceId"] == "aa" * 16
    assert shown["endTimeUnixNano"] == str(2**63 - 1)


def test_fields_that_a_span_does_not_have_take_no_room_in_json() -> None:
    [envelope] = json.loads(
        encode_json_request([stored_span(kind=0, resource=stored_resource(schema_url="s"))])
    )["resourceSpans"]

    assert envelope["schemaUrl"] == "s"
    [shown] = envelope["scopeSpans"][0]["spans"]
    assert shown.keys() == {"traceId", "spanId", "name", "startTimeUnixNano", "endTimeUnixNano"}
