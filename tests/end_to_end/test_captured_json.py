"""The captured requests sent as OTLP/JSON come back as the protobuf ones do."""

from __future__ import annotations

import gzip

import pytest

from tests.end_to_end.captured import CAPTURED, read, read_json, stored_spans
from tests.end_to_end.processes import RunningProcess
from tests.end_to_end.rebuild import sent_spans
from tests.end_to_end.senders import export, post


def post_json(service: RunningProcess, name: str) -> None:
    response = post(
        f"{service.otlp_url}/v1/traces",
        gzip.compress(read_json(name)),
        content_type="application/json",
        content_encoding="gzip",
    )
    assert (response.status_code, response.content) == (200, b"{}")
    assert response.headers["content-type"] == "application/json"


@pytest.mark.parametrize("name", CAPTURED)
def test_a_captured_request_in_json_comes_back_complete(service: RunningProcess, name: str) -> None:
    post_json(service, name)

    sent = sent_spans(read(name)[1])
    stored = stored_spans(service, sent)
    assert stored.keys() == sent.keys()
    for key, span in sent.items():
        assert stored[key] == span


def test_json_and_protobuf_of_one_request_are_stored_once(service: RunningProcess) -> None:
    for name in CAPTURED:
        post_json(service, name)
    before = service.get("/api/v1/stats")

    for name in CAPTURED:
        export(service, read(name)[0], "grpc")

    assert service.get("/api/v1/stats") == before
