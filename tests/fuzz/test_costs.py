"""What a hostile request may cost: time in proportion to its size, memory that does not add up."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import gzip
import time
import tracemalloc
import zlib
from collections.abc import Callable

import pytest

from msgtrace.errors import MalformedRequest
from msgtrace.model.batch import SpanBatch
from msgtrace.otlp.decode import decode_export_request
from msgtrace.otlp.json import decode_export_json
from msgtrace.otlp.values import attributes_from_json, attributes_to_json
from msgtrace.receivers.body import MAX_MEMBERS, inflate
from msgtrace.receivers.budget import ByteBudget
from msgtrace.receivers.encoding import JSON
from msgtrace.receivers.export import TraceExport
from tests.batches import key_values, request, span
from tests.conformance.json_encoder import to_json
from tests.sinks import Nowhere

MIB = 1024 * 1024

Decode = Callable[[bytes], SpanBatch]


def seconds(call: Callable[[], object]) -> float:
    """CPU seconds of this thread, the best of a few: others use this machine too.

    Without garbage collection, whose cost follows the objects of all tests before this one.
    """
    best = float("inf")
    gc.collect()
    gc.disable()
    try:
        for _ in range(3):
            started = time.thread_time()
            call()
            best = min(best, time.thread_time() - started)
    finally:
        gc.enable()
    return best


def nested(depth: int, *keys: str) -> object:
    """Maps in maps with these keys, of which the first leads down."""
    value: object = "bottom"
    for _ in range(depth):
        value = {keys[0]: value} | dict.fromkeys(keys[1:], "x")
    return value


@pytest.mark.parametrize("keys", [("k",), ("",), ("", "a"), ("$map",), ("$bytes",)])
@pytest.mark.parametrize("encoding", ["protobuf", "json"])
def test_maps_nested_thirty_deep_cost_no_more_than_flat_ones(
    encoding: str, keys: tuple[str, ...]
) -> None:
    export = request(span(attributes={"deep": nested(30, *keys)}))
    decode: Decode
    if encoding == "json":
        body, decode = to_json(export), decode_export_json
    else:
        body, decode = export.SerializeToString(), decode_export_request

    assert seconds(lambda: decode(body)) < 0.05


def test_nested_tagged_maps_are_read_back_in_proportion() -> None:
    pairs = key_values({"deep": nested(30, "$map")})
    stored = attributes_to_json(pairs)

    assert seconds(lambda: attributes_from_json(stored)) < 0.05


ELEMENTS: dict[str, tuple[Decode, bytes, bytes, bytes]] = {
    "spans": (
        decode_export_json,
        b'{"resourceSpans":[{"scopeSpans":[{"spans":[',
        b"{},",
        b"]}]}]}",
    ),
    "envelopes": (decode_export_json, b'{"resourceSpans":[', b"{},", b"]}"),
    "attributes": (
        decode_export_json,
        b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"attributes":[',
        b"{},",
        b"]}]}]}]}",
    ),
    "digits": (
        decode_export_json,
        b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"endTimeUnixNano":"0.',
        b"99",
        b'"}]}]}]}',
    ),
    "lone surrogates": (decode_export_json, b'{"x":"', rb"\ud800", b'"}'),
    "binary envelopes": (decode_export_request, b"", b"\x0a\x00", b""),
}


@pytest.mark.parametrize("case", ELEMENTS.values(), ids=ELEMENTS)
def test_time_grows_no_faster_than_the_body(case: tuple[Decode, bytes, bytes, bytes]) -> None:
    decode, head, element, tail = case

    def took_s(count: int) -> float:
        body = head + element * (count - 1) + element.rstrip(b",") + tail
        return seconds(lambda: refused_or_decoded(decode, body))

    small_s, large_s = took_s(10_000), took_s(80_000)

    assert large_s < 0.05 + 24 * small_s  # 8 times the size; three times that for the noise


def refused_or_decoded(decode: Decode, body: bytes) -> None:
    with contextlib.suppress(MalformedRequest):
        decode(body)


@pytest.mark.parametrize("compress", [gzip.compress, zlib.compress], ids=["gzip", "deflate"])
def test_many_small_members_are_bounded(compress: Callable[[bytes], bytes]) -> None:
    coding = "gzip" if compress is gzip.compress else "deflate"
    most = compress(b"") * MAX_MEMBERS

    assert seconds(lambda: inflate(most, coding, MIB)) < 3
    with pytest.raises(MalformedRequest):
        inflate(most * 2, coding, MIB)


@pytest.mark.parametrize("size", [2 * MIB, 8 * MIB])
async def test_contents_of_small_bodies_are_not_held_all_at_once(size: int) -> None:
    """A budget on bodies under way does not see what they inflate to."""
    bomb = gzip.compress(b'{"unknown":"' + b"x" * size + b'"}')
    export = TraceExport(Nowhere(), max_request_bytes=64 * MIB, budget=ByteBudget(64 * MIB))
    tracemalloc.start()
    try:
        await asyncio.gather(*(export.export(bomb, JSON, "gzip", wire="http") for _ in range(20)))
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak_bytes < 6 * size
