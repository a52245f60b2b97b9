"""Spans that the real database refuses: told of, kept, listed, exported and replayed."""

from __future__ import annotations

import json
import secrets
import subprocess
from pathlib import Path
from typing import Any

import httpx
from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.batches import NOON_NS, request, span
from tests.end_to_end.processes import RunningProcess, run_to_end, running, wait_until
from tests.end_to_end.senders import export
from tests.end_to_end.test_operators_view import value
from tests.poison import POISON, allow_poison, forbid_poison, poison_forbidden

SECRET = "a prompt that nobody else may read"

TOLD = "2 spans: refused by the database, kept as dead letters"


def admin(database_url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    ended = run_to_end(
        "dead-letters",
        *arguments,
        environment={"MSGTRACE_DATABASE_URL": database_url},
        program="msgtrace-admin",
    )
    assert SECRET not in ended.stdout + ended.stderr
    return ended


def must_admin(database_url: str, *arguments: str) -> Any:
    """Its JSON, if it prints any."""
    ended = admin(database_url, *arguments)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout) if "--json" in arguments else ended.stdout


def mixed_request(trace_id: bytes) -> ExportTraceServiceRequest:
    """Six good spans, two that the database refuses, and one without an id."""
    tokens = {"gen_ai.usage.input_tokens": 7, "prompt": SECRET}
    good = [span(f"good {n}", trace_id=trace_id, parent="good 0" if n else None) for n in range(6)]
    bad = [
        span(
            POISON,
            trace_id=trace_id,
            span_id=secrets.token_bytes(8),
            parent="good 0",
            start_ns=NOON_NS + n,
            status_code=2,
            attributes=tokens,
        )
        for n in range(2)
    ]
    return request(*good[:3], bad[0], span("no id", span_id=b""), *good[3:], bad[1])


def post_json(service: RunningProcess, body: bytes) -> dict[str, Any]:
    response = httpx.post(
        f"{service.otlp_url}/v1/traces",
        content=body,
        headers={"content-type": "application/json"},
        trust_env=False,
        timeout=30,
    )
    assert response.status_code == 200
    told: dict[str, Any] = response.json()["partialSuccess"]
    return told


def as_json(message: ExportTraceServiceRequest) -> bytes:
    """OTLP/JSON: ids in hex."""
    document = MessageToDict(message)
    originals = message.resource_spans[0].scope_spans[0].spans
    spans = document["resourceSpans"][0]["scopeSpans"][0]["spans"]
    for original, each in zip(originals, spans, strict=True):
        each.pop("status", None)
        each["traceId"], each["spanId"] = original.trace_id.hex(), original.span_id.hex()
        each["parentSpanId"] = original.parent_span_id.hex()
        if original.status.code:
            each["status"] = {"code": original.status.code}
    return json.dumps(document).encode()


def require_whole(service: RunningProcess, trace_id: bytes, spans: int) -> None:
    trace = service.get_trace(trace_id)
    refused = spans - 6
    assert len(trace["spans"]) == trace["span_count"] == spans
    assert trace["error_count"] == refused
    assert trace["input_tokens"] == 7 * refused


def send_mixed(service: RunningProcess, wire: str, trace_id: bytes) -> bytes:
    """Send a request of which three spans must be rejected, exactly; return its bytes."""
    message = mixed_request(trace_id)
    if wire == "json":
        body = as_json(message)
        in_json = post_json(service, body)
        rejected, told = int(in_json["rejectedSpans"]), in_json["errorMessage"]
    else:
        body = message.SerializeToString()
        partial = export(service, body, wire).partial_success
        rejected, told = partial.rejected_spans, partial.error_message
    assert rejected == 3
    assert TOLD in told
    return body


def test_what_the_database_refuses_is_kept_and_can_be_replayed(
    storage_url: str, tmp_path: Path
) -> None:
    traces = {wire: secrets.token_bytes(16) for wire in ("grpc", "http", "json")}
    with running("start", storage_url) as service:
        forbid_poison(storage_url)
        bodies = [send_mixed(service, wire, trace_id) for wire, trace_id in traces.items()]
        for trace_id in traces.values():
            require_whole(service, trace_id, 6)
        _require_metrics(service)

        listed = must_admin(storage_url, "list", "--json")
        assert [each["span_count"] for each in listed["dead_letters"]] == [2, 2, 2]
        assert listed["letter_count"] == 3
        must_admin(storage_url, "export", str(tmp_path / "out"))
        _require_exported(tmp_path / "out", listed, bodies)

        again = admin(storage_url, "replay", "--all")
        assert again.returncode == 1
        assert "3 dead letters refused again, and kept" in again.stderr

        allow_poison(storage_url)
        assert "6 spans stored" in must_admin(storage_url, "replay", "--all")
        for trace_id in traces.values():
            require_whole(service, trace_id, 8)
        assert must_admin(storage_url, "list") == "No dead letters.\n"

    assert service.stderr.count("dead_letter_kept") == 3
    assert SECRET not in service.stderr
    assert "Traceback" not in service.stderr


def _require_metrics(service: RunningProcess) -> None:
    url = service.otlp_url
    assert value(url, "spans_received_total") == 27
    assert value(url, "spans_accepted_total") == value(url, "spans_stored_total") == 18
    assert value(url, "spans_rejected_total", reason="kept_as_dead_letter") == 6
    assert value(url, "spans_rejected_total", reason="invalid_span_id") == 3
    assert value(url, "spans_refused_total") == 0
    assert value(url, "dead_letter_spans_total", reason="data_refused") == 6
    wait_until(lambda: value(url, "dead_letters") == 3, "the gauge")
    assert 0 < value(url, "dead_letter_bytes") < value(url, "dead_letter_limit_bytes")


def _require_exported(folder: Path, listed: dict[str, Any], bodies: list[bytes]) -> None:
    files = sorted(folder.iterdir())
    suffixes = {"protobuf": "binpb", "json": "json"}
    assert {path.name for path in files} == {
        f"{each['id']}.{suffixes[each['encoding']]}" for each in listed["dead_letters"]
    }
    assert sorted(path.read_bytes() for path in files) == sorted(bodies)
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}


def test_one_bad_span_in_a_large_request_costs_no_other(storage_url: str) -> None:
    trace_id = secrets.token_bytes(16)
    long = {"prompt": SECRET * 300}
    spans = [
        span(
            POISON if n == 70 else f"{n}", trace_id=trace_id, start_ns=NOON_NS + n, attributes=long
        )
        for n in range(150)
    ]
    body = request(*spans).SerializeToString()
    assert len(body) > 1024 * 1024
    with running("start", storage_url) as service, poison_forbidden(storage_url):
        partial = export(service, body, "grpc").partial_success
        assert partial.rejected_spans == 1
        assert service.get_trace(trace_id)["span_count"] == 149
        [letter] = must_admin(storage_url, "list", "--json")["dead_letters"]

    assert letter["payload_bytes"] < len(body)
    shown = must_admin(storage_url, "show", letter["id"], "--json")
    refused = [{"trace_id": trace_id.hex(), "span_id": spans[70].span_id.hex()}]
    assert shown["spans"] == refused
