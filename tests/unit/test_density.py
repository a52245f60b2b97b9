"""Requests that take long for their size are told from ordinary ones, and hold up nobody."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from benchmarks.export_requests import make_requests
from msgtrace.model.batch import SpanBatch
from msgtrace.otlp.density import MIN_BYTES, is_dense_json, is_dense_protobuf
from msgtrace.otlp.encodings import decode_as
from msgtrace.otlp.rules import DecodeRules
from msgtrace.receivers import export as module
from msgtrace.receivers.budget import ByteBudget
from msgtrace.receivers.encoding import JSON, PROTOBUF, Encoding
from msgtrace.receivers.export import INLINE_BYTES, TraceExport
from tests.batches import request, span
from tests.sinks import Nowhere

FIXTURES = Path(__file__).parents[1] / "fixtures"

SPAN = b"\x0a\x10" + b"\x01" * 16 + b"\x12\x08" + b"\x01" * 8
ENVELOPES = b"\x0a\x12\x12"

ELEMENTS = {
    "resources": (b"\x0a\x00", b"", b""),
    "spans": (b"\x12\x00", b"", ENVELOPES[:2]),
    "attributes": (b"\x4a\x00", SPAN, ENVELOPES),
    "attributes with keys": (b"\x4a\x05\x0a\x03key", SPAN, ENVELOPES),
    "events": (b"\x5a\x00", SPAN, ENVELOPES),
    "links": (b"\x6a\x00", SPAN, ENVELOPES),
    "links with a state": (b"\x6a\x06\x1a\x04much", SPAN, ENVELOPES),
    "attributes of an event": (b"\x1a\x00", b"", ENVELOPES + b"\x5a"),
    "attributes of a link": (b"\x22\x00", b"", ENVELOPES + b"\x6a"),
}


def dense(name: str, size: int = INLINE_BYTES) -> bytes:
    """A request of nearly this size that has as many of one element as it can."""
    element, start, tags = ELEMENTS[name]
    body = start + element * ((size - 100) // len(element))
    for tag in reversed(tags):
        count = len(body)
        length = bytes([count & 127 | 128, count >> 7 & 127 | 128, count >> 14])
        body = bytes([tag]) + length + body
    return body


def dense_json() -> bytes:
    links = b",".join([b"{}"] * (INLINE_BYTES // 3 - 100))
    ids = b'"traceId":"%s","spanId":"%s"' % (b"01" * 16, b"01" * 8)
    return b'{"resourceSpans":[{"scopeSpans":[{"spans":[{%s,"links":[%s]}]}]}]}' % (ids, links)


@pytest.mark.parametrize("name", ELEMENTS)
def test_many_small_elements_are_dense(name: str) -> None:
    body = dense(name)

    assert len(body) <= INLINE_BYTES
    assert is_dense_protobuf(body)
    assert not is_dense_protobuf(dense(name, MIN_BYTES))


def test_many_small_objects_are_dense() -> None:
    assert len(dense_json()) <= INLINE_BYTES
    assert is_dense_json(dense_json())


def test_what_sdks_send_is_not_dense() -> None:
    for body in make_requests(2, seed=1):
        assert not is_dense_protobuf(body)
    for path in FIXTURES.glob("*.binpb"):
        content = path.read_bytes()
        assert not is_dense_protobuf(content * max(1, INLINE_BYTES // 2 // len(content)))
    for path in FIXTURES.glob("*.json"):
        content = path.read_bytes()
        assert not is_dense_json(content * max(1, INLINE_BYTES // len(content)))


@pytest.mark.parametrize(
    ("encoding", "body", "is_inline"),
    [
        (PROTOBUF, dense("links"), False),
        (JSON, dense_json(), False),
        (PROTOBUF, request(span(attributes={"long": "text " * 80_000})).SerializeToString(), True),
    ],
    ids=["links", "objects", "text"],
)
async def test_a_dense_request_does_not_hold_up_the_event_loop(
    encoding: Encoding, body: bytes, is_inline: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[threading.Thread] = []

    def decode(name: str, payload: bytes, rules: DecodeRules) -> SpanBatch:
        threads.append(threading.current_thread())
        return decode_as(name, payload, rules)

    monkeypatch.setattr(module, "decode_as", decode)
    export = TraceExport(Nowhere(), max_request_bytes=10**6, budget=ByteBudget(10**6))

    await export.export(body, encoding, wire="http")

    assert [each is threading.main_thread() for each in threads] == [is_inline]
