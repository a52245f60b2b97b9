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
from collections.abc import Iterable, Iterator
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import msgspec

from msgtrace.model.text import escape_text

WORD_BYTES = 8

LETS_ALL_IN = b"\xff" * WORD_BYTES
"""The filter of a stretch with too many spans to make one."""

_BITS_PER_PAIR = 16
_NUMBER = re.compile(r"-?\d+(\.\d+)?([eE][+-]?\d+)?", re.ASCII)
_BITS = 5

Probe = tuple[int, int]
"""(number that chooses the word, bits that must be set in it), both as signed 64-bit integers."""

_decode = msgspec.json.Decoder().decode


def probes_of(key: str, value: str) -> list[Probe]:
    """What to look for in a filter: one of them is in it if the pair occurs.

    The value is compared with texts, and with numbers if it is one.
    """
    key, value = escape_text(key), escape_text(value)
    pairs = {_pair(key, value)}
    if (number := as_number(value)) is not None:
        pairs.add(_pair(key, _number_text(number)))
    return [_probe(pair) for pair in sorted(pairs)]


def as_number(value: str) -> float | None:
    """The number that a text is, None if it is none."""
    return float(value) if _NUMBER.fullmatch(value) else None


def pairs_of(attributes: str) -> Iterator[str]:
    """The pairs in a stored JSON text of attributes, as `make_filter` takes them.

    Lists, maps and bytes are not searched for.
    """
    for key, value in _decode(attributes).items():
        if isinstance(value, str):
            yield _pair(key, value)
        elif (text := _text(value)) is not None:
            yield _pair(key, text)


def make_filter(pairs: Iterable[str]) -> bytes:
    """The filter of distinct pairs."""
    probes = [_probe(pair) for pair in pairs]
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


def _pair(key: str, value: str) -> str:
    return f"{key}\0{value}"


def _text(value: Any) -> str | None:
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return _number_text(float(value))
        case {"$int": str(text)} | {"$double": str(text)} if len(value) == 1:
            return str(text)
    return None


def _number_text(number: float) -> str:
    return repr(number + 0.0)  # -0.0 is 0.0


@lru_cache(maxsize=65_536)
def _probe(pair: str) -> Probe:
    number = int.from_bytes(blake2b(pair.encode(), digest_size=8).digest())
    place, bits = number >> 32, 0
    for _ in range(_BITS):
        bits |= 1 << (number & 63)
        number >>= 6
    return place, bits - (1 << 64) if bits >> 63 else bits
