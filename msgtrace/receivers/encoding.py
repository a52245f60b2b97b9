"""The two encodings of OTLP.

How a request is cut into pieces, and how an answer of the same kind is made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from msgtrace.errors import UnsupportedMediaType
from msgtrace.model.batch import SpanBatch
from msgtrace.otlp import encodings
from msgtrace.otlp.density import is_dense_json, is_dense_protobuf
from msgtrace.otlp.encode import (
    encode_export_json,
    encode_export_response,
    encode_status,
    encode_status_json,
)
from msgtrace.otlp.split import check_json, split_request


@dataclass(frozen=True, slots=True)
class Encoding:
    """One encoding.

    `split` cuts a large request into ones of about so many bytes, where the encoding allows it.
    `is_dense` says of a small one that it may take long nevertheless.
    `encode_status` takes (code, message, retry_after_s).
    """

    name: str
    media_type: str
    split: Callable[[bytes, int], Iterator[bytes]]
    is_dense: Callable[[bytes], bool]
    encode_response: Callable[[SpanBatch], bytes]
    encode_status: Callable[[int, str, int | None], bytes]


PROTOBUF = Encoding(
    encodings.PROTOBUF,
    "application/x-protobuf",
    split_request,
    is_dense_protobuf,
    encode_export_response,
    encode_status,
)
JSON = Encoding(
    encodings.JSON,
    "application/json",
    check_json,
    is_dense_json,
    encode_export_json,
    encode_status_json,
)

_BY_MEDIA_TYPE = {each.media_type: each for each in (PROTOBUF, JSON)}


def encoding_of(content_type: str) -> Encoding:
    """The encoding that a Content-Type names. Raises UnsupportedMediaType."""
    encoding = _BY_MEDIA_TYPE.get(_media_type(content_type))
    if encoding is None:
        offered = " or ".join(_BY_MEDIA_TYPE)
        raise UnsupportedMediaType(f"Content-Type must be {offered}, not {content_type[:80]!r}")
    return encoding


def answer_encoding(content_type: str) -> Encoding:
    """The encoding for an answer: the request's, or JSON, which people read, for any other."""
    return _BY_MEDIA_TYPE.get(_media_type(content_type), JSON)


def _media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()
