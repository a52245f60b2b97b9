"""Large requests are cut into pieces that hold the same spans, and are never parsed as a whole."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from msgtrace.errors import MalformedRequest, RequestTooLarge
from msgtrace.model.span import Row
from msgtrace.otlp import split
from msgtrace.otlp.decode import decode_export_request
from msgtrace.otlp.split import check_json, split_request
from tests.batches import request, span

FIXTURES = sorted((Path(__file__).parents[1] / "fixtures").glob("*.binpb"))
KIB = 1024
MIB = 1024 * KIB


def rows_of(pieces: list[bytes]) -> list[Row]:
    return [row for piece in pieces for row in decode_export_request(piece).spans]


def one_big_span(element: bytes, size: int) -> bytes:
    """A request with one span that consists of this field over and over."""
    body = element * (size // len(element))
    for tag in (b"\x12", b"\x12", b"\x0a"):
        body = tag + _varint(len(body)) + body
    return body


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.stem)
@pytest.mark.parametrize("piece_bytes", [1, 300, 5_000])
def test_the_pieces_of_a_captured_request_give_the_same_rows(path: Path, piece_bytes: int) -> None:
    body = path.read_bytes()
    whole = decode_export_request(body)

    pieces = list(split_request(body, piece_bytes))

    assert rows_of(pieces) == whole.spans
    for piece in pieces:
        batch = decode_export_request(piece)
        assert batch.resources.items() <= whole.resources.items()
        assert batch.scopes.items() <= whole.scopes.items()


@given(
    names=st.lists(st.lists(st.lists(st.text(max_size=40), max_size=6), max_size=4), max_size=4),
    piece_bytes=st.integers(1, 600),
)
def test_pieces_hold_every_span_once_in_order_under_its_own_resource_and_scope(
    names: list[list[list[str]]], piece_bytes: int
) -> None:
    export = ExportTraceServiceRequest()
    for number, scopes in enumerate(names):
        one = request(span("x"), service=f"service-{number}").resource_spans[0]
        del one.scope_spans[:]
        one.schema_url = "s" * number
        for place, spans in enumerate(scopes):
            scope_spans = one.scope_spans.add()
            scope_spans.scope.name = f"scope-{place}"
            scope_spans.spans.extend(
                span(name, span_id=bytes([number + 1, place + 1, n + 1, 1, 1, 1, 1, 1]))
                for n, name in enumerate(spans)
            )
        export.resource_spans.append(one)
    body = export.SerializeToString()

    assert rows_of(list(split_request(body, piece_bytes))) == decode_export_request(body).spans


def test_a_small_request_stays_as_it_is() -> None:
    body = request(span()).SerializeToString()

    assert list(split_request(body, len(body))) == [body]


def test_a_piece_is_about_as_large_as_asked() -> None:
    body = request(
        *(span("work", span_id=bytes([1, n >> 8, n & 255, 0, 0, 0, 0, 0])) for n in range(2_000))
    ).SerializeToString()

    sizes = [len(piece) for piece in split_request(body, 10 * KIB)]

    assert len(sizes) > 5
    assert max(sizes) < 11 * KIB


def test_a_large_resource_does_not_multiply_the_work() -> None:
    body = request(
        *(span("work", span_id=bytes([1, n, 0, 0, 0, 0, 0, 0])) for n in range(200)),
        resource={"text": "x" * 100 * KIB},
    ).SerializeToString()

    assert sum(map(len, split_request(body, KIB))) < 3 * len(body)


@pytest.mark.parametrize(
    "element",
    [b"\x4a\x00", b"\x5a\x00", b"\x6a\x00", b"\x4a\x06\x12\x04\x2a\x02\x0a\x00"],
    ids=["attributes", "events", "links", "values in arrays"],
)
def test_a_span_of_empty_elements_is_refused_before_it_is_parsed(element: bytes) -> None:
    body = one_big_span(element, 4 * MIB)
    tracemalloc.start()
    try:
        with pytest.raises(RequestTooLarge, match="250000 elements"):
            rows_of(list(split_request(body, 512 * KIB)))
        assert tracemalloc.get_traced_memory()[1] < 64 * MIB
    finally:
        tracemalloc.stop()


def test_more_spans_than_a_request_may_have_are_refused() -> None:
    spans = b"\x12\x00" * (split.MAX_SPANS + 1)
    scope_spans = b"\x12" + _varint(len(spans)) + spans
    body = b"\x0a" + _varint(len(scope_spans)) + scope_spans

    with pytest.raises(RequestTooLarge, match="300000 spans"):
        list(split_request(body, KIB))


@pytest.mark.parametrize("element", [b"\x0a\x00", b"\x7a\x00"], ids=["envelopes", "unknown fields"])
def test_a_request_of_nothing_but_empty_fields_is_not_parsed_either(element: bytes) -> None:
    assert rows_of(list(split_request(element * MIB, 512 * KIB))) == []

    with pytest.raises(RequestTooLarge, match="4000000 fields"):
        list(split_request(element * 5 * MIB, 512 * KIB))


def test_a_resource_of_too_many_elements_is_refused_before_it_is_parsed() -> None:
    resource = b"\x0a" + _varint(2 * MIB) + b"\x1a\x00" * MIB
    spans = request(span()).resource_spans[0].scope_spans[0].SerializeToString()
    content = resource + b"\x12" + _varint(len(spans)) + spans
    body = b"\x0a" + _varint(len(content)) + content

    with pytest.raises(RequestTooLarge, match="250000 elements"):
        list(split_request(body, 512 * KIB))


def test_one_prompt_of_many_megabytes_is_no_element_too_many() -> None:
    body = request(span(attributes={"prompt": "x" * 5 * MIB})).SerializeToString()

    [row] = rows_of(list(split_request(body, 512 * KIB)))

    assert row == decode_export_request(body).spans[0]


@pytest.mark.parametrize(
    "body",
    [
        b"\xff" * 100,
        b"\x0a\xff\xff\xff\xff\x0f" + bytes(100),
        b"\x0a\x64" + b"\x0f" * 100,
        bytes(60 * MIB),
    ],
    ids=["ones", "a length beyond the end", "a wire type that there is not", "zeros"],
)
def test_what_is_no_protobuf_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedRequest):
        list(split_request(body, 10))


def test_json_of_more_objects_than_a_request_may_have_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(RequestTooLarge, match="500000 JSON objects"):
        list(check_json(b"{" * (split.MAX_JSON_OBJECTS + 1), KIB))


def test_what_waits_for_the_database_is_measured_by_what_it_takes_not_by_its_wire_size() -> None:
    links = request(span(links=[{}] * 5_000)).SerializeToString()

    assert decode_export_request(links).body_bytes > 20 * len(links)
