"""Guess from the bytes of a request whether it takes long for its size to decode.

An ordinary attribute has some thirty bytes, an empty one has two, and costs as much. To count them
would take as long as to decode them, so the bytes are counted that such elements begin with, in a
sample. The guess is rough: it decides where a request is decoded, never what becomes of it.
"""

from __future__ import annotations

LONG_S = 0.1
"""What is guessed to take longer is dense."""

MIN_BYTES = 32 * 1024
"""Nothing smaller is dense."""

_STRIDE = 61
"""Every so manieth byte is looked at: odd, so that bytes in pairs are seen both, and a prime."""

# Tags of the fields that a request may have most often, with what such a field costs at most, in
# seconds of the Python decoder. In text the same bytes are LF, DC2, SUB, quote, J, Z and j.
_PROTOBUF_COSTS = {
    0x0A: 1.1e-6,  # ResourceSpans, a key, an element of an array or map
    0x12: 2.1e-6,  # ScopeSpans, a span, a value
    0x1A: 2.0e-6,  # an attribute of an event
    0x22: 2.2e-6,  # an attribute of a link
    0x4A: 3.4e-6,  # an attribute of a span
    0x5A: 2.8e-6,  # an event
    0x6A: 3.0e-6,  # a link
}

_JSON_COSTS = {ord("{"): 2.4e-6}


def is_dense_protobuf(body: bytes) -> bool:
    """Whether an export request is dense."""
    return _takes_long(body, _PROTOBUF_COSTS)


def is_dense_json(body: bytes) -> bool:
    """The same for OTLP/JSON."""
    return _takes_long(body, _JSON_COSTS)


def _takes_long(body: bytes, costs: dict[int, float]) -> bool:
    if len(body) < MIN_BYTES:
        return False
    sample = body[::_STRIDE]
    return sum(sample.count(byte) * cost for byte, cost in costs.items()) * _STRIDE > LONG_S
