"""What a sender hears: success, refusal for good, or to come back later; never two of them."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import grpc
import pytest
from grpc import StatusCode
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from tests.batches import request, span
from tests.conformance.collectors import Collector
from tests.conformance.raw import Http2Connection, head, opened
from tests.conformance.wires import (
    EXPORT_METHOD,
    GRPC,
    JSON,
    PROTOBUF,
    RETRYABLE,
    Refusal,
    Wire,
    connect,
    http,
    read_outcome,
)
from tests.end_to_end.processes import wait_until

HTTP_WIRES = pytest.mark.parametrize("wire", [PROTOBUF, JSON], ids=lambda wire: wire.name)

BAD = b"\xff{"
"""No request in any encoding."""

TRUNCATED = b"\x0a\x05\x0a"


def test_row_34_success_is_an_empty_response(collector: Collector, trace_id: bytes) -> None:
    export = request(span(trace_id=trace_id))

    for wire, body in ((PROTOBUF, b""), (JSON, b"{}")):
        reply = http(
            collector, "/v1/traces", wire.encode(export), {"Content-Type": wire.media_type}
        )
        assert (reply.status, reply.body) == (200, body)
    with opened(collector, "grpc") as connection:
        answer = Http2Connection(connection).call(export.SerializeToString())
    assert (answer.headers[":status"], answer.headers["content-type"]) == (
        "200",
        "application/grpc",
    )
    assert (answer.data, answer.trailers["grpc-status"]) == (bytes(5), "0")


@HTTP_WIRES
def test_row_38_every_error_is_a_status_in_the_encoding_of_the_request(
    collector: Collector, wire: Wire
) -> None:
    good = wire.encode(request())
    asked = [
        ("POST", "/v1/traces", BAD, {}),
        ("POST", "/v1/traces", BAD, {"Content-Encoding": "gzip"}),
        ("POST", "/v1/traces", good, {"Content-Encoding": "br"}),
        ("POST", "/v1/traces/", good, {}),
        ("POST", "/v1/metrics", b"", {}),
        ("GET", "/v1/traces", None, {}),
        ("DELETE", "/", None, {}),
    ]
    for method, path, body, headers in asked:
        typed = {"Content-Type": wire.media_type} | headers
        reply = http(collector, path, body, typed, method=method)
        assert 400 <= reply.status < 500
        assert isinstance(read_outcome(reply, wire.media_type), Refusal)


def test_row_38_an_answer_without_body_to_head(collector: Collector) -> None:
    with closing(connect(collector)) as connection:
        connection.request("HEAD", "/v1/traces")
        response = connection.getresponse()
        assert (response.status, response.read()) == (405, b"")
        connection.request("POST", "/v1/traces", b"{}", {"Content-Type": "application/json"})
        assert connection.getresponse().read() == b"{}"


@pytest.mark.parametrize("body", [BAD, TRUNCATED, b"\xff" * 1000], ids=["bad", "short", "long"])
def test_row_39_bad_data_is_refused_for_good_and_described(
    collector: Collector, wire: Wire, body: bytes
) -> None:
    refusal = wire.refuse(collector, body)

    assert refusal.code is StatusCode.INVALID_ARGUMENT
    assert refusal.http_status in (0, 400)
    assert refusal.violations == [refusal.status.message]
    assert refusal.retry_delay_s is None
    assert not {"retry-after", "google.rpc.retryinfo-bin"} & refusal.headers.keys()


def test_row_39_and_row_40_no_bytes_make_a_fault_or_a_retry(
    collector: Collector, wire: Wire, trace_id: bytes
) -> None:
    """Damaged requests: accepted, in part too, or refused as bad data, and nothing else."""
    chance = random.Random(1)
    good = bytearray(wire.encode(request(*(span(f"{n}", trace_id=trace_id) for n in range(3)))))
    for _ in range(150):
        body = bytearray(good)
        for _ in range(chance.randint(1, 4)):
            body[chance.randrange(len(body))] = chance.randrange(256)
        outcome = wire.send(collector, bytes(body[: chance.randint(0, len(body))]))
        if isinstance(outcome, Refusal):
            assert outcome.code is StatusCode.INVALID_ARGUMENT
            assert outcome.http_status in (0, 400)


@contextmanager
def under_way(collector: Collector) -> Iterator[socket.socket]:
    """A request of which all but the last bytes were sent; it takes what the others may have."""
    with opened(collector) as connection:
        connection.sendall(head("Content-Type: application/json", "Content-Length: 20") + b"{ ")
        wait_until(lambda: is_busy(collector), "the request to be read")
        yield connection


def is_busy(collector: Collector) -> bool:
    return isinstance(JSON.export(collector, request()), Refusal)


def test_row_30_row_41_row_42_overload_is_said_at_once_with_a_short_delay(
    busy: Collector, wire: Wire, trace_id: bytes
) -> None:
    export = request(span(trace_id=trace_id))
    with under_way(busy) as connection:
        refusal = wire.export(busy, export)  # while the other one is still under way
        connection.sendall(b"}".ljust(18))
        assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")

    assert isinstance(refusal, Refusal)
    assert refusal.code is StatusCode.UNAVAILABLE
    assert refusal.retry_delay_s == 1
    if wire is GRPC:
        # Where OpenTelemetry's Python exporter looks for it.
        assert "google.rpc.retryinfo-bin" in refusal.headers
    else:
        assert (refusal.http_status, refusal.headers["retry-after"]) == (503, "1")
    busy.stores(request(), trace_id)

    assert wire.accept(busy, export) == ExportTraceServiceResponse()
    busy.stores(export)


def test_row_30_a_client_that_leaves_gives_back_what_it_took(busy: Collector, wire: Wire) -> None:
    with under_way(busy):
        assert isinstance(wire.export(busy, request()), Refusal)
    wait_until(lambda: not is_busy(busy), "the connection to be missed")

    assert wire.accept(busy, request()) == ExportTraceServiceResponse()


@pytest.mark.parametrize("body", [BAD, b"\xff" * 1000], ids=["bad", "long"])
def test_row_44_an_error_over_grpc_is_trailers_only(collector: Collector, body: bytes) -> None:
    with opened(collector, "grpc") as connection:
        answer = Http2Connection(connection).call(body)

    assert answer.is_trailers_only
    assert answer.headers[":status"] == "200"
    assert answer.headers["grpc-status"] == str(StatusCode.INVALID_ARGUMENT.value[0])
    assert answer.headers["grpc-message"]
    assert "grpc-status-details-bin" in answer.headers


def test_row_44_overload_over_grpc_is_trailers_only(busy: Collector) -> None:
    with under_way(busy), opened(busy, "grpc") as connection:
        answer = Http2Connection(connection).call(request().SerializeToString())

    assert answer.is_trailers_only
    assert answer.headers["grpc-status"] == str(StatusCode.UNAVAILABLE.value[0])
    assert "google.rpc.retryinfo-bin" in answer.headers


def test_row_40_and_row_43_no_refusal_invites_a_retry_that_cannot_help(
    collector: Collector, limited: Collector
) -> None:
    refusals = [
        GRPC.refuse(collector, BAD),
        GRPC.refuse(limited, bytes(100 * 1024)),
        *(wire.refuse(collector, BAD) for wire in (PROTOBUF, JSON)),
        *(wire.refuse(collector, b"", "br") for wire in (PROTOBUF, JSON)),
    ]

    for refusal in refusals:
        assert refusal.code not in {*RETRYABLE, StatusCode.INTERNAL, StatusCode.UNKNOWN}
        assert refusal.retry_delay_s is None
        assert refusal.http_status not in (429, 500, 502, 503, 504)


def test_row_48_a_deadline_that_passes_harms_nobody(collector: Collector, trace_id: bytes) -> None:
    host, port = collector.address("grpc")
    export = request(*(span(f"{n}", trace_id=trace_id) for n in range(2000)))
    body = export.SerializeToString()
    with grpc.insecure_channel(
        f"{host}:{port}", options=[("grpc.enable_http_proxy", 0)]
    ) as channel:
        method: Any = channel.unary_unary(EXPORT_METHOD)
        codes = set()
        for timeout_s in (0.001, 0.005, 0.02, 0.05):
            try:
                method(body, timeout=timeout_s)
            except grpc.RpcError as error:
                codes.add(error.code())
        call = method.future(body)
        call.cancel()
        assert codes <= {StatusCode.DEADLINE_EXCEEDED}
        assert method(body, timeout=20) == b""

    collector.stores(export)


@HTTP_WIRES
def test_row_48_a_client_that_leaves_in_the_midst_of_a_body_harms_nobody(
    collector: Collector, wire: Wire, trace_id: bytes
) -> None:
    export = request(span(trace_id=trace_id))
    body = wire.encode(export)
    for size in (0, len(body) // 2, len(body) - 1):
        with opened(collector) as connection:
            connection.sendall(
                head(f"Content-Type: {wire.media_type}", f"Content-Length: {len(body)}")
                + body[:size]
            )
    collector.stores(request(), trace_id)

    assert wire.accept(collector, export) == ExportTraceServiceResponse()
    collector.stores(export)


SIGNALS = {"metrics": "v1", "logs": "v1", "profiles": "v1development"}


def other_method(signal: str) -> str:
    version = SIGNALS[signal]
    service = f"opentelemetry.proto.collector.{signal}.{version}.{signal.capitalize()}Service"
    return f"/{service}/Export"


@pytest.mark.parametrize("signal", SIGNALS)
@HTTP_WIRES
def test_another_signal_over_http_is_refused_for_good(
    collector: Collector, wire: Wire, signal: str
) -> None:
    path = f"/{SIGNALS[signal]}/{signal}"

    reply = http(collector, path, wire.encode(request()), {"Content-Type": wire.media_type})

    assert reply.status == 404
    refusal = read_outcome(reply, wire.media_type)
    assert isinstance(refusal, Refusal)
    assert f"OTEL_{signal.upper()}_EXPORTER=none" in refusal.status.message


@pytest.mark.parametrize("signal", SIGNALS)
def test_another_signal_over_grpc_is_refused_for_good(collector: Collector, signal: str) -> None:
    with opened(collector, "grpc") as connection:
        answer = Http2Connection(connection).call(b"", method=other_method(signal))

    assert answer.headers["grpc-status"] == str(StatusCode.UNIMPLEMENTED.value[0])
    assert f"OTEL_{signal.upper()}_EXPORTER=none" in answer.headers["grpc-message"]


def test_another_signal_may_be_discarded_and_counted(limited: Collector) -> None:
    body = b'{"resourceLogs":[{"scopeLogs":[{"logRecords":[{},{"severityNumber":9}]}]}]}'

    reply = http(limited, "/v1/logs", body, {"Content-Type": "application/json"})

    assert reply.status == 200
    assert b'"rejectedLogRecords":"2"' in reply.body
    assert b"OTEL_LOGS_EXPORTER=none" in reply.body
