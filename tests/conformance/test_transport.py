"""Paths, methods, media types, and HTTP as it is spoken on the two ports."""

from __future__ import annotations

import gzip
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import grpc
import pytest
from grpc import StatusCode
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from msgtrace.settings.table import Settings
from tests.batches import request, span
from tests.conformance.collectors import Collector
from tests.conformance.conftest import ALLOWED_ORIGIN
from tests.conformance.raw import Http2Connection, head, opened, read_to_end, replies
from tests.conformance.wires import (
    EXPORT_METHOD,
    GRPC,
    JSON,
    PROTOBUF,
    Refusal,
    Wire,
    ask,
    connect,
    http,
    read_outcome,
)

HTTP_WIRES = pytest.mark.parametrize("wire", [PROTOBUF, JSON], ids=lambda wire: wire.name)

AT_ONCE_S = 5.0
"""Far below the time-outs of clients."""

BAD = b"\xff{"
"""No request in any encoding."""

UPGRADE_TO_HTTP2 = (
    "Connection: Upgrade, HTTP2-Settings",
    "Upgrade: h2c",
    "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA",
)


def typed(wire: Wire) -> dict[str, str]:
    return {"Content-Type": wire.media_type}


def chunks(body: bytes, size: int = 7) -> Iterator[bytes]:
    for start in range(0, len(body), size):
        yield body[start : start + size]


def test_row_01_grpc_export(collector: Collector, trace_id: bytes) -> None:
    export = request(span(trace_id=trace_id))

    assert GRPC.accept(collector, export) == ExportTraceServiceResponse()

    collector.stores(export)


def test_row_01_and_row_02_default_ports() -> None:
    assert (Settings().grpc_port, Settings().http_port) == (4317, 4318)


@pytest.mark.parametrize("messages", [0, 2])
def test_row_01_a_call_has_just_one_message(
    collector: Collector, trace_id: bytes, messages: int
) -> None:
    body = request(span(trace_id=trace_id)).SerializeToString()
    with opened(collector, "grpc") as connection:
        answer = Http2Connection(connection).call(body, messages=messages)

    assert answer.headers["grpc-status"] == str(StatusCode.UNIMPLEMENTED.value[0])
    collector.stores(request(), trace_id)


@HTTP_WIRES
@pytest.mark.parametrize("path", ["/v1/traces", "/", "/api/v1/traces/export"])
def test_row_02_paths_that_senders_use(
    collector: Collector, wire: Wire, path: str, trace_id: bytes
) -> None:
    export = request(span(trace_id=trace_id))

    reply = http(collector, path, wire.encode(export), typed(wire))

    assert reply.status == 200
    assert read_outcome(reply, wire.media_type) == ExportTraceServiceResponse()
    collector.stores(export)


def test_row_03_both_encodings_on_one_connection(collector: Collector, trace_id: bytes) -> None:
    export = request(span("a", trace_id=trace_id), span("b", trace_id=trace_id))

    with closing(connect(collector)) as connection:
        for wire, made in zip((PROTOBUF, JSON), ("a", "b"), strict=True):
            part = request(span(made, trace_id=trace_id))
            reply = ask(connection, "/v1/traces", wire.encode(part), typed(wire))
            assert read_outcome(reply, wire.media_type) == ExportTraceServiceResponse()

    collector.stores(export)


@HTTP_WIRES
def test_row_04_every_answer_is_in_the_encoding_of_the_request(
    collector: Collector, wire: Wire
) -> None:
    good = wire.encode(request())
    asked = {
        200: ("POST", "/v1/traces", good, {}),
        400: ("POST", "/v1/traces", BAD, {}),
        404: ("POST", "/v1/nothing", good, {}),
        405: ("PUT", "/v1/traces", good, {}),
        415: ("POST", "/v1/traces", good, {"Content-Encoding": "br"}),
    }
    for status, (method, path, body, headers) in asked.items():
        reply = http(collector, path, body, typed(wire) | headers, method=method)
        assert reply.status == status
        outcome = read_outcome(reply, wire.media_type)
        assert isinstance(outcome, Refusal) == (status != 200)


