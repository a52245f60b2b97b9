"""OpenTelemetry's own SDK and exporters against the real service: what goes in comes out."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence

import grpc
import pytest
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from tests.end_to_end.processes import RunningProcess
from tests.end_to_end.shapes import exact, expected_span, make_spans, shown_span

MakeExporter = Callable[[RunningProcess], SpanExporter]


def over_grpc(compression: grpc.Compression) -> MakeExporter:
    return lambda service: GrpcExporter(
        f"http://{service.grpc_target}", insecure=True, compression=compression
    )


def over_http(compression: Compression) -> MakeExporter:
    return lambda service: HttpExporter(f"{service.otlp_url}/v1/traces", compression=compression)


EXPORTERS: dict[str, MakeExporter] = {
    "grpc": over_grpc(grpc.Compression.NoCompression),
    "grpc+gzip": over_grpc(grpc.Compression.Gzip),
    "http": over_http(Compression.NoCompression),
    "http+gzip": over_http(Compression.Gzip),
    "http+deflate": over_http(Compression.Deflate),
}


def export(exporter: SpanExporter, spans: Sequence[ReadableSpan]) -> None:
    try:
        assert exporter.export(spans) is SpanExportResult.SUCCESS
    finally:
        exporter.shutdown()


@pytest.mark.parametrize("transport", EXPORTERS)
def test_every_field_of_every_span_comes_back_as_the_sdk_has_sent_it(
    service: RunningProcess, transport: str
) -> None:
    spans = make_spans()

    export(EXPORTERS[transport](service), spans)

    expected = {each["span_id"]: exact(each) for each in map(expected_span, spans)}
    traces = [service.get_trace(id) for id in {span["trace_id"] for span in expected.values()}]
    shown = {
        span["span_id"]: exact(shown_span(span)) for trace in traces for span in trace["spans"]
    }
    assert len(spans) == len(expected) == 8
    assert len(traces) == 4
    assert shown.keys() == expected.keys()
    for span_id, span in expected.items():
        for name, value in span.items():
            assert shown[span_id][name] == value, f"{name} of {span['name']!r}"
        assert shown[span_id].keys() == span.keys()


@pytest.mark.parametrize("transport", EXPORTERS)
def test_a_trace_of_the_sdk_is_summed_up_and_listed(
    service: RunningProcess, transport: str
) -> None:
    spans = make_spans()
    root = next(span for span in spans if span.name == "GET /cart")
    assert root.context is not None

    export(EXPORTERS[transport](service), spans)

    trace = service.get_trace(f"{root.context.trace_id:032x}")
    spans = [
        span for span in spans if span.context and span.context.trace_id == root.context.trace_id
    ]
    assert trace["span_count"] == len(spans) == 5
    assert trace["error_count"] == 1
    assert trace["root_span_id"] == f"{root.context.span_id:016x}"
    assert trace["root_span_name"] == "GET /cart"
    assert trace["service_name"] == "shop"
    assert trace["services"] == ["shop", "stock \0 ␀"]
    listed = service.get("/api/v1/traces", limit=1000)["traces"]
    summary = next(each for each in listed if each["trace_id"] == trace["trace_id"])
    assert summary == {name: trace[name] for name in summary}


@pytest.mark.parametrize("transport", EXPORTERS)
def test_a_program_that_has_shut_down_finds_all_its_spans_stored(
    service: RunningProcess, transport: str
) -> None:
    name = f"batch-{uuid.uuid4().hex}"
    provider = TracerProvider(resource=Resource({"service.name": name}), shutdown_on_exit=False)
    provider.add_span_processor(
        BatchSpanProcessor(EXPORTERS[transport](service), schedule_delay_millis=50)
    )
    tracer = provider.get_tracer("batch")

    for _ in range(150):
        with tracer.start_as_current_span("root"):
            for _ in range(9):
                tracer.start_span("leaf").end()
    provider.shutdown()

    stats = service.get("/api/v1/stats", service_name=name)
    assert (stats["total_traces"], stats["total_spans"]) == (150, 1500)


@pytest.mark.parametrize("make_exporter", [GrpcExporter, HttpExporter])
def test_an_exporter_that_only_the_environment_sets_up_just_works(
    service: RunningProcess,
    make_exporter: Callable[[], SpanExporter],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    is_grpc = make_exporter is GrpcExporter
    endpoint = f"http://{service.grpc_target}" if is_grpc else service.otlp_url
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
    spans = make_spans()

    export(make_exporter(), spans)

    for span in spans:
        assert span.context is not None
        assert service.get_trace(f"{span.context.trace_id:032x}")["span_count"] >= 1


def test_a_batch_that_is_exported_twice_is_stored_once(service: RunningProcess) -> None:
    spans = make_spans()
    export(EXPORTERS["http"](service), spans)
    before = service.get("/api/v1/stats")

    export(EXPORTERS["grpc"](service), spans)

    assert service.get("/api/v1/stats") == before
