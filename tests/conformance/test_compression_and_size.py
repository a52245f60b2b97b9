"""Compressed bodies, limits on their size before and after inflating, and lies about both."""

from __future__ import annotations

import gzip
import sys
import zlib
from collections.abc import Callable, Iterator

import pytest
from google.rpc.error_details_pb2 import RetryInfo
from grpc import StatusCode
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from tests.batches import request, span
from tests.conformance.collectors import Collector
from tests.conformance.conftest import SMALL_LIMIT
from tests.conformance.data_cases import BAD_SPANS
from tests.conformance.raw import Http2Connection, opened
from tests.conformance.wires import (
    GRPC,
    JSON,
    PROTOBUF,
    RETRYABLE,
    Refusal,
    Wire,
    http,
    read_outcome,
)

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

HTTP_WIRES = pytest.mark.parametrize("wire", [PROTOBUF, JSON], ids=lambda wire: wire.name)

Compress = Callable[[bytes], bytes]


def raw_deflate(body: bytes) -> bytes:
    """Deflate without the zlib header, which some clients take HTTP's deflate to be."""
    squeezer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return squeezer.compress(body) + squeezer.flush()


CODINGS: dict[str, tuple[str, Compress]] = {
    "row_19_gzip": ("gzip", gzip.compress),
    "row_20_coding_in_capitals": ("GZIP", gzip.compress),
    "row_20_x_gzip": ("x-gzip", gzip.compress),
    "row_20_identity": ("identity", bytes),
    "row_20_identity_in_capitals": ("Identity", bytes),
    "row_20_gzip_and_identity": ("gzip, identity", gzip.compress),
    "row_21_gzip_in_several_members": (
        "gzip",
        lambda body: b"".join(map(gzip.compress, (body[:9], b"", body[9:]))),
    ),
    "row_21_gzip_followed_by_zeros": ("gzip", lambda body: gzip.compress(body) + bytes(20)),
    "row_22_deflate": ("deflate", zlib.compress),
    "row_22_deflate_without_header": ("deflate", raw_deflate),
    "row_22_zstd": ("zstd", zstd.compress),
    "row_22_zstd_in_several_frames": (
        "zstd",
        lambda body: zstd.compress(body[:9]) + zstd.compress(body[9:]),
    ),
}


@HTTP_WIRES
@pytest.mark.parametrize("case", CODINGS.values(), ids=CODINGS)
def test_coding(
    collector: Collector, wire: Wire, case: tuple[str, Compress], trace_id: bytes
) -> None:
    coding, compress = case
    export = request(span(trace_id=trace_id))

    outcome = wire.send(collector, compress(wire.encode(export)), coding)

    assert outcome == ExportTraceServiceResponse()
    collector.stores(export)


@pytest.mark.parametrize("coding", ["", "gzip", "deflate"])
def test_row_19_codings_of_grpc(collector: Collector, coding: str, trace_id: bytes) -> None:
    export = request(span(trace_id=trace_id, attributes={"long": "x" * 10_000}))

    outcome = GRPC.send(collector, export.SerializeToString(), coding)

    assert outcome == ExportTraceServiceResponse()
    collector.stores(export)


@HTTP_WIRES
@pytest.mark.parametrize(
    "coding", ["br", "snappy", "lz4", "compress", "gzip2", "gzip, gzip", "deflate, gzip", "*"]
)
def test_row_23_unknown_coding_is_415_and_never_read_as_plain(
    collector: Collector, wire: Wire, coding: str, trace_id: bytes
) -> None:
    body = wire.encode(request(span(trace_id=trace_id)))

    refusal = wire.refuse(collector, body, coding)

    assert refusal.http_status == 415
    assert "gzip" in refusal.status.message
    collector.stores(request(), trace_id)


def whole(body: bytes) -> bytes:
    return gzip.compress(body)


