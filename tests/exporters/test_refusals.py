"""What exporters make of the answers that are no plain success: we rely on it."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.trace import SpanContext, TraceFlags

from tests.batches import NOON_NS
from tests.end_to_end.processes import RunningProcess, running, wait_until
from tests.end_to_end.test_exporters import EXPORTERS
from tests.exporters.overload import SETTINGS, overloaded, refused_requests
from tests.exporters.senders import CASES, Case, Senders
from tests.exporters.sources import LIVE_TIMEOUT, endpoint, sender_of

PYTHON_WIRES = ["grpc", "http"]

live_cases = pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=f"{case}-live", marks=LIVE_TIMEOUT)
        for case in CASES
        if case.compression == "none"
    ],
)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("database") / "msgtrace.db"


@pytest.fixture(scope="module")
def narrow_service(database: Path) -> Iterator[RunningProcess]:
    """`msgtrace start` that one export can fill."""
    with running("start", f"sqlite:///{database}", environment=SETTINGS) as process:
        yield process


def python_span(service_name: str, *, span_id: int) -> ReadableSpan:
    return ReadableSpan(
        "good" if span_id else "bad",
        SpanContext(secrets.randbits(128), span_id, is_remote=False, trace_flags=TraceFlags(1)),
        resource=Resource({"service.name": service_name}),
        start_time=NOON_NS,
        end_time=NOON_NS + 1,
    )


def stored_spans(service: RunningProcess, service_name: str) -> int:
    spans = service.get("/api/v1/stats", service_name=service_name)["total_spans"]
    assert isinstance(spans, int)
    return spans


@pytest.mark.parametrize("wire", PYTHON_WIRES)
def test_python_takes_a_partial_success_for_success(
    sqlite_service: RunningProcess, wire: str, caplog: pytest.LogCaptureFixture
) -> None:
    spans = [python_span(f"partial-{wire}", span_id=id) for id in (0, 7)]
    exporter = EXPORTERS[wire](sqlite_service)

    try:
        assert exporter.export(spans) is SpanExportResult.SUCCESS
    finally:
        exporter.shutdown()

    assert caplog.records == []
    assert stored_spans(sqlite_service, f"partial-{wire}") == 1


@live_cases
def test_a_partial_success_is_no_reason_to_resend_or_to_lose_the_good_span(
    sqlite_service: RunningProcess, senders: Senders, case: Case
) -> None:
    sender, name = sender_of(case, senders), f"partial-{case}"

    report = sender.run(case, "bad-span", endpoint(case, sqlite_service), service_name=name)

    assert stored_spans(sqlite_service, name) == 1
    # JavaScript logs it, Go returns it as an error that it does not retry, Java says nothing.
    assert report.is_success == (case.language != "go")
    told = [report.error] if case.language == "go" else report.logs
    assert ["span_id is not 8 bytes or is all zero" in text for text in told] == (
        [] if case.language == "java" else [True]
    )


@pytest.mark.parametrize("wire", PYTHON_WIRES)
def test_python_comes_back_after_the_second_that_an_overloaded_collector_asks_for(
    narrow_service: RunningProcess, database: Path, wire: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    exporter = EXPORTERS[wire](narrow_service)
    spans = [python_span(f"retried-{wire}", span_id=7)]

    def is_told() -> bool:
        return any("retrying in 1.00s" in record.getMessage() for record in caplog.records)

    try:
        with ThreadPoolExecutor(1) as pool, overloaded(narrow_service, database) as overload:
            started_s = time.monotonic()
            result = pool.submit(exporter.export, spans)
            wait_until(is_told, "the exporter to be refused", timeout_s=5)
            overload.end()
            assert result.result(timeout=10) is SpanExportResult.SUCCESS
            took_s = time.monotonic() - started_s
    finally:
        exporter.shutdown()

    assert 0.9 < took_s < 5
    assert len(caplog.records) == 1
    assert stored_spans(narrow_service, f"retried-{wire}") == 1


@live_cases
def test_an_exporter_delivers_to_a_collector_that_was_overloaded(
    narrow_service: RunningProcess, database: Path, senders: Senders, case: Case
) -> None:
    sender, name = sender_of(case, senders), f"retried-{case}"
    refused_at_s: list[float] = []
    with overloaded(narrow_service, database) as overload:
        before = refused_requests(narrow_service)

        def recover_after_a_refusal() -> None:
            wait_until(lambda: refused_requests(narrow_service) > before, "a refusal")
            refused_at_s.append(time.monotonic())
            overload.end()

        report = sender.run(
            *(case, "one-span", endpoint(case, narrow_service)),
            service_name=name,
            on_export=recover_after_a_refusal,
        )
        took_s = time.monotonic() - refused_at_s[0]

    # JavaScript's gRPC exporter is the one that never retries: one refusal is a lost batch.
    retries = (case.language, case.wire) != ("js", "grpc")
    assert report.is_success == retries, report.error
    assert stored_spans(narrow_service, name) == (1 if retries else 0)
    assert not retries or took_s > 0.5  # it waited, as it was asked to
