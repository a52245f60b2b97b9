"""Text that is not UTF-8."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from msgtrace.errors import MalformedRequest
from msgtrace.otlp.decode import decode_export_request
from msgtrace.otlp.lenient import repair_text
from msgtrace.otlp.v1 import lenient_pb2
from tests.batches import make_batch, request, span

GOOD = "zzzz"
BAD = b"z\xff\xc3z"
REPAIRED = "z��z"


def test_one_bad_byte_costs_replacement_characters_in_its_text_and_nothing_else() -> None:
    spans = [
        span("fine", attributes={"n": 1, "t": "text", "b": b"\xff"}),
        span(GOOD, attributes={GOOD: GOOD, "deep": {"list": [GOOD, 2.5, None]}}),
    ]
    body = request(*spans).SerializeToString().replace(GOOD.encode(), BAD)

    batch = decode_export_request(body)

    fine, repaired = batch.spans
    expected = make_batch(
        spans[0],
        span(
            REPAIRED,
            span_id=spans[1].span_id,
            attributes={REPAIRED: REPAIRED, "deep": {"list": [REPAIRED, 2.5, None]}},
        ),
    ).spans
    assert fine == expected[0]
    assert repaired == expected[1]


def test_repairing_leaves_a_request_that_needs_no_repair_as_it_is() -> None:
    body = request(
        span("a", attributes={"": "", "m": {"k": [1, True, b"x", None]}}, flags=257, kind=3)
    ).SerializeToString()

    assert ExportTraceServiceRequest.FromString(
        repair_text(body)
    ) == ExportTraceServiceRequest.FromString(body)


@pytest.mark.parametrize("body", [b"\xff", b"hello", b"\x0a\x05\x0a"])
def test_bytes_that_are_no_request_at_all_are_malformed(body: bytes) -> None:
    with pytest.raises(MalformedRequest):
        decode_export_request(body)


def test_the_lenient_messages_know_every_published_field_that_holds_text() -> None:
    lenient = lenient_pb2.ExportTraceServiceRequest.DESCRIPTOR
    published = ExportTraceServiceRequest.DESCRIPTOR

    assert set(_text_fields(lenient)) == set(_text_fields(published))


def _text_fields(
    descriptor: Any, path: tuple[str, ...] = (), above: tuple[str, ...] = ()
) -> list[tuple[str, int]]:
    """(path, number) of each field of string type, or of bytes type in the lenient messages."""
    if descriptor.name in above:
        return []
    is_lenient = descriptor.full_name.startswith("msgtrace.")
    wanted = FieldDescriptor.TYPE_BYTES if is_lenient else FieldDescriptor.TYPE_STRING
    found: list[tuple[str, int]] = []
    for field in descriptor.fields:
        here = (*path, field.name)
        if field.type == wanted:
            found.append((".".join(here), field.number))
        elif field.message_type is not None:
            found += _text_fields(field.message_type, here, (*above, descriptor.name))
    return found