@HTTP_WIRES
@pytest.mark.parametrize(
    "form", ["{0}; charset=utf-8", "{0};charset=UTF-8;a=b", "{0} ; q=1", "{1}", " {0} "]
)
def test_row_05_content_type_in_any_case_and_with_parameters(
    collector: Collector, wire: Wire, form: str, trace_id: bytes
) -> None:
    export = request(span(trace_id=trace_id))
    content_type = form.format(wire.media_type, wire.media_type.upper())

    reply = http(collector, "/v1/traces", wire.encode(export), {"Content-Type": content_type})

    assert read_outcome(reply, wire.media_type) == ExportTraceServiceResponse()
    collector.stores(export)


@pytest.mark.parametrize(
    "content_type",
    ["", "text/plain", "invalid", "application/protobuf", "application/jsonl", "application/grpc"],
)
@pytest.mark.parametrize("body", [b"1234", b"{}", b""])
def test_row_06_missing_or_other_content_type_is_415(
    collector: Collector, content_type: str, body: bytes
) -> None:
    headers = {"Content-Type": content_type} if content_type else {}

    reply = http(collector, "/v1/traces", body, headers)

    assert reply.status == 415
    refusal = read_outcome(reply, "application/json")  # readable, for want of a type to answer in
    assert isinstance(refusal, Refusal)
    assert "application/x-protobuf" in refusal.status.message


@HTTP_WIRES
@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "TRACE"])
def test_row_07_another_method_is_405_and_the_right_one_is_named(
    collector: Collector, wire: Wire, method: str
) -> None:
    reply = http(collector, "/v1/traces", None, typed(wire), method=method)

    assert reply.status == 405
    assert reply.headers["allow"] == "POST"
    assert isinstance(read_outcome(reply, wire.media_type), Refusal)


@HTTP_WIRES
@pytest.mark.parametrize("path", ["/v1/trace", "/v2/traces", "/v1/traces/export", "/V1/TRACES"])
def test_row_07_an_unknown_path_is_404(collector: Collector, wire: Wire, path: str) -> None:
    reply = http(collector, path, wire.encode(request()), typed(wire))

    assert reply.status == 404
    refusal = read_outcome(reply, wire.media_type)
    assert isinstance(refusal, Refusal)
    assert "/v1/traces" in refusal.status.message


@HTTP_WIRES
@pytest.mark.parametrize("is_gzip", [False, True], ids=["plain", "gzip"])
def test_row_08_chunked_bodies(
    collector: Collector, wire: Wire, is_gzip: bool, trace_id: bytes
) -> None:
    export = request(span(trace_id=trace_id))
    body = wire.encode(export)
    headers = typed(wire)
    if is_gzip:
        body, headers = gzip.compress(body), headers | {"Content-Encoding": "gzip"}

    reply = http(collector, "/v1/traces", chunks(body), headers)

    assert read_outcome(reply, wire.media_type) == ExportTraceServiceResponse()
    collector.stores(export)


def test_row_08_chunk_extensions_and_trailers(collector: Collector, trace_id: bytes) -> None:
    export = request(span(trace_id=trace_id))
    body = PROTOBUF.encode(export)
    with opened(collector) as connection:
        connection.sendall(
            head("Content-Type: application/x-protobuf", "Transfer-Encoding: chunked")
            + b"%x;name=value\r\n%b\r\n0\r\nX-Trailer: 1\r\n\r\n" % (len(body), body)
        )
        [reply] = replies(connection, 1)

    assert read_outcome(reply, PROTOBUF.media_type) == ExportTraceServiceResponse()
    collector.stores(export)


@HTTP_WIRES
def test_row_09_a_connection_is_kept_for_the_next_request(collector: Collector, wire: Wire) -> None:
    with closing(connect(collector)) as connection:
        connection.connect()
        kept = connection.sock
        for body in (wire.encode(request()), BAD, wire.encode(request())):
            reply = ask(connection, "/v1/traces", body, typed(wire))
            assert reply.status == (400 if body == BAD else 200)
            assert connection.sock is kept


