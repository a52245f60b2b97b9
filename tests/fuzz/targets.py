"""What takes bytes from strangers, each with requests to begin from.

A target may raise RequestError, which a sender is told; anything else is a fault. A target also
asserts what must hold of what it made.
"""

from __future__ import annotations

import gzip
import importlib
import importlib.util
import json
import random
import sys
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue, KeyValueList

from msgtrace.errors import RequestError
from msgtrace.otlp.decode import decode_export_request
from msgtrace.otlp.json import decode_export_json
from msgtrace.otlp.values import attributes_from_json, attributes_to_json
from msgtrace.receivers.body import content_coding, inflate
from msgtrace.receivers.encoding import answer_encoding, encoding_of
from msgtrace.receivers.other_signals import SIGNALS, discard, discard_json
from msgtrace.settings.table import NATIVE_PACKAGE
from tests.conformance.data_cases import CASES
from tests.conformance.json_encoder import to_json
from tests.fuzz.batches import REFUSED, TAKEN, check_batch
from tests.fuzz.exports import normalize
from tests.fuzz.json_mutations import mutate_json
from tests.fuzz.mutations import mutate
from tests.fuzz.wire_mutations import mutate_attributes, mutate_request

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

FIXTURES = Path(__file__).parents[1] / "fixtures"

INFLATED_BYTES = 1 << 20
"""What `inflate` may make."""


MAX_KNOWN_BYTES = 20_000
"""Larger requests would take the time of many."""

MAX_PROBLEM_CHARS = 500
"""A refusal goes into an answer and a log line."""


Run = Callable[[bytes], str | None]
Mutate = Callable[[random.Random, bytes, Sequence[bytes]], bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """run: takes bytes, and may say what became of them. corpus: bytes that it likes.

    mutate: changes such bytes. encode: makes them of a request, if they are one.
    """

    run: Run
    corpus: Sequence[bytes]
    mutate: Mutate = mutate
    encode: Callable[[ExportTraceServiceRequest], bytes] | None = None

    def try_out(self, body: bytes) -> str:
        """Run, where a refusal is as good as a success; which it was. Raises what is a fault."""
        try:
            return self.run(body) or TAKEN
        except RequestError as refusal:
            problem = str(refusal)
        assert 0 < len(problem) < MAX_PROBLEM_CHARS
        return REFUSED


def _protobuf(body: bytes) -> None:
    check_batch(decode_export_request(body))


def _json(body: bytes) -> None:
    check_batch(decode_export_json(body))


def _inflate(coding: str) -> Run:
    def run(body: bytes) -> None:
        assert len(inflate(body, coding, INFLATED_BYTES)) <= INFLATED_BYTES

    return run


def _headers(body: bytes) -> None:
    lines = body.decode("latin-1").split("\n")
    answer_encoding(lines[0])
    content_coding(lines[1:])
    encoding_of(lines[0])


def _values(body: bytes) -> None:
    try:
        pairs = list(KeyValueList.FromString(body).values)
    except DecodeError:
        return
    stored = attributes_to_json(pairs)
    assert "\0" not in stored
    back = attributes_from_json(stored)
    normalize(pairs)
    normalize(back)
    assert list(map(_bytes_of, back)) == list(map(_bytes_of, pairs))


def _bytes_of(pair: KeyValue) -> bytes:
    """What tells values apart: two zeros are equal, though their signs are not."""
    return pair.SerializeToString(deterministic=True)


def _other_signals(body: bytes) -> None:
    for signal in SIGNALS:
        for answer in (discard, discard_json):
            try:
                answer(signal, body)
            except RequestError:
                continue


def _captured() -> list[ExportTraceServiceRequest]:
    found = [*FIXTURES.glob("*.binpb"), *FIXTURES.glob("exporters/*-none.binpb")]
    return [ExportTraceServiceRequest.FromString(path.read_bytes()) for path in sorted(found)]


_TRACE_ID = bytes(range(1, 17))

_REQUESTS = [
    *(made for made in _captured() if made.ByteSize() < MAX_KNOWN_BYTES),
    *(
        made
        for case in CASES.values()
        if (made := case.send(_TRACE_ID)).ByteSize() < MAX_KNOWN_BYTES
    ),
]


def _to_binary(request: ExportTraceServiceRequest) -> bytes:
    body: bytes = request.SerializeToString()
    return body


_BINARY = [_to_binary(request) for request in _REQUESTS]
_TEXT = [to_json(request) for request in _REQUESTS]
_SMALL = sorted(_BINARY, key=len)[:8]

TARGETS: dict[str, Target] = {
    "protobuf": Target(run=_protobuf, corpus=_BINARY, mutate=mutate_request, encode=_to_binary),
    "json": Target(run=_json, corpus=_TEXT, mutate=mutate_json, encode=to_json),
    "gzip": Target(run=_inflate("gzip"), corpus=[gzip.compress(each) * 2 for each in _SMALL]),
    "deflate": Target(run=_inflate("deflate"), corpus=[zlib.compress(each) for each in _SMALL]),
    "zstd": Target(run=_inflate("zstd"), corpus=[zstd.compress(each) * 2 for each in _SMALL]),
    "headers": Target(
        run=_headers,
        corpus=[
            b"application/json; charset=utf-8\nidentity, identity\nX-GZIP",
            b"Application/X-Protobuf\n zstd,,",
        ],
    ),
    "values": Target(
        run=_values,
        corpus=[
            KeyValueList(values=span.attributes).SerializeToString()
            for request in _REQUESTS
            for span in request.resource_spans[0].scope_spans[0].spans
        ][:40],
        mutate=mutate_attributes,
    ),
    "other signals": Target(
        run=_other_signals,
        corpus=[
            *_SMALL,
            json.dumps({"resourceLogs": [{"scopeLogs": [{"logRecords": [{}]}]}]}).encode(),
        ],
    ),
}

HAS_NATIVE = importlib.util.find_spec(NATIVE_PACKAGE) is not None

if HAS_NATIVE:
    decoders = importlib.import_module("tests.fuzz.decoders")
    TARGETS |= {
        "protobuf by both decoders": Target(
            run=decoders.compare_protobuf, corpus=_BINARY, mutate=mutate_request, encode=_to_binary
        ),
        "json by both decoders": Target(
            run=decoders.compare_json, corpus=_TEXT, mutate=mutate_json, encode=to_json
        ),
    }
