"""What becomes of the spans: stored as they were sent, over every transport in every encoding."""

from __future__ import annotations

import json

import pytest
from grpc import StatusCode
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from tests.batches import request, span
from tests.conformance import data_cases
from tests.conformance.collectors import Collector
from tests.conformance.data_cases import CASES, DataCase
from tests.conformance.wires import GRPC, JSON, PROTOBUF, Refusal, Wire


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_data(collector: Collector, wire: Wire, case: DataCase, trace_id: bytes) -> None:
    response = wire.accept(collector, case.send(trace_id))

    if case.rejected:
        assert response.partial_success.rejected_spans == case.rejected
        for words in case.says:
            assert words in response.partial_success.error_message
    else:
        assert response == ExportTraceServiceResponse()
    collector.stores(case.expected(trace_id), trace_id)


@pytest.mark.parametrize("again", [GRPC, PROTOBUF, JSON], ids=lambda wire: wire.name)
def test_row_46_a_resent_request_is_success_and_stored_once(
    collector: Collector, wire: Wire, again: Wire, trace_id: bytes
) -> None:
    export = data_cases.everything(trace_id)

    assert wire.accept(collector, export) == ExportTraceServiceResponse()
    assert again.accept(collector, export) == ExportTraceServiceResponse()

    collector.stores(export)


@pytest.mark.parametrize("transport", ["grpc", "http"])
def test_row_62_text_that_is_not_utf8_costs_replacement_characters(
    collector: Collector, transport: str, trace_id: bytes
) -> None:
    good, bad, repaired = "zzzz", b"z\xff\xc3z", "z��z"
    spans = [span("fine", trace_id=trace_id), span(good, trace_id=trace_id)]
    body = request(*spans).SerializeToString().replace(good.encode(), bad)
    spans[1].name = repaired

    outcome = (GRPC if transport == "grpc" else PROTOBUF).send(collector, body)

    assert outcome == ExportTraceServiceResponse()
    collector.stores(request(*spans))


@pytest.mark.parametrize("is_map", [False, True], ids=["arrays", "maps"])
@pytest.mark.parametrize("depth", [60, 99, 120, 2000])
def test_row_63_deeper_nesting_is_answered(
    collector: Collector, wire: Wire, is_map: bool, depth: int, trace_id: bytes
) -> None:
    outcome = wire.send(collector, deep_body(wire, is_map, depth, trace_id))

    if isinstance(outcome, Refusal):
        assert outcome.code is StatusCode.INVALID_ARGUMENT
        assert outcome.http_status in (0, 400)
    elif collector.query_url:  # JSON may be read deeper than protobuf
        [stored] = collector.get(f"/api/v1/traces/{trace_id.hex()}")["spans"]
        assert json.dumps(stored["attributes"]["deep"]).count("{" if is_map else "[") == depth
    assert wire.accept(collector, request()) == ExportTraceServiceResponse()


def deep_body(wire: Wire, is_map: bool, depth: int, trace_id: bytes) -> bytes:
    """Written by hand: the library's own writers stop before 2,000 levels."""
    if wire.is_json:
        opening = (
            '{"kvlistValue":{"values":[{"key":"k","value":'
            if is_map
            else ('{"arrayValue":{"values":[')
        )
        closing = "}]}}" if is_map else "]}}"
        value = opening * depth + '{"stringValue":"bottom"}' + closing * depth
        marked = wire.encode(request(span(trace_id=trace_id, attributes={"deep": "MARK"})))
        return marked.replace(b'{"stringValue": "MARK"}', value.encode())
    value_bytes = field(1, b"bottom")
    for _ in range(depth):
        item = field(1, b"k") + field(2, value_bytes) if is_map else value_bytes
        value_bytes = field(6 if is_map else 5, field(1, item))
    pair = field(1, b"deep") + field(2, value_bytes)
    made = span(trace_id=trace_id).SerializeToString() + field(9, pair)
    scope = field(1, field(1, b"tests"))
    resource = field(1, request().resource_spans[0].resource.SerializeToString())
    return field(1, resource + field(2, scope + field(2, made)))


def field(number: int, content: bytes) -> bytes:
    """A length-delimited field."""
    size, length = len(content), bytearray()
    while size > 0x7F:
        length.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes([number << 3 | 2, *length, size]) + content


def other_signals() -> dict[str, bytes]:
    logs = ExportLogsServiceRequest()
    record = logs.resource_logs.add().scope_logs.add().log_records.add(time_unix_nano=1)
    record.body.string_value = "a line"
    metrics = ExportMetricsServiceRequest()
    metric = metrics.resource_metrics.add().scope_metrics.add().metrics.add(name="requests")
    metric.gauge.data_points.add(as_int=1)
    return {"logs": logs.SerializeToString(), "metrics": metrics.SerializeToString()}


@pytest.mark.parametrize("signal", ["logs", "metrics"])
@pytest.mark.parametrize("transport", ["grpc", "http"])
def test_row_64_another_signal_on_the_traces_path_is_never_stored(
    collector: Collector, transport: str, signal: str
) -> None:
    before = collector.get("/api/v1/stats") if collector.query_url else None

    outcome = (GRPC if transport == "grpc" else PROTOBUF).send(collector, other_signals()[signal])

    if isinstance(outcome, Refusal):
        assert outcome.code is StatusCode.INVALID_ARGUMENT
    else:
        assert outcome.partial_success.rejected_spans == 1
    if before is not None:
        assert collector.get("/api/v1/stats") == before


def test_row_66_a_reader_of_a_span_that_is_its_own_parent_ends(
    collector: Collector, wire: Wire, trace_id: bytes
) -> None:
    wire.accept(collector, request(span("self", trace_id=trace_id, parent="self")))

    tree = collector.get(f"/api/v1/traces/{trace_id.hex()}/tree")

    [root] = tree["roots"]
    assert (root["span"]["name"], root["children"]) == ("self", [])


def test_row_60_a_batch_of_the_collector(collector: Collector, wire: Wire, trace_id: bytes) -> None:
    export = data_cases.many(8192)(trace_id)

    assert wire.accept(collector, export) == ExportTraceServiceResponse()

    stored = collector.get(f"/api/v1/traces/{trace_id.hex()}")
    assert stored["span_count"] == 8192
    assert {each["attributes"]["n"] for each in stored["spans"]} == set(range(8192))


def test_row_35_an_empty_request_is_success(collector: Collector, wire: Wire) -> None:
    empty = ExportTraceServiceRequest()
    only_resource = ExportTraceServiceRequest()
    only_resource.resource_spans.add()

    for export in (empty, only_resource, request()):
        assert wire.accept(collector, export) == ExportTraceServiceResponse()
    if not wire.is_json:
        assert wire.send(collector, b"") == ExportTraceServiceResponse()
