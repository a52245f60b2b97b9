"""What senders hear when a request is wrong: final, exact, and readable on both wires."""

from __future__ import annotations

import gzip
import secrets
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import httpx
import pytest
from google.protobuf import json_format
from google.rpc.error_details_pb2 import BadRequest
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from tests.batches import request, span
from tests.end_to_end.processes import NO_SPILL, RunningProcess, running
from tests.end_to_end.senders import PROTOBUF, TIMEOUT_S, call_grpc, export, post

MAX_REQUEST_BYTES = 64 * 1024

UNDECODABLE = b"\xff" * 32

SIZES = {"a byte too large": MAX_REQUEST_BYTES + 1, "far too large": 20 * 1024 * 1024}


def detail_types(status: Status) -> list[str]:
    return [detail.TypeName() for detail in status.details]


@pytest.fixture(scope="module")
def service(shared_database_url: str) -> Iterator[RunningProcess]:
    """`msgtrace start` that takes small requests only."""
    limit = NO_SPILL | {"MSGTRACE_MAX_REQUEST_BYTES": str(MAX_REQUEST_BYTES)}
    with running("start", shared_database_url, environment=limit) as process:
        yield process


def refusal(call: Callable[[], object]) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value


def trailers_of(error: grpc.RpcError) -> dict[str, Any]:
    pairs: Any = error.trailing_metadata()
    return dict(pairs)


def status_of(response: httpx.Response) -> Status:
    """The google.rpc.Status that the body of every HTTP error is, in the request's encoding.

    JSON for a request of no known encoding.
    """
    content_type = response.request.headers.get("content-type", "")
    if content_type == "application/x-protobuf":
        assert response.headers["content-type"] == "application/x-protobuf"
        status = Status.FromString(response.content)
    else:
        assert response.headers["content-type"] == "application/json"
        status = json_format.Parse(response.content, Status())
    assert status.code
    assert status.message
    return status


def filler(size: int) -> bytes:
    """A request of exactly `size` bytes without spans: one field that OTLP does not know."""
    for length_bytes in (1, 2, 3, 4):
        length = size - 2 - length_bytes
        varint = bytes(
            (length >> 7 * n & 0x7F) | (0x80 if n < length_bytes - 1 else 0)
            for n in range(length_bytes)
        )
        if length >> 7 * length_bytes == 0:
            return b"\x82\x7d" + varint + bytes(length)
    raise AssertionError(size)


def chunks(body: bytes) -> Iterator[bytes]:
    for start in range(0, len(body), 10_000):
        yield body[start : start + 10_000]


def count_spans(service: RunningProcess) -> int:
    total = service.get("/api/v1/stats")["total_spans"]
    assert isinstance(total, int)
    return total


def test_undecodable_bytes_are_a_final_refusal_over_grpc(service: RunningProcess) -> None:
    error = refusal(lambda: call_grpc(service.grpc_target, UNDECODABLE))

    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    details = trailers_of(error)
    status = Status.FromString(details["grpc-status-details-bin"])
    assert status.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert status.message == error.details()
    assert detail_types(status) == [
        BadRequest.DESCRIPTOR.full_name
    ]  # no RetryInfo: resending is useless
    assert "google.rpc.retryinfo-bin" not in details


@pytest.mark.parametrize("path", ["/v1/traces", "/api/v1/traces/export", "/"])
def test_undecodable_bytes_are_a_final_refusal_over_http(
    service: RunningProcess, path: str
) -> None:
    response = post(f"{service.otlp_url}{path}", UNDECODABLE)

    assert response.status_code == 400
    assert "retry-after" not in response.headers
    status = status_of(response)
    assert status.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert detail_types(status) == [BadRequest.DESCRIPTOR.full_name]


@pytest.mark.parametrize(
    "body",
    [b"", b"no gzip", gzip.compress(b"")[:-1], gzip.compress(UNDECODABLE)],
    ids=["empty", "no gzip", "cut off", "undecodable"],  # a gzip header holds the time
)
def test_a_body_that_is_not_what_its_coding_says_is_400(
    service: RunningProcess, body: bytes
) -> None:
    response = post(f"{service.otlp_url}/v1/traces", body, content_encoding="gzip")

    assert response.status_code == 400
    status_of(response)


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("compression", [None, grpc.Compression.Gzip])
def test_an_oversize_request_is_refused_over_grpc(
    service: RunningProcess, size: int, compression: grpc.Compression | None
) -> None:
    error = refusal(lambda: call_grpc(service.grpc_target, filler(size), compression=compression))

    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "google.rpc.retryinfo-bin" not in trailers_of(error)


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("form", ["plain", "chunked", "gzip", "chunked gzip"])
def test_an_oversize_request_is_413_over_http(
    service: RunningProcess, size: int, form: str
) -> None:
    body = filler(size)
    assert len(body) == size
    headers = {}
    if "gzip" in form:
        body, headers = gzip.compress(body), {"content_encoding": "gzip"}
        assert len(body) < MAX_REQUEST_BYTES  # only inflating shows its size

    response = post(
        f"{service.otlp_url}/v1/traces", chunks(body) if "chunked" in form else body, **headers
    )

    assert response.status_code == 413
    assert "retry-after" not in response.headers
    assert status_of(response).code == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]


