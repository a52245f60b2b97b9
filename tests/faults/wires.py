"""Connections of senders: one request at a time, and every answer there may be."""

from __future__ import annotations

import http.client
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from tests.end_to_end.processes import Ports
from tests.end_to_end.senders import EXPORT_METHOD, PROTOBUF

_RETRYABLE_HTTP = (429, 502, 503, 504)
_RETRYABLE_GRPC = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.ABORTED,
)
_CHANNEL_OPTIONS = [
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 300),
]

REFUSED, CONNECTION, DEADLINE, WRONG = "refused", "connection", "deadline", "wrong"
Answer = str | None
"""Why a request was not acknowledged; None if it was."""


class Wire:
    """One connection to one collector."""

    def export(self, body: bytes, timeout_s: float) -> Answer:
        """Send the request once."""
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


class HttpWire(Wire):
    """A connection that is made anew after any trouble."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._connection: http.client.HTTPConnection | None = None

    def export(self, body: bytes, timeout_s: float) -> Answer:
        try:
            status, headers, content = self._post(body, timeout_s)
        except TimeoutError:
            self.close()
            return DEADLINE
        except (OSError, http.client.HTTPException) as error:
            self.close()
            return f"{CONNECTION}: {error}"
        if status == 200:
            return _rejection(content)
        if status in _RETRYABLE_HTTP and headers.get("retry-after"):
            return REFUSED
        return f"{WRONG}: HTTP {status} {content[:200]!r}"

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _post(self, body: bytes, timeout_s: float) -> tuple[int, Any, bytes]:
        if self._connection is None:
            self._connection = http.client.HTTPConnection("127.0.0.1", self._port)
        self._connection.timeout = timeout_s
        if self._connection.sock is not None:
            self._connection.sock.settimeout(timeout_s)
        self._connection.request("POST", "/v1/traces", body, PROTOBUF)
        response = self._connection.getresponse()
        content = response.read()
        if response.will_close:
            self.close()
        return response.status, response.headers, content


class GrpcWire(Wire):
    """A channel, which connects again by itself."""

    def __init__(self, port: int) -> None:
        self._channel = grpc.insecure_channel(f"127.0.0.1:{port}", options=_CHANNEL_OPTIONS)
        self._call: Any = self._channel.unary_unary(EXPORT_METHOD)

    def export(self, body: bytes, timeout_s: float) -> Answer:
        try:
            return _rejection(self._call(body, timeout=timeout_s))
        except grpc.RpcError as error:
            code, details = error.code(), error.details() or ""
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return DEADLINE
        if code in _RETRYABLE_GRPC:
            return REFUSED
        return f"{WRONG}: {code} {details[:200]}"

    def close(self) -> None:
        self._channel.close()


def wire_to(ports: Ports, *, is_http: bool) -> Wire:
    """A connection to the collector on these ports, made when first needed."""
    return HttpWire(ports.http) if is_http else GrpcWire(ports.grpc)


def _rejection(content: bytes) -> Answer:
    response = ExportTraceServiceResponse.FromString(content)
    if response.partial_success.rejected_spans:
        return f"{WRONG}: {response.partial_success.error_message}"
    return None
