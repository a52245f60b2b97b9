"""Know without looking in which stretches of time an attribute certainly does not occur.

A filter says of the traces that start within a stretch which (key, value) pairs their spans and
resources may carry: a Bloom filter, blocked into 64-bit words so that one word is read a pair, of
16 bits a pair, which lets in one stretch of about two hundred by mistake. What a filter lets in is
looked at span by span; so a filter may say too much and never too little.
Filters are made behind the writers, by `storage.filter_maker`, and taken away by triggers of the
database when a trace in their stretch changes. Where there is none, everything is looked at.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable
from typing import Any
from zlib import crc32

import msgspec

from msgtrace.model.text import escape_text

WORD_BYTES = 8

LETS_ALL_IN = b"\xff" * WORD_BYTES
"""The filter of a stretch with too many spans to make one."""

_BITS_PER_PAIR = 16
_NUMBER = re.compile(r"-?\d+(\.\d+)?([eE][+-]?\d+)?", re.ASCII)

Probe = tuple[int, int]
"""(number that chooses the word, bits that must be set in it), both as signed 64-bit integers."""

Pair = tuple[str, Any]
"""A key, and a text, number or truth as JSON has it."""

_decode = msgspec.json.Decoder().decode

# Spreads the 32 bits of a checksum over 64; the odd number is 2**64 divided by the golden ratio.
_SPREAD = 0x9E3779B97F4A7C15
_TWO_BITS = [1 << (number & 63) | 1 << (number >> 6) for number in range(1 << 12)]


def probes_of(key: str, value: str) -> list[Probe]:
    """What to look for in a filter: one of them is in it if the pair occurs.

    The value is compared with texts, and with numbers if it is one.
    """
    key, value = escape_text(key), escape_text(value)
    texts = {value}
    if (number := as_number(value)) is not None:
        texts.add(_number_text(number))
    return [_probe(key, text) for text in sorted(texts)]


def as_number(value: str) -> float | None:
    """The number that a text is, None if it is none."""
    return float(value) if _NUMBER.fullmatch(value) else None


def pairs_of(texts: Iterable[str]) -> set[Pair]:
    """The distinct pairs in stored JSON texts of attributes, as `make_filter` takes them.

    Lists, maps and bytes are not searched for.
    """
    pairs: set[Pair] = set()
    for text in texts:
        attributes = _decode(text)
        try:
            pairs.update(attributes.items())
        except TypeError:  # a list or a map among them
            pairs.update(filter(None, map(_plain, attributes.items())))
    return pairs


def _plain(pair: Pair) -> Pair | None:
    key, value = pair
    match value:
        case {"$int": str(text)} | {"$double": str(text)} if len(value) == 1:
            return key, text
        case dict() | list():
            return None
    return pair


def make_filter(pairs: Iterable[Pair]) -> bytes:
    """The filter of distinct pairs."""
    probes = [_probe(key, text) for key, value in pairs for text in _texts(value)]
    words = [0] * max(1, -(-len(probes) * _BITS_PER_PAIR // (8 * WORD_BYTES)))
    for place, bits in probes:
        words[place % len(words)] |= bits
    return struct.pack(f">{len(words)}q", *words)


def lets_in(made: bytes | None, place: int, bits: int) -> bool:
    """Whether a filter has the bits of a probe; True where there is no filter."""
    if made is None:
        return True
    start = place % (len(made) // WORD_BYTES) * WORD_BYTES
    return int.from_bytes(made[start : start + WORD_BYTES], signed=True) & bits == bits


def _texts(value: Any) -> tuple[str, ...]:
    """What a search may say for the value."""
    if isinstance(value, str):
        return (value,)
    if value is None:
        return ()
    number = _number_text(float(value))
    # To Python True is 1, so of two such pairs a set keeps one.
    return (number, "true" if value else "false") if value in (0, 1) else (number,)


def _number_text(number: float) -> str:
    return repr(number + 0.0)  # -0.0 is 0.0


def _probe(key: str, text: str) -> Probe:
    number = crc32(f"{key}\0{text}".encode()) * _SPREAD
    bits = _TWO_BITS[number & 4095] | _TWO_BITS[number >> 12 & 4095] | 1 << (number >> 24 & 63)
    return number >> 32 & 0xFFFFFFFF, bits - (1 << 64) if bits >> 63 else bits
