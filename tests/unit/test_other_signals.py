"""Metrics, logs and profiles that are discarded: how many there were, at no great cost."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable

import pytest
from google.protobuf.json_format import MessageToJson
from google.protobuf.message import Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.profiles.v1development.profiles_service_pb2 import (
    ExportProfilesServiceRequest,
    ExportProfilesServiceResponse,
)
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    ExponentialHistogram,
    ExponentialHistogramDataPoint,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
    Summary,
    SummaryDataPoint,
)
from opentelemetry.proto.profiles.v1development.profiles_pb2 import (
    Profile,
    ResourceProfiles,
    ScopeProfiles,
)

from msgtrace.errors import MalformedRequest, RequestTooLarge
from msgtrace.otlp import split
from msgtrace.receivers.other_signals import LOGS, METRICS, PROFILES, Signal, discard, discard_json

MIB = 1024 * 1024


def metrics() -> Message:
    """One data point of a gauge, two of a sum and so on."""
    kinds = [
        Metric(gauge=Gauge(data_points=[NumberDataPoint(as_int=1)])),
        Metric(sum=Sum(data_points=[NumberDataPoint()] * 2)),
        Metric(histogram=Histogram(data_points=[HistogramDataPoint()] * 3)),
        Metric(
            exponential_histogram=ExponentialHistogram(
                data_points=[ExponentialHistogramDataPoint()] * 4
            )
        ),
        Metric(summary=Summary(data_points=[SummaryDataPoint()] * 5), name="m", unit="s"),
    ]
    scopes = [ScopeMetrics(metrics=kinds), ScopeMetrics(metrics=kinds[:2]), ScopeMetrics()]
    return ExportMetricsServiceRequest(resource_metrics=[ResourceMetrics(scope_metrics=scopes)])


def logs() -> Message:
    records = [LogRecord(severity_text="warn", time_unix_nano=1), LogRecord()]
    scopes = [ScopeLogs(log_records=records), ScopeLogs(log_records=records, schema_url="x")]
    return ExportLogsServiceRequest(resource_logs=[ResourceLogs(scope_logs=scopes)] * 2)


def profiles() -> Message:
    scopes = [ScopeProfiles(profiles=[Profile(profile_id=bytes(16))] * 3)]
    return ExportProfilesServiceRequest(resource_profiles=[ResourceProfiles(scope_profiles=scopes)])


CASES = {
    "metrics": (METRICS, metrics, ExportMetricsServiceResponse, "rejected_data_points", 18),
    "logs": (LOGS, logs, ExportLogsServiceResponse, "rejected_log_records", 8),
    "profiles": (PROFILES, profiles, ExportProfilesServiceResponse, "rejected_profiles", 3),
}
Case = tuple[Signal, Callable[[], Message], type[Message], str, int]


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_every_item_is_counted_in_both_encodings(case: Case) -> None:
    signal, make, response, field, count = case

    answer = response.FromString(discard(signal, make().SerializeToString()))
    reply = discard_json(signal, MessageToJson(make()).encode())

    told = answer.partial_success  # type: ignore[attr-defined]
    assert (getattr(told, field), told.error_message) == (count, signal.message)
    assert f':"{count}"'.encode() in reply


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_nothing_to_discard_is_plain_success(case: Case) -> None:
    signal, *_ = case

    assert discard(signal, b"") == b""
    assert discard_json(signal, b"{}") == b"{}"


@pytest.mark.parametrize("body", [b"\xff{", b"\x0a\x05\x0a", b"[]", b"7", b"null"])
def test_what_is_no_export_is_refused(body: bytes) -> None:
    for answer in (discard, discard_json) if body[0] not in b"[7n" else (discard_json,):
        with pytest.raises(MalformedRequest):
            answer(LOGS, body)


HOSTILE = {
    "records": (discard, b"\x0a\x88\x80\x80\x08\x12\x83\x80\x80\x08" + b"\x12\x00" * (8 * MIB)),
    "resources": (discard, b"\x0a\x00" * (8 * MIB)),
    "json records": (
        discard_json,
        b'{"resourceLogs":[{"scopeLogs":[{"logRecords":[' + b"{}," * (5 * MIB) + b"{}]}]}]}",
    ),
    "json lists": (discard_json, b'{"x":[' + b"[]," * (5 * MIB) + b"[]]}"),
}


@pytest.mark.parametrize("case", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_request_costs_little(
    case: tuple[Callable[..., bytes], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    answer, body = case
    monkeypatch.setattr(split, "MAX_COUNTED_FIELDS", 20_000)
    tracemalloc.start()
    try:
        started = time.thread_time()
        outcome = _outcome(answer, body)
        took_s = time.thread_time() - started
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert outcome in ("refused", b"{}")
    assert peak_bytes < MIB
    assert took_s < 5  # traced, which costs several times as much


def _outcome(answer: Callable[..., bytes], body: bytes) -> object:
    try:
        return answer(LOGS, body)
    except (MalformedRequest, RequestTooLarge):
        return "refused"
