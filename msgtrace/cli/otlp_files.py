"""Files of OTLP requests: which form a file has, and the requests in it, one at a time.

Path: cli.export_traces → [cli.otlp_files] → file → [cli.otlp_files] → cli.import_traces.
A name says what is written: .jsonl, .json or .ndjson for a JSON request a line, .binpb, .pb or
.otlp for protobuf requests each behind four bytes of length; .gz or .zst behind it compresses.
What is read says so itself, whatever its name: compressed or not, lines, delimited requests, or one
request alone, as `msgtrace-admin dead-letters export` and `spill export` write them. A request may
be compressed within its length, as the Collector's file exporter did.
Memory is bounded by the largest request.
Sources: OpenTelemetry specification, protocol/file-exporter.md; the Collector's fileexporter.
"""

from __future__ import annotations

import gzip
import io
import re
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol, cast

from msgtrace.model.units import MIB

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

JSON = "json"
PROTOBUF = "protobuf"
ENCODINGS = (JSON, PROTOBUF)

LENGTH_BYTES = 4

MAX_RECORD_BYTES = 64 * MIB
"""Larger requests are not sent: collectors take no larger ones unless told to."""

STDIO = Path("-")

_SUFFIXES = {
    ".json": JSON,
    ".jsonl": JSON,
    ".ndjson": JSON,
    ".binpb": PROTOBUF,
    ".pb": PROTOBUF,
    ".otlp": PROTOBUF,
}
_COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}

_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_RESOURCE_SPANS_TAG = b"\x0a"
"""How a request in protobuf begins, and an empty line; as a length it would mean 160 MiB."""
_JSON_HEAD = re.compile(rb'\s*\{\s*("resource|\})')
_HEAD_BYTES = 64
_GREATEST_LENGTH_BYTE = 0x04
"""A length begins with it or less, as 64 MiB is 0x04000000; no text begins with such a byte."""

_BROKEN = (EOFError, gzip.BadGzipFile, zlib.error, zstd.ZstdError)
"""What reading a damaged compressed file raises."""

_DECODED_WINDOW_LOG = 27
"""128 MiB, what `zstd --long` files may ask for."""


class UnknownForm(ValueError):
    """A name that says no encoding."""


@dataclass(frozen=True, slots=True)
class FileForm:
    """encoding: JSON or PROTOBUF. compression: gzip, zstd or empty."""

    encoding: str
    compression: str


def form_of(path: Path, encoding: str | None) -> FileForm:
    """What a file of this name holds; `encoding` wins over the name. Raises UnknownForm."""
    compression = _COMPRESSIONS.get(path.suffix.lower(), "")
    inner = path.with_suffix("") if compression else path
    named = encoding or (JSON if path == STDIO else _SUFFIXES.get(inner.suffix.lower()))
    if named is None:
        raise UnknownForm(f"{path.name!r} says no format: name it .jsonl or .binpb")
    return FileForm(named, compression)


class Compressor(Protocol):
    """One member of a compressed file; members one after the other are a file as well."""

    def compress(self, data: bytes, /) -> bytes:
        """What can be written now."""
        ...

    def flush(self) -> bytes:
        """The rest."""
        ...


class _Plain:
    def compress(self, data: bytes, /) -> bytes:
        return data

    def flush(self) -> bytes:
        return b""