def test_row_09_pipelined_requests_are_answered_in_order(
    collector: Collector, trace_id: bytes
) -> None:
    export = request(span(trace_id=trace_id))
    bodies = [PROTOBUF.encode(export), BAD, b"", PROTOBUF.encode(export)]
    with opened(collector) as connection:
        connection.sendall(
            b"".join(
                head("Content-Type: application/x-protobuf", f"Content-Length: {len(body)}") + body
                for body in bodies
            )
        )
        statuses = [reply.status for reply in replies(connection, len(bodies))]

    assert statuses == [200, 400, 200, 200]
    collector.stores(export)


def test_row_09_expect_100_continue(collector: Collector, trace_id: bytes) -> None:
    export = request(span(trace_id=trace_id))
    body = PROTOBUF.encode(export)
    with opened(collector) as connection:
        connection.sendall(
            head(
                "Content-Type: application/x-protobuf",
                "Expect: 100-continue",
                f"Content-Length: {len(body)}",
            )
        )
        assert connection.recv(4096) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body)
        [reply] = replies(connection, 1)

    assert read_outcome(reply, PROTOBUF.media_type) == ExportTraceServiceResponse()
    collector.stores(export)


@pytest.mark.parametrize(
    "lengths",
    [
        ("Content-Length: 2", "Content-Length: 3"),
        ("Content-Length: 2, 3",),
        ("Content-Length: 3", "Transfer-Encoding: chunked"),
        ("Content-Length: -1",),
    ],
)
def test_row_10_contradictory_lengths_are_refused_and_the_connection_closed(
    collector: Collector, lengths: tuple[str, ...]
) -> None:
    with opened(collector) as connection:
        connection.sendall(
            head("Content-Type: application/json", *lengths) + b"2\r\n{}\r\n0\r\n\r\n"
        )
        answer = read_to_end(connection)

    assert answer == b"" or answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1") <= 1, "the rest of the bytes is no request"


@HTTP_WIRES
@pytest.mark.parametrize("form", ["at once", "body later", "chunked"])
def test_row_11_a_client_that_offers_http2_is_served_over_http1(
    collector: Collector, wire: Wire, form: str, trace_id: bytes
) -> None:
    export = request(span(trace_id=trace_id))
    body = wire.encode(export)
    length = f"Content-Length: {len(body)}"
    if form == "chunked":
        length, body = "Transfer-Encoding: chunked", b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    asked = head(f"Content-Type: {wire.media_type}", length, *UPGRADE_TO_HTTP2)
    with opened(collector) as connection:
        connection.sendall(asked if form == "body later" else asked + body)
        if form == "body later":
            time.sleep(0.05)
            connection.sendall(body)
        connection.sendall(
            head(f"Content-Type: {wire.media_type}", f"Content-Length: {len(BAD)}") + BAD
        )
        first, second = replies(connection, 2)

    assert read_outcome(first, wire.media_type) == ExportTraceServiceResponse()
    assert second.status == 400  # the connection goes on as before
    collector.stores(export)


def test_row_11_http2_without_asking_ends_at_once(collector: Collector) -> None:
    started = time.monotonic()
    with opened(collector) as connection:
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9))
        answer = read_to_end(connection)

    assert time.monotonic() - started < AT_ONCE_S
    assert answer == b"" or answer.startswith(b"HTTP/1.1 4")


@HTTP_WIRES
@pytest.mark.parametrize(
    "path", ["/v1/traces/", "//v1/traces", "//", "/api/v1/traces/export/", "/v1/traces/?a=b"]
)
def test_row_12_never_a_redirect(collector: Collector, wire: Wire, path: str) -> None:
    reply = http(collector, path, wire.encode(request()), typed(wire))

    assert reply.status == 404
    assert "location" not in reply.headers
    assert isinstance(read_outcome(reply, wire.media_type), Refusal)


