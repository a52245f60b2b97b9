"""Bodies are inflated whole, or refused before they take more memory than a request may."""

from __future__ import annotations

import gzip
import io
import sys
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msgtrace.errors import MalformedRequest, RequestTooLarge, UnsupportedCompression
from msgtrace.model.units import MIB
from msgtrace.receivers.body import (
    IDENTITY,
    MAX_MEMBERS,
    coding_by_content,
    content_coding,
    inflate,
)
from tests.batches import request, span

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

CODINGS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "zstd": zstd.compress,
}

every_coding = pytest.mark.parametrize("coding", CODINGS)

CONTENT = b"some spans " * 1_000


def pieces_of_zeros(mebibytes: int) -> Iterator[bytes]:
    zeros = bytes(MIB)
    for _ in range(mebibytes):
        yield zeros


def gzip_bomb(mebibytes: int) -> bytes:
    """As many mebibytes of zeros, in about a thousandth of that."""
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb") as file:
        for piece in pieces_of_zeros(mebibytes):
            file.write(piece)
    return packed.getvalue()


def deflate_bomb(mebibytes: int) -> bytes:
    packer = zlib.compressobj()
    return b"".join(map(packer.compress, pieces_of_zeros(mebibytes))) + packer.flush()


def zstd_bomb(mebibytes: int) -> bytes:
    packer = zstd.ZstdCompressor()
    return b"".join(map(packer.compress, pieces_of_zeros(mebibytes))) + packer.flush()


BOMBS = {"gzip": gzip_bomb, "deflate": deflate_bomb, "zstd": zstd_bomb}


@every_coding
@given(content=st.binary(max_size=300), limit=st.integers(0, 400))
def test_a_body_within_the_limit_comes_back(coding: str, content: bytes, limit: int) -> None:
    body = CODINGS[coding](content)
    if len(content) <= limit:
        assert inflate(body, coding, limit) == content
    else:
        with pytest.raises(RequestTooLarge):
            inflate(body, coding, limit)


@every_coding
def test_the_limit_is_the_largest_content(coding: str) -> None:
    body = CODINGS[coding](CONTENT)

    assert inflate(body, coding, len(CONTENT)) == CONTENT
    with pytest.raises(RequestTooLarge):
        inflate(body, coding, len(CONTENT) - 1)


@every_coding
def test_content_that_does_not_compress_comes_back(coding: str) -> None:
    noise = bytes((n * n * 7919 >> 5) % 251 for n in range(300_000))

    assert inflate(CODINGS[coding](noise), coding, len(noise)) == noise


@every_coding
def test_an_empty_message_is_empty_and_an_empty_body_is_malformed(coding: str) -> None:
    assert inflate(CODINGS[coding](b""), coding, 1) == b""
    with pytest.raises(MalformedRequest, match="empty"):
        inflate(b"", coding, 1)


def test_a_body_without_a_coding_is_passed_on() -> None:
    assert inflate(b"as it is", IDENTITY, 1) == b"as it is"
    assert inflate(b"", IDENTITY, 1) == b""


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_members_in_a_row_are_one_content(coding: str) -> None:
    body = b"".join(map(CODINGS[coding], (b"one ", b"", b"two ", b"three")))

    assert inflate(body, coding, 13) == b"one two three"
    with pytest.raises(RequestTooLarge):
        inflate(body, coding, 12)


def test_zeros_may_follow_a_member() -> None:
    body = gzip.compress(b"one ") + bytes(5) + gzip.compress(b"two") + bytes(100_000)

    assert inflate(body, "gzip", 100) == b"one two"


@every_coding
@pytest.mark.parametrize("missing", [1, 4, 9, 20])
def test_a_truncated_body_is_malformed(coding: str, missing: int) -> None:
    with pytest.raises(MalformedRequest):
        inflate(CODINGS[coding](CONTENT)[:-missing], coding, MIB)


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
@pytest.mark.parametrize("position", [-1, -3, 0])
def test_a_wrong_checksum_or_header_is_malformed(coding: str, position: int) -> None:
    body = bytearray(CODINGS[coding](CONTENT))
    body[position] ^= 0x55

    with pytest.raises(MalformedRequest):
        inflate(bytes(body), coding, MIB)


