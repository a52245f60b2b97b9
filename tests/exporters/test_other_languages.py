"""OpenTelemetry's exporters of other languages: the API shows exactly the spans that they sent."""

from __future__ import annotations

import pytest

from tests.end_to_end.processes import RunningProcess
from tests.end_to_end.shapes import exact, shown_span
from tests.exporters.capture import FOLDER, file_name
from tests.exporters.scenario import Sent, expected_spans
from tests.exporters.senders import BATCHES_SPANS, BATCHES_TRACES, CASES, Case, Senders
from tests.exporters.sources import (
    CAPTURED,
    LIVE_TIMEOUT,
    endpoint,
    replay,
    send_live,
    sender_of,
)

captured_cases = pytest.mark.parametrize(
    "case", [pytest.param(case, id=f"{case}-captured") for case in CASES]
)
live_cases = pytest.mark.parametrize(
    "case", [pytest.param(case, id=f"{case}-live", marks=LIVE_TIMEOUT) for case in CASES]
)
live_uncompressed_cases = pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=f"{case}-live", marks=LIVE_TIMEOUT)
        for case in CASES
        if case.compression == "none"
    ],
)
live_grpc_cases = pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=f"{case}-live", marks=LIVE_TIMEOUT)
        for case in CASES
        if case.is_grpc and case.compression == "gzip"
    ],
)


def assert_shown(service: RunningProcess, sent: Sent) -> None:
    expected = {span["span_id"]: span for span in expected_spans(sent)}
    trace_ids = {span["trace_id"] for span in expected.values()}
    traces = [service.get_trace(trace_id) for trace_id in trace_ids]
    shown = {span["span_id"]: shown_span(span) for trace in traces for span in trace["spans"]}
    assert len(expected) == 7
    assert len(trace_ids) == 3
    assert shown.keys() == expected.keys()
    for span_id, span in expected.items():
        for name, value in span.items():
            assert exact(shown[span_id][name]) == exact(value), f"{name} of {span['name']!r}"
        assert shown[span_id].keys() == span.keys()


def test_there_is_a_captured_request_of_every_case() -> None:
    names = {file_name(case) for case in CASES}
    assert CAPTURED.keys() == names
    assert {path.name for path in FOLDER.iterdir()} == names | {"manifest.json"}


@captured_cases
def test_every_field_that_an_exporter_has_once_sent_is_shown(
    service: RunningProcess, case: Case
) -> None:
    assert_shown(service, replay(case, service))


@live_cases
def test_every_field_that_an_exporter_sends_is_shown(
    sqlite_service: RunningProcess, senders: Senders, case: Case
) -> None:
    assert_shown(sqlite_service, send_live(case, senders, sqlite_service))


@pytest.mark.postgres
@live_grpc_cases
def test_every_field_that_an_exporter_sends_is_shown_from_postgres(
    postgres_service: RunningProcess, senders: Senders, case: Case
) -> None:
    assert_shown(postgres_service, send_live(case, senders, postgres_service))


@live_uncompressed_cases
def test_a_program_that_has_shut_down_finds_all_its_batches_stored(
    sqlite_service: RunningProcess, senders: Senders, case: Case
) -> None:
    sender, name = sender_of(case, senders), f"batches-{case}"

    report = sender.run(case, "batches", endpoint(case, sqlite_service), service_name=name)

    assert report.is_success, report.error
    assert report.logs == []
    stats = sqlite_service.get("/api/v1/stats", service_name=name)
    assert (stats["total_traces"], stats["total_spans"]) == (BATCHES_TRACES, BATCHES_SPANS)