def test_row_14_http1_on_the_grpc_port_fails_at_once(collector: Collector) -> None:
    started = time.monotonic()
    with opened(collector, "grpc") as connection:
        connection.sendall(head("Content-Type: application/x-protobuf", "Content-Length: 0"))
        answer = read_to_end(connection)

    assert time.monotonic() - started < AT_ONCE_S
    assert b"HTTP/1.1 2" not in answer


def test_row_14_grpc_on_the_http_port_fails_at_once(collector: Collector) -> None:
    started = time.monotonic()

    swapped = Collector(grpc_target="{}:{}".format(*collector.address("http")))
    outcome = GRPC.export(swapped, request())

    assert isinstance(outcome, Refusal)
    assert time.monotonic() - started < AT_ONCE_S


def test_row_15_preflight_of_a_browser(limited: Collector) -> None:
    asked = {
        "Origin": ALLOWED_ORIGIN,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type,x-custom",
    }

    reply = http(limited, "/v1/traces", None, asked, method="OPTIONS")

    assert reply.status in (200, 204)
    assert reply.headers["access-control-allow-origin"] == ALLOWED_ORIGIN
    assert "POST" in reply.headers["access-control-allow-methods"]
    allowed = reply.headers["access-control-allow-headers"].lower()
    assert {"content-type", "x-custom"} <= {each.strip() for each in allowed.split(",")}
    assert int(reply.headers["access-control-max-age"]) > 0


@HTTP_WIRES
@pytest.mark.parametrize("body", [b"", BAD])
def test_row_15_a_browser_may_read_the_answer(limited: Collector, wire: Wire, body: bytes) -> None:
    reply = http(limited, "/v1/traces", body, typed(wire) | {"Origin": ALLOWED_ORIGIN})

    assert reply.headers["access-control-allow-origin"] == ALLOWED_ORIGIN
    assert "retry-after" in reply.headers["access-control-expose-headers"].lower()


@pytest.mark.parametrize("method", ["OPTIONS", "POST"])
def test_row_15_no_origin_has_leave_unless_it_is_given(collector: Collector, method: str) -> None:
    asked = {
        "Origin": "https://app.example",
        "Access-Control-Request-Method": "POST",
        "Content-Type": "application/json",
    }

    reply = http(collector, "/v1/traces", b"{}", asked, method=method)

    assert not [name for name in reply.headers if name.startswith("access-control")]


@pytest.mark.parametrize("method", ["OPTIONS", "POST"])
def test_row_15_another_origin_gets_no_leave(limited: Collector, method: str) -> None:
    asked = {
        "Origin": "https://evil.example",
        "Access-Control-Request-Method": "POST",
        "Content-Type": "application/json",
    }

    reply = http(limited, "/v1/traces", b"{}", asked, method=method)

    assert "access-control-allow-origin" not in reply.headers


def test_row_32_pings_of_an_idle_client_do_not_end_its_connection(collector: Collector) -> None:
    with opened(collector, "grpc") as connection:
        client = Http2Connection(connection)
        client.ping(10)

        assert (client.pings_answered, client.is_gone) == (10, False)
        assert client.call(b"").trailers["grpc-status"] == "0"


def test_row_32_pings_amid_a_call_do_not_end_its_connection(collector: Collector) -> None:
    with opened(collector, "grpc") as connection:
        client = Http2Connection(connection)

        answer = client.call(b"", amid=lambda: client.ping(10))

        assert (client.pings_answered, client.is_gone) == (10, False)
        assert answer.trailers["grpc-status"] == "0"


def test_row_33_a_burst_on_a_new_connection_succeeds(collector: Collector) -> None:
    host, port = collector.address("grpc")
    with grpc.insecure_channel(
        f"{host}:{port}", options=[("grpc.enable_http_proxy", 0)]
    ) as channel:
        method: Any = channel.unary_unary(EXPORT_METHOD)
        calls = [method.future(b"", timeout=20) for _ in range(1_000)]

        assert {call.code() for call in calls} == {grpc.StatusCode.OK}
