"""Send export requests as bytes over each transport in each encoding, and read the exact answer.

Each answer is checked for what every answer owes: its Content-Type is the request's, an error is a
google.rpc.Status, an immediate gRPC error carries the same Status in its trailing metadata.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from typing import Any

import grpc
from google.protobuf import json_format
from google.rpc.error_details_pb2 import BadRequest, RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from tests.conformance.collectors import TIMEOUT_S, Collector
from tests.conformance.json_encoder import to_json

TRACES_PATH = "/v1/traces"
EXPORT_METHOD = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"

MAX_MESSAGE_CHARS = 1_000
"""What a person reads, far below the 4 MiB that a response may have."""

RETRYABLE = {
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.OUT_OF_RANGE,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DATA_LOSS,
}
"""Codes that senders retry, always; RESOURCE_EXHAUSTED only with RetryInfo."""


@dataclass(frozen=True, kw_only=True)
class HttpReply:
    """One HTTP response; header names are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """A request that was refused as a whole. http_status is 0 over gRPC."""

    code: grpc.StatusCode
    http_status: int
    status: Status
    headers: Mapping[str, Any]

    @property
    def retry_delay_s(self) -> float | None:
        """What RetryInfo in the status details says."""
        for detail in self.status.details:
            if detail.Is(RetryInfo.DESCRIPTOR):
                found = RetryInfo.FromString(detail.value)
                return float(found.retry_delay.seconds + found.retry_delay.nanos / 1e9)
        return None

    @property
    def violations(self) -> list[str]:
        """What BadRequest in the status details says."""
        return [
            violation.description
            for detail in self.status.details
            if detail.Is(BadRequest.DESCRIPTOR)
            for violation in BadRequest.FromString(detail.value).field_violations
        ]


Outcome = ExportTraceServiceResponse | Refusal


@dataclass(frozen=True, kw_only=True)
class Wire:
    """One transport with one encoding."""

    name: str
    transport: str
    media_type: str = "application/grpc"

    @property
    def is_json(self) -> bool:
        return self.media_type == "application/json"

    def encode(self, request: ExportTraceServiceRequest) -> bytes:
        return to_json(request) if self.is_json else request.SerializeToString()

    def send(self, collector: Collector, body: bytes, coding: str = "") -> Outcome:
        """Send a body that is compressed already, except over gRPC, which compresses by itself."""
        if self.transport == "grpc":
            return _call(collector, body, coding)
        headers = {"Content-Type": self.media_type} | (
            {"Content-Encoding": coding} if coding else {}
        )
        reply = http(collector, TRACES_PATH, body, headers)
        return read_outcome(reply, self.media_type)

    def export(self, collector: Collector, request: ExportTraceServiceRequest) -> Outcome:
        return self.send(collector, self.encode(request))

    def accept(
        self, collector: Collector, request: ExportTraceServiceRequest
    ) -> ExportTraceServiceResponse:
        """Send a request that must be accepted."""
        outcome = self.export(collector, request)
        assert isinstance(outcome, ExportTraceServiceResponse), outcome
        return outcome

    def refuse(self, collector: Collector, body: bytes, coding: str = "") -> Refusal:
        """Send a body that must be refused."""
        outcome = self.send(collector, body, coding)
        assert isinstance(outcome, Refusal), outcome
        return outcome


GRPC = Wire(name="grpc/protobuf", transport="grpc")
PROTOBUF = Wire(name="http/protobuf", transport="http", media_type="application/x-protobuf")
JSON = Wire(name="http/json", transport="http", media_type="application/json")
WIRES = [GRPC, PROTOBUF, JSON]


def http(
    collector: Collector,
    path: str,
    body: bytes | Iterable[bytes] | None,
    headers: Mapping[str, str],
    *,
    method: str = "POST",
) -> HttpReply:
    """One request on a connection of its own; chunked unless the body is bytes."""
    with contextlib.closing(connect(collector)) as connection:
        return ask(connection, path, body, headers, method=method)