LIES: dict[str, tuple[str, Compress]] = {
    "row_24_plain_labelled_gzip": ("gzip", bytes),
    "row_24_plain_labelled_deflate": ("deflate", bytes),
    "row_24_plain_labelled_zstd": ("zstd", bytes),
    "row_24_zlib_labelled_gzip": ("gzip", zlib.compress),
    "row_24_gzip_labelled_zstd": ("zstd", gzip.compress),
    "row_24_gzip_truncated": ("gzip", lambda body: whole(body)[:-9]),
    "row_24_gzip_without_its_last_byte": ("gzip", lambda body: whole(body)[:-1]),
    "row_24_gzip_with_bad_checksum": ("gzip", lambda body: whole(body)[:-8] + bytes(8)),
    "row_24_gzip_with_bad_header": ("gzip", lambda body: b"\x1f\x8c" + whole(body)[2:]),
    "row_24_gzip_with_rubbish_behind": ("gzip", lambda body: whole(body) + b"rubbish"),
    "row_24_gzip_with_half_a_member_behind": ("gzip", lambda body: whole(body) * 2 + b"\x1f\x8b"),
    "row_24_gzip_of_no_bytes_at_all": ("gzip", lambda _: b""),
    "row_24_deflate_truncated": ("deflate", lambda body: zlib.compress(body)[:-1]),
    "row_24_deflate_with_bad_checksum": (
        "deflate",
        lambda body: zlib.compress(body)[:-4] + b"1234",
    ),
    "row_24_zstd_truncated": ("zstd", lambda body: zstd.compress(body)[:-1]),
    "row_24_zstd_of_no_bytes_at_all": ("zstd", lambda _: b""),
}


@HTTP_WIRES
@pytest.mark.parametrize("case", LIES.values(), ids=LIES)
def test_lie(collector: Collector, wire: Wire, case: tuple[str, Compress], trace_id: bytes) -> None:
    coding, spoil = case
    body = spoil(wire.encode(request(span(trace_id=trace_id))))

    refusal = wire.refuse(collector, body, coding)

    assert (refusal.http_status, refusal.code) == (400, StatusCode.INVALID_ARGUMENT)
    collector.stores(request(), trace_id)


def test_row_24_damaged_gzip_over_grpc_is_final(collector: Collector, trace_id: bytes) -> None:
    damaged = gzip.compress(request(span(trace_id=trace_id)).SerializeToString())[:-9]
    with opened(collector, "grpc") as connection:
        answer = Http2Connection(connection).call(
            damaged, {"grpc-encoding": "gzip"}, is_compressed=True
        )

    assert_final(answer.headers | answer.trailers)
    collector.stores(request(), trace_id)


@pytest.mark.parametrize("coding", ["zstd", "snappy", "unheard-of"])
def test_row_25_unknown_coding_over_grpc_is_final_and_never_read_as_plain(
    collector: Collector, coding: str, trace_id: bytes
) -> None:
    """gRPC asks for UNIMPLEMENTED and a list of codings; grpcio answers INTERNAL by itself."""
    body = request(span(trace_id=trace_id)).SerializeToString()
    with opened(collector, "grpc") as connection:
        client = Http2Connection(connection)
        answer = client.call(body, {"grpc-encoding": coding}, is_compressed=True)
        offered = client.call(b"").headers["grpc-accept-encoding"]

    assert_final(answer.headers | answer.trailers)
    assert "gzip" in offered  # senders learn it from any other answer
    collector.stores(request(), trace_id)


def assert_final(headers: dict[str, str]) -> None:
    code = int(headers["grpc-status"])
    assert code != 0
    assert code not in [each.value[0] for each in RETRYABLE]
    assert "google.rpc.retryinfo-bin" not in headers


def filler(size: int) -> bytes:
    """A protobuf request of exactly `size` bytes, below 2 MiB, without spans: one unknown field."""
    length = size - 5
    varint = bytes((length & 0x7F | 0x80, length >> 7 & 0x7F | 0x80, length >> 14))
    return b"\x82\x7d" + varint + bytes(length)


def json_filler(size: int) -> bytes:
    return b'{"unknown":"' + b"x" * (size - 14) + b'"}'


