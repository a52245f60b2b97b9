"""Decode OTLP/JSON trace exports, to the same rows as protobuf.

Path: receivers → [otlp.json] → pipeline.batcher → storage. Pure: bytes in, SpanBatch out.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from typing import Any

import msgspec

from msgtrace.errors import MalformedRequest
from msgtrace.model.batch import SpanBatch
from msgtrace.model.genai import GenAiFacts, read_facts
from msgtrace.model.prices import BUILT_IN, PriceTable
from msgtrace.model.span import DEFAULT_TENANT, JsonText, TenantId
from msgtrace.model.text import escape_text
from msgtrace.otlp.json_messages import (
    INT32,
    INT64,
    AnyValue,
    ExportTraceServiceRequest,
    KeyValue,
    to_integer,
)
from msgtrace.otlp.rows import Content, make_batch, read_resource, read_scope
from msgtrace.otlp.values import as_map, plain_bytes, plain_double, plain_int, to_json

MAX_DEPTH = 100
"""Arrays and maps nested deeper are refused, as protobuf refuses them."""

_MAX_PROBLEM_CHARS = 300

_decode = msgspec.json.Decoder(ExportTraceServiceRequest).decode

_UNSET = AnyValue()

# A pair of surrogates is a character and stays; one alone is none.
_SURROGATES = re.compile(
    rb"\\\\|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u[dD][89a-fA-F][0-9a-fA-F]{2}"
)
_PAIR_BYTES = 12
_REPLACEMENT = rb"\ufffd"


def decode_export_json(
    body: bytes, *, tenant_id: TenantId = DEFAULT_TENANT, prices: PriceTable = BUILT_IN
) -> SpanBatch:
    """Decode one ExportTraceServiceRequest in OTLP/JSON, already inflated and size-checked.

    What is no character (a lone surrogate, a byte that is not UTF-8) becomes U+FFFD.
    Raises MalformedRequest for a syntax error, and for a value of the wrong JSON type, out of range
    or nested too deep. See `otlp.rows` for what becomes of a span.
    """
    try:
        request = _parse(body)
        return make_batch(
            request, _READER, tenant_id=tenant_id, body_bytes=len(body), prices=prices
        )
    except msgspec.ValidationError as error:
        # Its text names the expected type and the place, which may be deep, never the value.
        problem = str(error)[:_MAX_PROBLEM_CHARS]
        raise MalformedRequest(f"the body is not OTLP/JSON: {problem}") from error
    except RecursionError as error:
        raise MalformedRequest("the body is nested too deep") from error
    except (ValueError, OverflowError) as error:  # the latter from a double of 400 digits
        raise MalformedRequest("the body is not OTLP/JSON") from error


def plain_map(pairs: Sequence[KeyValue] | None, depth: int = 0) -> dict[str, Any]:
    """Attributes as `otlp.values.plain_map` gives those of protobuf."""
    if not pairs:
        return {}
    items = [(pair.key or "", plain_value(pair.value or _UNSET, depth)) for pair in pairs]
    return as_map(items, pairs)


def plain_value(value: AnyValue, depth: int = 0) -> Any:
    """One value as `otlp.values.plain_value` gives it; of several members the first one counts."""
    if value.string_value is not None:
        return value.string_value
    if value.int_value is not None:
        return _plain_number(value.int_value)
    if value.bool_value is not None:
        return value.bool_value
    if value.double_value is not None:
        return plain_double(float(value.double_value))
    return _plain_rare(value, depth + 1)


def _plain_number(given: int | float | str) -> Any:
    """An integer; a double if it is a JSON number beyond int64.

    OpenTelemetry's JavaScript exporter sends every whole number as intValue, 1e20 too. For the sake
    of one such value the other spans of the request must not be lost.
    """
    if isinstance(given, str) or INT64.start <= given < INT64.stop:
        return plain_int(to_integer(given, INT64))
    return plain_double(float(given))


def _plain_rare(value: AnyValue, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise RecursionError
    if value.array_value is not None:
        return [plain_value(each, depth) for each in value.array_value.values or ()]
    if value.kvlist_value is not None:
        return plain_map(value.kvlist_value.values, depth)
    if value.bytes_value is not None:
        return plain_bytes(_from_base64(value.bytes_value))
    if value.string_value_strindex is not None:
        return {"$strindex": to_integer(value.string_value_strindex, INT32)}
    return None


def _from_base64(text: str) -> bytes:
    """Standard or URL-safe, padded or not."""
    standard = text.replace("-", "+").replace("_", "/").rstrip("=")
    padding = "=" * (-len(standard) % 4)
    try:
        return base64.b64decode(standard + padding, validate=True)
    except binascii.Error as error:
        raise ValueError("not base64") from error


def _parse(body: bytes) -> ExportTraceServiceRequest:
    try:
        return _decode(body)
    except msgspec.ValidationError:
        raise
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _decode(with_characters_only(body))


def with_characters_only(body: bytes) -> bytes:
    """The body with U+FFFD for what is no character in it."""
    text = body.decode(errors="replace").encode()
    return _SURROGATES.sub(
        lambda match: match[0] if len(match[0]) in (2, _PAIR_BYTES) else _REPLACEMENT,
        text,
    )


class _StoredTexts(dict[Any, str]):
    """Text as it came → as it is stored. Remembers nothing: escaping costs no more."""

    def __missing__(self, text: str) -> str:
        return escape_text(text)


class _StructReader:
    """Reads the parts of structs, which are parsed already."""

    text: dict[Any, str] = _StoredTexts()
    plain_map = staticmethod(plain_map)

    def attributes(self, pairs: Sequence[KeyValue]) -> tuple[JsonText, GenAiFacts | None]:
        """See PartReader."""
        plain = plain_map(pairs)
        return to_json(plain), read_facts(plain)

    def resource(self, envelope: Any) -> tuple[Content, str]:
        """See PartReader."""
        return read_resource(envelope.resource, envelope.schema_url, self)

    def scope(self, envelope: Any) -> Content:
        """See PartReader."""
        return read_scope(envelope.scope, envelope.schema_url, self)

    def event(self, given: Any) -> Any:
        """See PartReader."""
        return given

    def link(self, given: Any) -> Any:
        """See PartReader."""
        return given


_READER = _StructReader()