@pytest.mark.parametrize("is_gzip", [False, True])
def test_a_request_of_just_the_limit_is_taken_on_both_wires(
    service: RunningProcess, is_gzip: bool
) -> None:
    body = filler(MAX_REQUEST_BYTES)
    compression = grpc.Compression.Gzip if is_gzip else None
    headers = {"content_encoding": "gzip"} if is_gzip else {}

    assert call_grpc(service.grpc_target, body, compression=compression) == b""
    response = post(
        f"{service.otlp_url}/v1/traces", gzip.compress(body) if is_gzip else body, **headers
    )
    assert response.status_code == 200


def test_after_an_oversize_request_the_next_is_taken(service: RunningProcess) -> None:
    before = count_spans(service)
    with httpx.Client(trust_env=False, verify=False, timeout=TIMEOUT_S) as client:
        for size, expected in ((SIZES["far too large"], 413), (100, 200)):
            response = client.post(
                f"{service.otlp_url}/v1/traces", content=filler(size), headers=PROTOBUF
            )
            assert response.status_code == expected

    export(service, request(span(trace_id=secrets.token_bytes(16))).SerializeToString(), "grpc")
    assert count_spans(service) == before + 1


@pytest.mark.parametrize("content_type", ["text/plain", "", "protobuf"])
def test_a_wrong_content_type_is_415(service: RunningProcess, content_type: str) -> None:
    response = post(f"{service.otlp_url}/v1/traces", b"", content_type=content_type)

    assert response.status_code == 415
    assert "application/x-protobuf" in status_of(response).message


def test_a_content_type_with_parameters_or_in_capitals_is_taken(service: RunningProcess) -> None:
    for content_type in ("application/x-protobuf; charset=utf-8", "Application/X-Protobuf"):
        response = post(f"{service.otlp_url}/v1/traces", b"", content_type=content_type)

        assert response.status_code == 200


@pytest.mark.parametrize("coding", ["br", "snappy", "gzip, gzip"])
def test_an_unknown_content_coding_is_415_and_the_known_are_named(
    service: RunningProcess, coding: str
) -> None:
    response = post(f"{service.otlp_url}/v1/traces", b"", content_encoding=coding)

    assert response.status_code == 415
    for known in ("gzip", "deflate", "zstd"):
        assert known in status_of(response).message


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "HEAD"])
def test_a_wrong_method_is_405_and_names_the_right_one(
    service: RunningProcess, method: str
) -> None:
    response = httpx.request(method, f"{service.otlp_url}/v1/traces", trust_env=False, verify=False)

    assert response.status_code == 405
    assert response.headers["allow"] == "POST"


@pytest.mark.parametrize("path", ["/v1/traces/", "/v1/trace", "/v2/traces", "//"])
def test_an_unknown_path_is_404_and_never_a_redirect(service: RunningProcess, path: str) -> None:
    response = post(f"{service.otlp_url}{path}", b"")

    assert response.status_code == 404
    assert "location" not in response.headers
    assert "/v1/traces" in status_of(response).message


@pytest.mark.parametrize("wire", ["grpc", "http"])
def test_spans_with_bad_ids_are_counted_and_the_others_stored(
    service: RunningProcess, wire: str
) -> None:
    trace_id = secrets.token_bytes(16)
    export_request = request(
        span("good root", trace_id=trace_id),
        span("no trace id", trace_id=b""),
        span("zero trace id", trace_id=bytes(16)),
        span("short trace id", trace_id=trace_id[:15]),
        span("zero span id", trace_id=trace_id, span_id=bytes(8)),
        span("long span id", trace_id=trace_id, span_id=bytes([1] * 9)),
        span("short parent id", trace_id=trace_id, parent=b"123"),
        span("good child", trace_id=trace_id, parent="good root"),
    )

    response = export(service, export_request.SerializeToString(), wire)

    assert response.partial_success.rejected_spans == 6
    for why in ("3 spans: trace_id", "2 spans: span_id", "parent_span_id"):
        assert why in response.partial_success.error_message
    stored = service.get_trace(trace_id)["spans"]
    assert {each["name"] for each in stored} == {"good root", "good child"}