def connect(collector: Collector) -> HTTPConnection:
    host, port = collector.address("http")
    kind = HTTPSConnection if collector.http_url.startswith("https:") else HTTPConnection
    return kind(host, port, timeout=TIMEOUT_S)


def ask(
    connection: HTTPConnection,
    path: str,
    body: bytes | Iterable[bytes] | None,
    headers: Mapping[str, str],
    *,
    method: str = "POST",
) -> HttpReply:
    """One request on an open connection."""
    is_chunked = not (body is None or isinstance(body, bytes))
    given = dict(headers) | ({"Transfer-Encoding": "chunked"} if is_chunked else {})
    connection.request(method, path, body=body, headers=given, encode_chunked=is_chunked)
    return read_reply(connection.getresponse())


def read_reply(response: HTTPResponse) -> HttpReply:
    body = response.read()
    headers = {name.lower(): value for name, value in response.getheaders()}
    return HttpReply(status=response.status, headers=headers, body=body)


def read_outcome(reply: HttpReply, media_type: str) -> Outcome:
    """What a reply to an export says. Fails unless it is in `media_type`."""
    assert reply.headers["content-type"] == media_type
    assert 200 <= reply.status < 600
    assert not 300 <= reply.status < 400, "a redirect loses data"
    is_json = media_type == "application/json"
    if reply.status == 200:
        return _read_json_response(reply.body) if is_json else _read_response(reply.body)
    status = json_format.Parse(reply.body, Status()) if is_json else Status.FromString(reply.body)
    return Refusal(
        code=_grpc_code(status.code),
        http_status=reply.status,
        status=_checked(status),
        headers=reply.headers,
    )


def _read_response(body: bytes) -> ExportTraceServiceResponse:
    response = ExportTraceServiceResponse.FromString(body)
    assert response.SerializeToString() == body, "nothing else is in it"
    return response


def _read_json_response(body: bytes) -> ExportTraceServiceResponse:
    content = json.loads(body)
    assert content.keys() <= {"partialSuccess"}
    if "partialSuccess" in content:
        assert content["partialSuccess"].keys() <= {"rejectedSpans", "errorMessage"}
        # A 64-bit integer: text, so that JavaScript does not round it.
        assert isinstance(content["partialSuccess"].get("rejectedSpans", ""), str)
    return json_format.ParseDict(content, ExportTraceServiceResponse())


def _call(collector: Collector, body: bytes, coding: str) -> Outcome:
    host, port = collector.address("grpc")
    with grpc.insecure_channel(f"{host}:{port}", options=CHANNEL_OPTIONS) as channel:
        method: Any = channel.unary_unary(EXPORT_METHOD)
        try:
            return _read_response(
                method(body, timeout=TIMEOUT_S, compression=_COMPRESSIONS[coding])
            )
        except grpc.RpcError as error:
            return read_grpc_error(error)


def read_grpc_error(error: Any) -> Refusal:
    """What a failed call says."""
    trailers = dict(error.trailing_metadata())
    details = trailers.get("grpc-status-details-bin")
    if details is None:  # from gRPC itself
        status = Status(code=error.code().value[0], message=error.details() or "-")
    else:
        status = Status.FromString(details)
        assert (_grpc_code(status.code), status.message) == (error.code(), error.details())
    return Refusal(code=error.code(), http_status=0, status=_checked(status), headers=trailers)


CHANNEL_OPTIONS = [("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1)]

_COMPRESSIONS = {
    "": None,
    "gzip": grpc.Compression.Gzip,
    "deflate": grpc.Compression.Deflate,
}


def _grpc_code(number: int) -> grpc.StatusCode:
    return next(code for code in grpc.StatusCode if code.value[0] == number)


def _checked(status: Status) -> Status:
    """A developer finds a sentence in it, and a client no reason to give up reading."""
    assert status.code != 0
    assert 0 < len(status.message) < MAX_MESSAGE_CHARS
    assert "Traceback" not in status.message
    return status
