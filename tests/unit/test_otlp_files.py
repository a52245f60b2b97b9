"""Files of OTLP requests are read whatever wrote them, and what is damaged in them is told of."""

from __future__ import annotations

import gzip
import io
import sys
from pathlib import Path

import pytest

from msgtrace.cli import otlp_files
from msgtrace.cli.otlp_files import (
    FileForm,
    Record,
    UnknownForm,
    form_of,
    open_compressor,
    read_records,
)
from tests.batches import request, span

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

LINES = b'{"resourceSpans":[]}\n{"resourceSpans":[{}]}\n'
MESSAGES = [request(span(name)).SerializeToString() for name in ("a", "b", "c")]


def delimited(*messages: bytes) -> bytes:
    return b"".join(len(each).to_bytes(4, "big") + each for each in messages)


def read(content: bytes) -> list[Record]:
    return list(read_records(io.BytesIO(content)))


def bodies(content: bytes) -> list[bytes]:
    records = read(content)
    assert [record.problem for record in records] == [""] * len(records)
    return [record.body for record in records]


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("a.jsonl", FileForm("json", "")),
        ("a.JSON.gz", FileForm("json", "gzip")),
        ("a.ndjson.zst", FileForm("json", "zstd")),
        ("a.binpb", FileForm("protobuf", "")),
        ("a.b.pb.zst", FileForm("protobuf", "zstd")),
        ("-", FileForm("json", "")),
    ],
)
def test_a_name_says_the_form(name: str, form: FileForm) -> None:
    assert form_of(Path(name), None) == form


def test_a_name_that_says_nothing_needs_the_encoding() -> None:
    with pytest.raises(UnknownForm, match=r"'traces' says no format: name it \.jsonl or \.binpb"):
        form_of(Path("traces"), None)

    assert form_of(Path("traces.gz"), "protobuf") == FileForm("protobuf", "gzip")


@pytest.mark.parametrize("compression", ["", "gzip", "zstd"])
@pytest.mark.parametrize("content", [LINES, delimited(*MESSAGES)], ids=["lines", "delimited"])
def test_members_one_after_the_other_are_one_file(content: bytes, compression: str) -> None:
    written = b""
    for half in (content[:30], content[30:]):
        member = open_compressor(compression)
        written += member.compress(half) + member.flush()

    assert bodies(written) == bodies(content)
    assert len(bodies(content)) == content.count(b"\n") or len(bodies(content)) == 3


def test_each_line_is_a_request_and_empty_ones_are_none() -> None:
    records = read(b"\n" + LINES.replace(b"\n", b"\r\n\n"))

    assert [(record.place, record.encoding) for record in records] == [
        ("line 2", "json"),
        ("line 4", "json"),
    ]
    assert records[0].body == b'{"resourceSpans":[]}'


def test_protobuf_requests_stand_behind_their_length() -> None:
    records = read(delimited(*MESSAGES, b""))

    assert [record.body for record in records] == [*MESSAGES, b""]
    assert {record.encoding for record in records} == {"protobuf"}
    assert [record.place for record in records][:2] == ["record 1", "record 2"]


def test_requests_compressed_within_their_length_are_read() -> None:
    packed = delimited(zstd.compress(MESSAGES[0]), zstd.compress(b'{"resourceSpans":[]}'))

    assert [(record.encoding, record.body) for record in read(packed)] == [
        ("protobuf", MESSAGES[0]),
        ("json", b'{"resourceSpans":[]}'),
    ]


@pytest.mark.parametrize(
    ("content", "encoding"),
    [(MESSAGES[0], "protobuf"), (b'{\n  "resourceSpans": [\n  ]\n}\n', "json")],
    ids=["protobuf", "json"],
)
def test_a_file_of_one_request_is_read(content: bytes, encoding: str) -> None:
    [record] = read(content)

    assert (record.encoding, record.body) == (encoding, content)
    assert record.place == "the whole file"


def test_an_empty_file_has_no_request() -> None:
    assert read(b"") == []
    assert read(gzip.compress(b"")) == []


@pytest.mark.parametrize("kept", [1, 3, 10])
def test_a_file_that_ends_within_a_request_keeps_those_before(kept: int) -> None:
    records = read(delimited(MESSAGES[0]) + delimited(MESSAGES[1])[:kept])

    assert [record.body for record in records] == [MESSAGES[0], b""]
    assert records[1].problem == "the file ends within it"


def test_a_length_that_cannot_be_ends_the_file() -> None:
    records = read(delimited(MESSAGES[0]) + b"\xff\xff\xff\xff" + MESSAGES[1])

    assert records[0].body == MESSAGES[0]
    assert "claims to have 4294967295 bytes" in records[1].problem
    assert len(records) == 2


@pytest.mark.parametrize(
    "packed", [gzip.compress(LINES), zstd.compress(LINES)], ids=["gzip", "zstd"]
)
def test_a_damaged_compressed_file_is_told_of(packed: bytes) -> None:
    records = read(packed[:-6])

    assert records[-1].problem == "the compressed data is damaged or cut off"
    assert "after record" in records[-1].place or records[-1].place == "its beginning"


def test_a_request_within_its_length_that_is_not_zstd_costs_only_itself() -> None:
    records = read(delimited(b"\x28\xb5\x2f\xfd-nothing", MESSAGES[0]))

    assert [record.problem for record in records] == ["it is not valid zstd", ""]


def test_what_is_too_large_costs_only_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otlp_files, "MAX_RECORD_BYTES", 40)
    lines = read(b"{%s}\n{}\n" % (b" " * 100_000))
    bombs = read(delimited(zstd.compress(b"{" * 100_000)))

    assert [(record.problem, record.body) for record in lines] == [
        ("it is larger than 64 MiB", b""),
        ("", b"{}"),
    ]
    assert [record.problem for record in bombs] == ["it is larger than 64 MiB"]