@pytest.mark.parametrize("wire", ["grpc", "http"])
def test_a_request_of_which_nothing_can_be_stored_is_a_partial_success(
    service: RunningProcess, wire: str
) -> None:
    before = count_spans(service)

    response = export(service, request(span(trace_id=b"")).SerializeToString(), wire)

    assert response.partial_success.rejected_spans == 1
    assert count_spans(service) == before


@pytest.mark.parametrize("wire", ["grpc", "http"])
def test_an_empty_request_is_a_success(service: RunningProcess, wire: str) -> None:
    for body in (b"", ExportTraceServiceRequest(), request()):
        content = body if isinstance(body, bytes) else body.SerializeToString()

        assert export(service, content, wire) == ExportTraceServiceResponse()


@pytest.mark.parametrize(
    "method",
    [
        "/opentelemetry.proto.collector.trace.v1.TraceService/Import",
        "/opentelemetry.proto.collector.trace.v2.TraceService/Export",
        "/Export",
    ],
)
def test_an_unknown_grpc_method_is_unimplemented(service: RunningProcess, method: str) -> None:
    error = refusal(lambda: call_grpc(service.grpc_target, b"", method=method))

    assert error.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("signal", ["metrics", "logs"])
def test_other_signals_hear_how_to_turn_them_off(service: RunningProcess, signal: str) -> None:
    name = f"opentelemetry.proto.collector.{signal}.v1.{signal.capitalize()}Service/Export"

    error = refusal(lambda: call_grpc(service.grpc_target, b"", method=f"/{name}"))
    response = post(f"{service.otlp_url}/v1/{signal}", b"")

    assert error.code() is grpc.StatusCode.UNIMPLEMENTED
    assert response.status_code == 404
    for message in (error.details(), status_of(response).message):
        assert message is not None
        assert f"OTEL_{signal.upper()}_EXPORTER=none" in message


@pytest.mark.parametrize("wire", ["grpc", "http"])
def test_text_that_is_not_utf8_costs_replacement_characters_only(
    service: RunningProcess, wire: str
) -> None:
    trace_id = secrets.token_bytes(16)
    broken = request(span("caf_", trace_id=trace_id), span("whole", trace_id=trace_id))

    export(service, broken.SerializeToString().replace(b"caf_", b"caf\xe9"), wire)

    names = {each["name"] for each in service.get_trace(trace_id)["spans"]}
    assert names == {"caf\N{REPLACEMENT CHARACTER}", "whole"}


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"resourceSpans": 1}', b"", b"\xff"])
def test_json_that_is_no_export_is_400_in_json(service: RunningProcess, body: bytes) -> None:
    response = post(f"{service.otlp_url}/v1/traces", body, content_type="application/json")

    assert response.status_code == 400
    assert status_of(response).code == grpc.StatusCode.INVALID_ARGUMENT.value[0]


def test_a_partial_success_in_json_counts_as_in_protobuf(service: RunningProcess) -> None:
    body = json_format.MessageToJson(request(span(trace_id=b""), span(trace_id=b"")))

    response = post(f"{service.otlp_url}/v1/traces", body, content_type="application/json")

    assert response.status_code == 200
    assert response.json()["partialSuccess"]["rejectedSpans"] == "2"


@pytest.mark.parametrize("path", ["/v1/traces", "/api/v1/traces/export"])
def test_the_query_port_takes_exports_too(service: RunningProcess, path: str) -> None:
    trace_id = secrets.token_bytes(16)
    body = request(span("over the query port", trace_id=trace_id)).SerializeToString()

    response = post(f"{service.url}{path}", gzip.compress(body), content_encoding="gzip")

    assert (response.status_code, response.content) == (200, b"")
    assert service.get_trace(trace_id)["root_span_name"] == "over the query port"


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v1/traces", UNDECODABLE, 400),
        ("/v1/traces", filler(MAX_REQUEST_BYTES + 1), 413),
        ("/api/v1/traces/export/", b"", 404),
        ("/v1/traces/", b"", 404),
        ("/", b"", 404),
    ],
)
def test_the_query_port_refuses_what_the_otlp_port_refuses(
    service: RunningProcess, path: str, body: bytes, status: int
) -> None:
    response = post(f"{service.url}{path}", body)

    assert response.status_code == status
    assert "location" not in response.headers


def test_get_of_an_export_path_on_the_query_port_is_405(service: RunningProcess) -> None:
    response = service.client.get("/v1/traces")

    assert response.status_code == 405
    assert response.headers["allow"] == "POST"