def filled(wire: Wire, size: int) -> bytes:
    body = json_filler(size) if wire.is_json else filler(size)
    assert len(body) == size
    return body


def chunks(body: bytes) -> Iterator[bytes]:
    for start in range(0, len(body), 10_000):
        yield body[start : start + 10_000]


SQUEEZERS: dict[str, Compress] = {
    "": bytes,
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "zstd": zstd.compress,
}


@pytest.mark.parametrize("coding", ["", "gzip", "deflate"])
def test_row_26_a_request_of_just_the_limit_is_taken(
    limited: Collector, wire: Wire, coding: str
) -> None:
    body = filled(wire, SMALL_LIMIT)

    sent = body if wire is GRPC else SQUEEZERS[coding](body)

    assert wire.send(limited, sent, coding) == ExportTraceServiceResponse()


@HTTP_WIRES
@pytest.mark.parametrize("coding", SQUEEZERS)
@pytest.mark.parametrize("size", [SMALL_LIMIT + 1, 30 * SMALL_LIMIT])
@pytest.mark.parametrize("is_chunked", [False, True], ids=["with length", "chunked"])
def test_row_27_http_over_the_limit_is_413(
    limited: Collector, wire: Wire, coding: str, size: int, is_chunked: bool
) -> None:
    body = SQUEEZERS[coding](filled(wire, size))
    if not coding and size > 2 * SMALL_LIMIT:
        pytest.skip("the client may lose the answer while it still sends")
    headers = {"Content-Type": wire.media_type}
    if coding:
        headers["Content-Encoding"] = coding

    reply = http(limited, "/v1/traces", chunks(body) if is_chunked else body, headers)

    assert reply.status == 413
    assert "retry-after" not in reply.headers
    refusal = read_outcome(reply, wire.media_type)
    assert isinstance(refusal, Refusal)
    assert not any(detail.Is(RetryInfo.DESCRIPTOR) for detail in refusal.status.details)
    # The next request finds the collector as it was.
    assert wire.send(limited, filled(wire, SMALL_LIMIT)) == ExportTraceServiceResponse()


@HTTP_WIRES
@pytest.mark.parametrize("coding", ["gzip", "deflate", "zstd"])
def test_row_27_a_bomb_is_413(limited: Collector, wire: Wire, coding: str) -> None:
    bomb = SQUEEZERS[coding](bytes(32 * 1024 * 1024))
    assert len(bomb) < SMALL_LIMIT

    assert wire.refuse(limited, bomb, coding).http_status == 413


@pytest.mark.parametrize("coding", ["", "gzip", "deflate"])
@pytest.mark.parametrize("size", [SMALL_LIMIT + 1, 30 * SMALL_LIMIT])
def test_row_28_grpc_over_the_limit_is_resource_exhausted_for_good(
    limited: Collector, coding: str, size: int
) -> None:
    refusal = GRPC.refuse(limited, filler(size), coding)

    assert refusal.code is StatusCode.RESOURCE_EXHAUSTED
    assert refusal.retry_delay_s is None
    assert "google.rpc.retryinfo-bin" not in refusal.headers


def test_row_29_an_answer_stays_small(collector: Collector, wire: Wire) -> None:
    """As many rejected spans, for all reasons, and as long names as there may be."""
    spans = [make(bytes(range(1, 17))) for make in BAD_SPANS]
    for each in spans:
        each.name = "n" * 1000
    response = wire.accept(collector, request(*spans * 100))

    assert response.partial_success.rejected_spans == 100 * len(spans)
    assert response.ByteSize() < 1_000


@pytest.mark.parametrize("header", ["Content-Type", "Content-Encoding"])
def test_row_29_an_answer_does_not_repeat_what_was_sent(collector: Collector, header: str) -> None:
    headers = {"Content-Type": "application/json"} | {header: "x" * 8_000}

    reply = http(collector, "/v1/traces", b"{}", headers)

    assert reply.status == 415
    assert len(reply.body) < 1_000
