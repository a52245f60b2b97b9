"""A large span that is read in place gives the same row, and is not in memory many times."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from msgtrace.errors import MalformedRequest
from msgtrace.model.batch import SpanBatch
from msgtrace.otlp import decode as module
from msgtrace.otlp import in_place
from msgtrace.otlp.decode import decode_export_request
from tests.batches import key_values, request, span

LONG = "long and quoted: \"'\\ \n" * 60_000
"""Above a mebibyte."""


def attributes(**given: Any) -> Span:
    return span(attributes=given)


SPANS = {
    "one text": attributes(text=LONG),
    "among others": attributes(first=1, text=LONG, same=LONG, last="short"),
    "the same twice": attributes(one=LONG + "1", two=LONG + "2"),
    "text of other scripts": attributes(text=LONG + "\0␀é中😀"),
    "key without a length of one byte": span(attributes={"k" * 128: LONG}),
    "key as long as one byte says": span(attributes={"k" * 127: LONG}),
    "no key": span(attributes={"": LONG}),
    "key that looks tagged": span(attributes={"$bytes": LONG}),
    "with a model": span(attributes={"gen_ai.request.model": "m", "text": LONG}),
    "a model of that length": span(attributes={"gen_ai.request.model": LONG}),
    "bytes": attributes(raw=LONG.encode()),
    "list": attributes(texts=[LONG, "short", LONG]),
    "event and link": span(
        events=[Span.Event(name="e", attributes=key_values({"text": LONG}))],
        links=[Span.Link(trace_id=b"1" * 16, attributes=key_values({"text": LONG}))],
    ),
    "name": span(LONG, attributes={"text": LONG}),
    "state and status": span(trace_state=LONG, status_message=LONG, status_code=2),
    "the same byte over and over": attributes(**{f"k{n}": "k" * 100_000 for n in range(30)}),
}


@pytest.fixture
def copied(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Decodes as if nothing was large."""

    def decode(body: bytes) -> SpanBatch:
        with monkeypatch.context() as patch:
            patch.setattr(module, "LARGE_REQUEST_BYTES", len(body))
            return decode_export_request(body)

    return decode


@pytest.mark.parametrize("name", SPANS)
def test_a_large_span_is_decoded_like_any_other(name: str, copied: Any) -> None:
    body = request(SPANS[name]).SerializeToString()
    assert len(body) > in_place.LARGE_REQUEST_BYTES

    assert decode_export_request(body) == copied(body)


def test_text_that_is_not_utf8_is_repaired(copied: Any) -> None:
    body = request(attributes(text=LONG)).SerializeToString().replace(b"and", b"\xff\xfe ")

    assert decode_export_request(body) == copied(body)


@pytest.mark.parametrize("tag", [b"\x0a", b"\x12"])
def test_a_damaged_large_span_is_refused(tag: bytes) -> None:
    """The tag of the key, or of the value, becomes one that nobody may write."""
    body = request(attributes(text=LONG)).SerializeToString()
    pair = body.index(b"\x0a\x04text")
    damaged = pair + (0 if tag == b"\x0a" else 6)
    assert body[damaged : damaged + 1] == tag

    with pytest.raises(MalformedRequest):
        decode_export_request(body[:damaged] + b"\x07" + body[damaged + 1 :])


def test_a_long_text_is_not_in_memory_many_times() -> None:
    body = request(attributes(text="x" * 8_000_000)).SerializeToString()
    tracemalloc.start()
    try:
        decode_export_request(body)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    # Beside the body: the text as it was read, and as JSON in a buffer that grows by a half.
    assert peak_bytes < 2.7 * len(body)


def test_parts_that_cannot_be_told_apart_are_copied() -> None:
    anchor = b"a" * in_place.LONG_PART_BYTES
    parts = [anchor + bytes([number]) for number in range(20)]
    body = b"a" * 100_000 + b"".join(parts)

    assert in_place._Finder(body).views(parts) == parts
