"""Send export requests as bytes over both wires, as no SDK would have to."""

from __future__ import annotations

from typing import Any

import grpc
import httpx
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from tests.end_to_end.processes import RunningProcess

EXPORT_METHOD = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
PROTOBUF = {"content-type": "application/x-protobuf"}

TIMEOUT_S = 30.0


def call_grpc(
    target: str,
    body: bytes,
    *,
    method: str = EXPORT_METHOD,
    compression: grpc.Compression | None = None,
) -> bytes:
    """The bytes of the response. Raises grpc.RpcError."""
    with grpc.insecure_channel(target, options=[("grpc.enable_http_proxy", 0)]) as channel:
        call: Any = channel.unary_unary(method)
        reply: bytes = call(body, timeout=TIMEOUT_S, compression=compression)
    return reply


def post(url: str, body: Any, **headers: str) -> httpx.Response:
    """POST `body` as protobuf; an iterator of bytes is sent in chunks. Headers with _ for -."""
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.post(
        url,
        content=body,
        headers=PROTOBUF | given,
        trust_env=False,
        verify=False,
        timeout=TIMEOUT_S,
    )


def export(service: RunningProcess, body: bytes, wire: str = "http") -> ExportTraceServiceResponse:
    """Send a request that must be taken; return the decoded response."""
    if wire == "grpc":
        return ExportTraceServiceResponse.FromString(call_grpc(service.grpc_target, body))
    response = post(f"{service.otlp_url}/v1/traces", body)
    assert response.status_code == 200, response.content
    assert response.headers["content-type"] == "application/x-protobuf"
    return ExportTraceServiceResponse.FromString(response.content)
