"""Values at the edges of what requests may hold, and beyond, for every encoding."""

from __future__ import annotations

import math

from msgtrace.model.genai import ALIASES
from msgtrace.model.span import SPAN_ID_BYTES, TRACE_ID_BYTES

INTEGERS = [
    *(0, 1, 2, 3, 127, 128, 200),
    *(
        sign * 2**bits + more
        for bits in (31, 32, 53, 63, 64)
        for sign in (1, -1)
        for more in (-1, 0, 1)
    ),
    10**18,
    10**30,
    10**400,
]

DOUBLES = [
    *(0.0, -0.0, 1.0, -1.5, 0.1, 1 / 3, 5e-324, 1.7976931348623157e308, 2.0**53, 2.0**63),
    *(1e15, 1e16, 1e17, 123456789012345680.0, 1e21, 1e22, 1e23, 1e-4, 1e-5, 1e-6, 1e-7, 9.5e-7),
    *(math.nan, math.inf, -math.inf),
]

TEXTS = [
    b"",
    b"a",
    b"0",
    b"12",
    b"chat",
    b"execute_tool",
    b"gpt-4o",
    b'{"a":[1]}',
    "é€😀".encode(),
    "␀".encode(),
    "␀0␀␀".encode(),
    b"\0",
    b"a\0b",
    b'\x01\x08\x09\x0a\x0c\x0d\x1f\x7f"\\/',
    b"\xff",
    b"\xc0\x80",  # overlong
    b"\xed\xa0\x80",  # a surrogate
    b"\xed\xa0\xbd\xed\xb8\x80",  # a pair of them
    b"\xf4\x90\x80\x80",  # beyond Unicode
    b"\xf0\x9f\x98",  # cut off
    b"\xef\xbb\xbf",  # a byte order mark
    b"\xef\xbf\xbf",  # no character, but UTF-8
    b"x" * 300,
    "␀".encode() * 300,
]

LONG_TEXT = b"long \xc3\xa9 " * 140_000
"""Makes of a request one that is decoded in place, where msgtrace does so."""

LONG_TEXTS = 0.002
"""How often a text is that one."""

KEYS = [
    *sorted(name.encode() for names in ALIASES.values() for name in names),
    b"service.name",
    b"$map",
    b"$int",
    b"$bytes",
    b"$",
    *TEXTS,
]

IDS = [
    *(bytes([n]) * TRACE_ID_BYTES for n in range(3)),
    *(bytes([n]) * SPAN_ID_BYTES for n in range(3)),
    *(b"\x01" * size for size in (0, 1, 7, 9, 15, 17, 32)),
]

DEPTHS = [
    1,
    2,
    14,
    15,
    16,
    17,
    24,
    25,
    31,
    32,
    33,
    48,
    49,
    50,
    51,
    63,
    64,
    65,
    98,
    99,
    100,
    101,
    200,
]
"""Of values in one another: around the limits of both decoders, of protobuf and of JSON."""