def open_compressor(compression: str) -> Compressor:
    """A new member of a file with this compression."""
    if compression == "gzip":
        return zlib.compressobj(6, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    if compression == "zstd":
        return cast(Compressor, zstd.ZstdCompressor())
    return _Plain()


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One request of a file, or what stands there instead.

    number: from 1. place: how people find it. body: in `encoding`, ready to be sent.
    problem: why there is no body; empty if there is one.
    """

    number: int
    place: str
    encoding: str = JSON
    body: bytes = b""
    problem: str = ""


def read_records(raw: IO[bytes]) -> Iterator[Record]:
    """Every request of a file in order. After damage that hides where the next one begins it ends.

    Raises OSError if the file cannot be read.
    """
    number = 0
    try:
        for record in _records(_inflated(raw)):
            number = record.number
            yield record
    except _BROKEN:
        place = f"after record {number}" if number else "its beginning"
        yield Record(
            number=number + 1, place=place, problem="the compressed data is damaged or cut off"
        )


def _inflated(raw: IO[bytes]) -> io.BufferedReader:
    file = raw if isinstance(raw, io.BufferedReader) else io.BufferedReader(cast(io.RawIOBase, raw))
    head = file.peek(LENGTH_BYTES)
    if head.startswith(_GZIP_MAGIC):
        return io.BufferedReader(gzip.GzipFile(fileobj=file))
    if head.startswith(_ZSTD_MAGIC):
        options = {int(zstd.DecompressionParameter.window_log_max): _DECODED_WINDOW_LOG}
        return io.BufferedReader(cast(io.RawIOBase, zstd.ZstdFile(file, options=options)))
    return file


def _records(file: io.BufferedReader) -> Iterator[Record]:
    head = file.peek(_HEAD_BYTES)[:_HEAD_BYTES]
    if head.startswith(_RESOURCE_SPANS_TAG) and not _JSON_HEAD.match(head):
        yield _whole(file, b"", PROTOBUF)
    elif head and head[0] <= _GREATEST_LENGTH_BYTE:
        yield from _delimited(file)
    elif head:
        yield from _lines(file)


def _lines(file: io.BufferedReader) -> Iterator[Record]:
    number = 0
    while line := file.readline(MAX_RECORD_BYTES + 1):
        number += 1
        text = line.strip()
        place = f"line {number}"
        if len(line) > MAX_RECORD_BYTES:
            _skip_line(file, line)
            yield Record(number=number, place=place, problem=_TOO_LARGE)
        elif number == 1 and text and not text.endswith(b"}"):
            yield _whole(file, line, JSON)
            return
        elif text:
            yield Record(number=number, place=place, body=text)


def _skip_line(file: io.BufferedReader, line: bytes) -> None:
    while line and not line.endswith(b"\n"):
        line = file.readline(MIB)


def _whole(file: io.BufferedReader, head: bytes, encoding: str) -> Record:
    """The file as one request: one that somebody has written over many lines, or in protobuf."""
    body = head + file.read(MAX_RECORD_BYTES + 1 - len(head))
    if len(body) > MAX_RECORD_BYTES:
        return Record(number=1, place="the whole file", problem=_TOO_LARGE)
    return Record(number=1, place="the whole file", encoding=encoding, body=body)


def _delimited(file: io.BufferedReader) -> Iterator[Record]:
    number = 0
    while prefix := file.read(LENGTH_BYTES):
        number += 1
        place = f"record {number}"
        length = int.from_bytes(prefix, "big")
        if length > MAX_RECORD_BYTES:
            problem = f"it claims to have {length} bytes, so nothing behind it can be found"
            yield Record(number=number, place=place, problem=problem)
            return
        body = file.read(length)
        if len(prefix) < LENGTH_BYTES or len(body) < length:
            yield Record(number=number, place=place, problem="the file ends within it")
            return
        yield _unpacked(number, place, body)


def _unpacked(number: int, place: str, body: bytes) -> Record:
    if body.startswith(_ZSTD_MAGIC):
        try:
            body = zstd.ZstdDecompressor().decompress(body, MAX_RECORD_BYTES + 1)
        except zstd.ZstdError:
            return Record(number=number, place=place, problem="it is not valid zstd")
        if len(body) > MAX_RECORD_BYTES:
            return Record(number=number, place=place, problem=_TOO_LARGE)
    encoding = JSON if body.startswith(b"{") else PROTOBUF
    return Record(number=number, place=place, encoding=encoding, body=body)


_TOO_LARGE = f"it is larger than {MAX_RECORD_BYTES // MIB} MiB"
