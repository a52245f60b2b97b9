"""OTLP/JSON of a protobuf message, as the specification has it and protobuf's own writer has not.

Ids are hex, enums integers, 64-bit integers text.
Source: opentelemetry-proto docs/specification.md, "JSON Protobuf Encoding".
"""

from __future__ import annotations

import base64
import json
import math
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

_IDS = {"trace_id", "span_id", "parent_span_id"}

_AS_TEXT = {
    FieldDescriptor.CPPTYPE_INT64,
    FieldDescriptor.CPPTYPE_UINT64,
}


def to_json(message: Message) -> bytes:
    """The message as OTLP/JSON in UTF-8."""
    return json.dumps(plain(message), ensure_ascii=False, allow_nan=False).encode()


def plain(message: Message) -> dict[str, Any]:
    """The message as what the JSON module takes."""
    return {
        field.json_name: [_value(field, each) for each in value]
        if field.is_repeated
        else _value(field, value)
        for field, value in message.ListFields()
    }


def _value(field: FieldDescriptor, value: Any) -> Any:
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        return plain(value)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return value.hex() if field.name in _IDS else base64.b64encode(value).decode()
    if field.cpp_type in _AS_TEXT:
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value