@every_coding
@pytest.mark.parametrize("garbage", [b"x", b"garbage " * 20, b"\x1f\x8b"])
def test_garbage_after_a_body_is_malformed(coding: str, garbage: bytes) -> None:
    with pytest.raises(MalformedRequest):
        inflate(CODINGS[coding](CONTENT) + garbage, coding, MIB)


@every_coding
@given(body=st.binary(min_size=1, max_size=200))
def test_any_bytes_are_inflated_or_refused_with_our_errors(coding: str, body: bytes) -> None:
    for each in (body, CODINGS[coding](CONTENT)[: len(body)] + body):
        try:
            inflate(each, coding, MIB)
        except (MalformedRequest, RequestTooLarge):
            continue


@every_coding
def test_a_bomb_is_refused_in_bounded_memory(coding: str) -> None:
    bomb = BOMBS[coding](1024)
    assert len(bomb) < 2 * MIB
    limit = 4 * MIB
    tracemalloc.start()
    try:
        with pytest.raises(RequestTooLarge):
            inflate(bomb, coding, limit)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak_bytes < 4 * limit


def test_a_bomb_in_many_members_is_refused() -> None:
    with pytest.raises(RequestTooLarge):
        inflate(gzip.compress(bytes(MIB)) * 8, "gzip", 4 * MIB)


def test_empty_members_without_end_are_refused_in_little_time() -> None:
    empty = gzip.compress(b"")
    began = time.perf_counter()

    with pytest.raises(MalformedRequest, match="members"):
        inflate(empty * (64 * MIB // len(empty)), "gzip", MIB)

    assert time.perf_counter() - began < 5


def test_as_many_members_as_allowed_are_read() -> None:
    assert inflate(gzip.compress(b"x") * MAX_MEMBERS, "gzip", MIB) == b"x" * MAX_MEMBERS


def test_deflate_is_read_with_and_without_its_header() -> None:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    bare = packer.compress(CONTENT) + packer.flush()

    assert inflate(bare, "deflate", MIB) == CONTENT
    assert inflate(zlib.compress(CONTENT), "deflate", MIB) == CONTENT


@pytest.mark.parametrize(
    ("headers", "coding"),
    [
        ([], IDENTITY),
        ([""], IDENTITY),
        (["identity"], IDENTITY),
        (["gzip"], "gzip"),
        (["x-gzip"], "gzip"),
        ([" GZip "], "gzip"),
        (["deflate"], "deflate"),
        (["zstd"], "zstd"),
        (["identity, gzip"], "gzip"),
        (["", "gzip"], "gzip"),
    ],
)
def test_a_known_coding_is_read_from_its_header(headers: list[str], coding: str) -> None:
    assert content_coding(headers) == coding


@pytest.mark.parametrize("headers", [["br"], ["gzip, gzip"], ["gzip", "deflate"], ["gzip;q=1"]])
def test_any_other_coding_is_refused_with_what_may_be_used(headers: list[str]) -> None:
    with pytest.raises(UnsupportedCompression, match="gzip, deflate, zstd"):
        content_coding(headers)


@pytest.mark.parametrize("level", range(10))
def test_a_message_tells_its_coding_by_itself(level: int) -> None:
    assert coding_by_content(gzip.compress(CONTENT, level)) == "gzip"
    assert coding_by_content(zlib.compress(CONTENT, level)) == "deflate"


@pytest.mark.parametrize("message", [b"", b"\x0a", b"\x0a\x00", b"\x1f", b"\x08\x1d", b"x", b"xy"])
def test_other_messages_are_plain(message: bytes) -> None:
    assert coding_by_content(message) == IDENTITY


def test_requests_are_plain_whatever_is_in_them() -> None:
    for body in (request(span()), request(span(name="x"), span(name="\x1f\x8b\x08"))):
        assert coding_by_content(body.SerializeToString()) == IDENTITY
