"""Requests that real programs have sent come back from the API message by message."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.end_to_end.processes import RunningProcess
from tests.end_to_end.rebuild import SpanKey, sent_spans, shown_spans
from tests.end_to_end.senders import call_grpc, post

FIXTURES = Path(__file__).parents[1] / "fixtures"
CAPTURED: Mapping[str, Any] = json.loads((FIXTURES / "manifest.json").read_text())["files"]


def read(name: str) -> tuple[bytes, ExportTraceServiceRequest]:
    body = (FIXTURES / name).read_bytes()
    return body, ExportTraceServiceRequest.FromString(body)


def send(service: RunningProcess, name: str, body: bytes) -> bytes:
    """Send a captured body as its program did; return the body of the success response."""
    about = CAPTURED[name]
    if about["transport"] == "grpc":
        return call_grpc(service.grpc_target, body, method=about["path"])
    headers = {"user-agent": about["headers"]["user-agent"]}
    if about["headers"].get("content-encoding") == "gzip":
        body, headers = gzip.compress(body), headers | {"content-encoding": "gzip"}
    response = post(f"{service.otlp_url}{about['path']}", body, **headers)
    assert response.status_code == 200, response.content
    return response.content


def stored_spans(service: RunningProcess, sent: Mapping[SpanKey, str]) -> dict[SpanKey, str]:
    """Of the traces of `sent` the spans that it has; requests share traces with each other."""
    found: dict[SpanKey, str] = {}
    for trace_id in {trace_id for trace_id, _, _ in sent}:
        found |= shown_spans(service.get_trace(trace_id))
    return {key: span for key, span in found.items() if key in sent}


def test_every_captured_request_is_in_the_manifest() -> None:
    assert {path.name for path in FIXTURES.glob("*.binpb")} == CAPTURED.keys()


@pytest.mark.parametrize("name", CAPTURED)
def test_a_captured_request_comes_back_complete(service: RunningProcess, name: str) -> None:
    body, request = read(name)

    assert send(service, name, body) == b""  # full success, nothing rejected

    sent = sent_spans(request)
    assert len(sent) == CAPTURED[name]["spans"]
    stored = stored_spans(service, sent)
    assert stored.keys() == sent.keys()
    for key, span in sent.items():
        assert stored[key] == span


def test_sending_every_captured_request_again_changes_nothing(service: RunningProcess) -> None:
    bodies = {name: read(name)[0] for name in CAPTURED}
    for name, body in bodies.items():
        send(service, name, body)
    stats, traces = service.get("/api/v1/stats"), service.get("/api/v1/traces", limit=1000)

    for name, body in bodies.items():
        assert send(service, name, body) == b""

    assert service.get("/api/v1/stats") == stats
    assert service.get("/api/v1/traces", limit=1000) == traces
    keys = {key for name in CAPTURED for key in sent_spans(read(name)[1])}
    assert stats["total_spans"] == len(keys)
    assert stats["total_traces"] == len({trace_id for trace_id, _, _ in keys})
    assert sum(trace["span_count"] for trace in traces["traces"]) == len(keys)
