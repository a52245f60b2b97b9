"""Requests that real programs have sent come back from the API message by message."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable

import pytest

from tests.end_to_end.captured import CAPTURED, FIXTURES, read, stored_spans
from tests.end_to_end.processes import RunningProcess
from tests.end_to_end.rebuild import sent_spans
from tests.end_to_end.senders import call_grpc, post

COMPRESS: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "deflate": zlib.compress}


def send(service: RunningProcess, name: str, body: bytes) -> bytes:
    """Send a captured body as its program did; return the body of the success response."""
    about = CAPTURED[name]
    if about["transport"] == "grpc":
        return call_grpc(service.grpc_target, body, method=about["path"])
    headers = {"user-agent": about["headers"]["user-agent"]}
    if coding := about["headers"].get("content-encoding"):
        body, headers = COMPRESS[coding](body), headers | {"content-encoding": coding}
    response = post(f"{service.otlp_url}{about['path']}", body, **headers)
    assert response.status_code == 200, response.content
    return response.content


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
