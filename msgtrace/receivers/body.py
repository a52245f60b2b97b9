"""Inflate request bodies within bounds: a small body may claim to hold gigabytes."""

from __future__ import annotations

import zlib

from msgtrace.errors import MalformedRequest, RequestTooLarge, UnsupportedCompression

_GZIP = frozenset(("gzip", "x-gzip"))
_PLAIN = frozenset(("", "identity"))

_ZLIB_GZIP_WINDOW = 31  # zlib's way to ask for the gzip format
_EMPTY_MEMBER_PADDING = b"\0"


def is_compressed(coding: str) -> bool:
    """Whether a Content-Encoding means that the body must be inflated.

    Raises UnsupportedCompression for a coding that is not gzip.
    """
    name = coding.strip().lower()
    if name in _PLAIN:
        return False
    if name in _GZIP:
        return True
    raise UnsupportedCompression(
        f"Content-Encoding {coding[:40]!r} is not supported; use gzip or none"
    )


def inflate_gzip(body: bytes, max_bytes: int) -> bytes:
    """The content of a gzip body; concatenated members count as one.

    Never holds more than `max_bytes` of content. Raises RequestTooLarge beyond it, MalformedRequest
    for anything but whole gzip members.
    """
    parts: list[bytes] = []
    size, rest = 0, body
    while rest:
        member = zlib.decompressobj(_ZLIB_GZIP_WINDOW)
        try:
            part = member.decompress(rest, max_bytes - size + 1)
        except zlib.error as error:
            raise MalformedRequest("the body is not valid gzip") from error
        size += len(part)
        if size > max_bytes:
            raise RequestTooLarge(f"the body inflates to more than {max_bytes} bytes")
        if not member.eof:
            raise MalformedRequest("the gzip body is truncated")
        parts.append(part)
        rest = member.unused_data.lstrip(_EMPTY_MEMBER_PADDING)
    return b"".join(parts)
