"""Inflate request bodies within bounds: a small body may claim to hold gigabytes."""

from __future__ import annotations

import re
import sys
import zlib
from collections.abc import Callable, Sequence
from typing import Protocol

from msgtrace.errors import MalformedRequest, RequestTooLarge, UnsupportedCompression

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

IDENTITY = "identity"

_GZIP_WINDOW = 16 + zlib.MAX_WBITS  # zlib's way to ask for the gzip format
_RAW_WINDOW = -zlib.MAX_WBITS

_GZIP_MAGIC = b"\x1f\x8b\x08"  # RFC 1952, 2.3.1
_ZLIB_WINDOW = b"\x78"  # 32 KiB, RFC 1950, 2.2

_ZSTD_WINDOW_LOG = 23
"""8 MiB, what decoders are asked to support (RFC 8878, 3.1.1.1.2).

A frame may ask for gigabytes.
"""


# Zero bytes may stand between members.
_PADDING = re.compile(rb"\0*")

MAX_MEMBERS = 10_000
"""Members a body may consist of; an empty one has 20 bytes and costs some microseconds."""

_SLICE_BYTES = 64 * 1024
"""What one step reads: each end of a member copies the rest of its slice."""


class _Decompressor(Protocol):
    """One member or frame."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


def content_coding(codings: Sequence[str]) -> str:
    """The one coding of a body, from the values of Content-Encoding: "identity" or one to inflate.

    Raises UnsupportedCompression for a coding that is not known, and for several at once.
    """
    names = [
        name for value in codings for part in value.split(",") if (name := part.strip().lower())
    ]
    given = [_ALIASES.get(name, name) for name in names if name != IDENTITY]
    if not given:
        return IDENTITY
    if len(given) > 1 or given[0] not in _OPENERS:
        offered = ", ".join(_OPENERS)
        named = ", ".join(codings)[:80]
        raise UnsupportedCompression(f"Content-Encoding {named!r}: use one of {offered}, or none")
    return given[0]


def coding_by_content(message: bytes) -> str:
    """The coding of a gRPC message, of which gRPC does not tell: gzip, deflate or none.

    No protobuf begins like gzip. One that began like zlib, as gRPC's clients write it, would begin
    with field 15, which no request has.
    """
    if message.startswith(_GZIP_MAGIC):
        return "gzip"
    is_zlib = message.startswith(_ZLIB_WINDOW) and _has_zlib_header(message)
    return "deflate" if is_zlib else IDENTITY


def inflate(body: bytes, coding: str, max_bytes: int) -> bytes:
    """The content of a body in a coding of `content_coding`; concatenated members count as one.

    Never holds more than `max_bytes` of content. Raises RequestTooLarge beyond it,
    MalformedRequest for anything but whole members.
    """
    if coding == IDENTITY:
        return body
    if not body:
        raise MalformedRequest(f"the {coding} body is empty")
    parts: list[bytes] = []
    size, position = 0, 0
    for _ in range(MAX_MEMBERS):
        part, position = _inflate_member(body, position, coding, max_bytes - size)
        parts.append(part)
        size += len(part)
        if position == len(body):
            return b"".join(parts)
    raise MalformedRequest(f"the {coding} body has more than {MAX_MEMBERS} members")


def _inflate_member(body: bytes, start: int, coding: str, max_bytes: int) -> tuple[bytes, int]:
    """The content of the member that begins at `start`, and where the next one begins."""
    member = _OPENERS[coding](body[start : start + 2])
    parts: list[bytes] = []
    size = 0
    for position in range(start, len(body), _SLICE_BYTES):
        piece = body[position : position + _SLICE_BYTES]
        try:
            part = member.decompress(piece, max_bytes - size + 1)
        except (zlib.error, zstd.ZstdError) as error:
            raise MalformedRequest(f"the body is not valid {coding}") from error
        parts.append(part)
        size += len(part)
        if size > max_bytes:
            raise RequestTooLarge("the body inflates to more than the limit of a request")
        if member.eof:
            end = position + len(piece) - len(member.unused_data)
            return b"".join(parts), _PADDING.match(body, end).end()  # type: ignore[union-attr]  # matches anywhere
    raise MalformedRequest(f"the {coding} body is truncated")


def _open_gzip(_body: bytes) -> _Decompressor:
    return zlib.decompressobj(_GZIP_WINDOW)


def _open_deflate(body: bytes) -> _Decompressor:
    """HTTP's deflate is the zlib format, but some clients send it without zlib's header."""
    return zlib.decompressobj(zlib.MAX_WBITS if _has_zlib_header(body) else _RAW_WINDOW)


def _has_zlib_header(body: bytes) -> bool:
    """RFC 1950, 2.2."""
    return len(body) >= 2 and body[0] & 0x0F == 8 and (body[0] << 8 | body[1]) % 31 == 0


def _open_zstd(_body: bytes) -> _Decompressor:
    return zstd.ZstdDecompressor(
        options={zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG}
    )


_OPENERS: dict[str, Callable[[bytes], _Decompressor]] = {
    "gzip": _open_gzip,
    "deflate": _open_deflate,
    "zstd": _open_zstd,
}

_ALIASES = {"x-gzip": "gzip", "zlib": "deflate"}  # the latter as the Collector calls it
