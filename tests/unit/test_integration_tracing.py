"""msgtrace.integration.tracing, without a provider of the process and without a server."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from msgtrace.integration import tracing
from msgtrace.integration.observer import _traces_url
from msgtrace.integration.provider import SwitchedSampler, make_resource, sdk_exports_to
from msgtrace.integration.tracing import (
    MAX_EXPORT_CHARS,
    BoundedCall,
    SpanTap,
    SteadyExporter,
)


@pytest.fixture
def provider() -> Iterator[TracerProvider]:
    provider = TracerProvider(shutdown_on_exit=False)
    yield provider
    provider.shutdown()


def ended(provider: TracerProvider, name: str = "work", **attributes: str) -> ReadableSpan:
    span = provider.get_tracer("test").start_span(name, attributes=attributes)
    span.end()
    assert isinstance(span, ReadableSpan)
    return span


def test_a_tap_hands_on_while_it_is_open_and_there_is_one_a_provider(
    provider: TracerProvider,
) -> None:
    memory = InMemorySpanExporter()
    tap = SpanTap.of(provider)
    ended(provider, "before")
    tap.open(BatchSpanProcessor(memory))
    ended(provider, "during")
    assert SpanTap.of(provider) is tap
    assert provider.force_flush()
    tap.close()
    ended(provider, "after")
    assert provider.force_flush()

    assert [span.name for span in memory.get_finished_spans()] == ["during"]


def test_a_provider_that_is_shut_down_sends_the_rest(provider: TracerProvider) -> None:
    memory = InMemorySpanExporter()
    SpanTap.of(provider).open(BatchSpanProcessor(memory))
    ended(provider, "last")

    provider.shutdown()

    assert [span.name for span in memory.get_finished_spans()] == ["last"]


def test_a_failing_processor_costs_the_span_and_not_the_program(
    provider: TracerProvider,
) -> None:
    class Failing(BatchSpanProcessor):
        def on_end(self, span: ReadableSpan) -> None:
            raise RuntimeError

    tap = SpanTap.of(provider)
    tap.open(Failing(InMemorySpanExporter()))

    ended(provider)

    assert tap.has_news


def test_a_switched_sampler_samples_as_the_one_below_or_nothing() -> None:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.sampler = sampler = SwitchedSampler(ALWAYS_ON)
    tracer = provider.get_tracer("test")

    assert tracer.start_span("on").is_recording()
    sampler.is_on = False
    assert not tracer.start_span("off").is_recording()
    sampler.is_on = True
    assert tracer.start_span("on").is_recording()


def test_a_call_is_waited_for_no_longer_than_told() -> None:
    release, call = threading.Event(), BoundedCall("test")
    began = time.monotonic()

    assert not call(release.wait, 0.05)
    assert time.monotonic() - began < 5
    release.set()
    assert call(lambda: None, 5)
    call.close()


def test_a_call_that_fails_is_over_and_the_next_one_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    call = BoundedCall("test")

    assert call(lambda: 1 / 0, 5)
    assert call(lambda: None, 5)
    assert [record.message for record in caplog.records] == ["a flush failed"]
    call.close()


def test_a_large_batch_goes_in_several_requests_in_order(provider: TracerProvider) -> None:
    prompt = "x" * (MAX_EXPORT_CHARS // 2)
    spans = [ended(provider, str(number), prompt=prompt) for number in range(5)]

    parts = list(tracing._parts(spans))

    assert [[span.name for span in part] for part in parts] == [["0", "1"], ["2", "3"], ["4"]]


def test_an_outage_is_told_of_once_and_its_spans_are_counted(
    provider: TracerProvider, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    exporter = SteadyExporter("http://127.0.0.1:9/v1/traces", None, None)
    answers = [SpanExportResult.FAILURE, SpanExportResult.FAILURE, SpanExportResult.SUCCESS]
    monkeypatch.setattr(exporter._otlp, "export", lambda spans: answers.pop(0))
    spans = [ended(provider), ended(provider)]

    results = [exporter.export(spans) for _ in range(3)]

    assert [result.name for result in results] == ["FAILURE", "FAILURE", "SUCCESS"]
    assert exporter.lost_spans == 4
    assert [record.message for record in caplog.records] == [
        "spans cannot be sent to http://127.0.0.1:9/v1/traces and are lost"
    ]
    exporter.shutdown()
    exporter.shutdown()


@pytest.mark.parametrize(
    ("given", "posted"),
    [
        ("http://127.0.0.1:4321", "http://127.0.0.1:4321/v1/traces"),
        ("https://collector.example", "https://collector.example/v1/traces"),
        ("https://collector.example/otlp/v1/traces", "https://collector.example/otlp/v1/traces"),
    ],
)
def test_an_endpoint_without_a_path_gets_the_standard_one(given: str, posted: str) -> None:
    assert _traces_url(given) == posted


@pytest.mark.parametrize(
    ("endpoint", "is_same"),
    [
        ("http://localhost:4321/api/v1/traces/export", True),
        ("http://127.0.0.1:4321/v1/traces", True),
        ("http://localhost:4318", False),
        ("http://collector.example:4321", False),
        ("", False),
    ],
)
def test_an_sdk_that_already_sends_to_the_server_is_recognised(
    provider: TracerProvider, monkeypatch: pytest.MonkeyPatch, endpoint: str, is_same: bool
) -> None:
    monkeypatch.setenv("MSGTRACE_TELEMETRY_ENABLED", "true")
    monkeypatch.setenv("MSGTRACE_OTLP_ENDPOINT", endpoint)
    of_sdk = TracerProvider(resource=Resource({"service.name": "msgtrace-app"}))

    assert sdk_exports_to("http://127.0.0.1:4321/v1/traces", of_sdk) is is_same
    assert not sdk_exports_to("http://127.0.0.1:4321/v1/traces", provider)


@pytest.mark.parametrize(
    ("variables", "service"),
    [
        ({"OTEL_SERVICE_NAME": "of-otel", "MSGTRACE_SERVICE_NAME": "of-sdk"}, "of-otel"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=of-resource"}, "of-resource"),
        ({"MSGTRACE_SERVICE_NAME": "of-sdk"}, "of-sdk"),
        ({}, "agent"),
    ],
)
def test_the_service_is_named_by_the_environment_or_the_script(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], service: str
) -> None:
    monkeypatch.setattr("sys.argv", ["folder/agent.py"])
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    assert make_resource(None, False).attributes["service.name"] == service
    assert make_resource("given", False).attributes["service.name"] == "given"
    assert "python.version" in make_resource(None, True).attributes
