"""Where the requests of a case come from: the exporter itself, or the bytes that it once sent.

Live where the language's toolchain is at hand, captured everywhere. A live test without its
toolchain is skipped, with the reason, and never passes: the captured one of the same case has run.
"""

from __future__ import annotations

import gzip
import json
import secrets
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from tests.end_to_end.processes import RunningProcess
from tests.end_to_end.senders import call_grpc, post
from tests.exporters.capture import FOLDER, MANIFEST, file_name
from tests.exporters.scenario import Sent
from tests.exporters.senders import BUILD_TIMEOUT_S, DOWNLOAD_TIMEOUT_S, Case, Sender, Senders
from tests.exporters.senders import Unavailable as ToolchainUnavailable

CAPTURED: dict[str, Any] = json.loads(MANIFEST.read_text())

LIVE_TIMEOUT = pytest.mark.timeout(DOWNLOAD_TIMEOUT_S + BUILD_TIMEOUT_S + 60)
"""The first test of a language builds its sender."""

_CHUNK_BYTES = 1000


def sender_of(case: Case, senders: Senders) -> Sender:
    """The sender; skips the test where there is none."""
    try:
        return senders.get(case.language)
    except ToolchainUnavailable as error:
        pytest.skip(f"no live {case.language}, its captured requests stand in: {error}")


def endpoint(case: Case, service: RunningProcess) -> str:
    """The URL that a sender is given."""
    return f"http://{service.grpc_target}" if case.is_grpc else f"{service.otlp_url}/v1/traces"


def send_live(case: Case, senders: Senders, service: RunningProcess) -> Sent:
    """Let the exporter send."""
    sender = sender_of(case, senders)
    service_name, remote_trace_id = f"live-{case}", secrets.token_hex(16)
    report = sender.run(
        *(case, "every-field", endpoint(case, service)),
        service_name=service_name,
        remote_trace_id=remote_trace_id,
    )
    assert report.is_success, report.error
    return Sent(
        language=case.language,
        wire=case.wire,
        service_name=service_name,
        remote_trace_id=remote_trace_id,
        ids=report.spans,
    )


def replay(case: Case, service: RunningProcess) -> Sent:
    """Send what the exporter has sent, with its headers."""
    about = CAPTURED[file_name(case)]
    body = (FOLDER / file_name(case)).read_bytes()
    if case.is_grpc:
        compression = grpc.Compression.Gzip if case.compression == "gzip" else None
        target = service.grpc_target
        assert call_grpc(target, body, method=about["path"], compression=compression) == b""
    else:
        _replay_http(service, about, body)
    return Sent(
        language=case.language,
        wire=case.wire,
        service_name=about["service_name"],
        remote_trace_id=about["remote_trace_id"],
        ids=about["spans"],
    )


def _replay_http(service: RunningProcess, about: dict[str, Any], body: bytes) -> None:
    headers = dict(about["headers"])
    is_chunked = headers.pop("transfer-encoding", None) == "chunked"
    assert (headers.get("content-encoding") == "gzip") == body.startswith(gzip.compress(b"")[:2])
    content = _chunks(body) if is_chunked else body
    response = post(f"{service.otlp_url}{about['path']}", content, **headers)
    assert response.status_code == 200, response.content
    is_json = headers["content-type"] == "application/json"
    assert response.content == (b"{}" if is_json else b"")
    assert response.headers["content-type"] == headers["content-type"]


def _chunks(body: bytes) -> Iterator[bytes]:
    for start in range(0, len(body), _CHUNK_BYTES):
        yield body[start : start + _CHUNK_BYTES]
