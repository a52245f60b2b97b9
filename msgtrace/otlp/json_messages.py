"""OTLP's trace messages as structs that read OTLP/JSON.

Fields carry the proto's names and read lowerCamelCase. Unknown names are ignored, null is as good
as absent. When a struct is made, ids become bytes and integers given as text or with an exponent
become integers, so that `otlp.rows` reads these structs as it reads protobuf messages. Fields of
type Any are those: JSON leaves their type open, and making the struct checks it.
Source: opentelemetry-proto docs/specification.md "JSON Protobuf Encoding"; proto3 JSON mapping.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

INT32 = range(-(2**31), 2**31)
UINT32 = range(2**32)
INT64 = range(-(2**63), 2**63)
UINT64 = range(2**64)

MAX_DIGITS = 25
"""Integers of as many digits are out of every range."""

_NOT_HEX = b"?"
"""Stands for an id that is not hex: no id has one byte, so the span is rejected for its length."""


class _Message(msgspec.Struct, rename="camel"):
    pass


class AnyValue(_Message):
    """A value; `otlp.json` turns it into a plain one."""

    string_value: str | None = None
    int_value: int | float | str | None = None
    bool_value: bool | None = None
    double_value: int | float | str | None = None
    array_value: ArrayValue | None = None
    kvlist_value: KeyValueList | None = None
    bytes_value: str | None = None
    string_value_strindex: int | float | str | None = None


class KeyValue(_Message):
    """An attribute."""

    key: str | None = None
    value: AnyValue | None = None
    key_strindex: Annotated[int, msgspec.Meta(ge=INT32.start, lt=INT32.stop)] | None = None


class ArrayValue(_Message):
    """An array of values."""

    values: list[AnyValue] | None = None


class KeyValueList(_Message):
    """A map."""

    values: list[KeyValue] | None = None


class EntityRef(_Message):
    """What identifies an entity within a resource."""

    schema_url: str | None = None
    type: str | None = None
    id_keys: list[str] | None = None
    description_keys: list[str] | None = None

    def __post_init__(self) -> None:
        self.schema_url, self.type = self.schema_url or "", self.type or ""
        self.id_keys, self.description_keys = self.id_keys or [], self.description_keys or []


class Resource(_Message):
    """What produced the spans."""

    attributes: list[KeyValue] | None = None
    dropped_attributes_count: Any = 0
    entity_refs: list[EntityRef] | None = None

    def __post_init__(self) -> None:
        self.dropped_attributes_count = to_integer(self.dropped_attributes_count, UINT32)


class InstrumentationScope(_Message):
    """What made the spans."""

    name: str | None = None
    version: str | None = None
    attributes: list[KeyValue] | None = None
    dropped_attributes_count: Any = 0

    def __post_init__(self) -> None:
        self.name, self.version = self.name or "", self.version or ""
        self.dropped_attributes_count = to_integer(self.dropped_attributes_count, UINT32)


class Status(_Message):
    """How a span ended."""

    message: str | None = None
    code: int | None = 0

    def __post_init__(self) -> None:
        self.message, self.code = self.message or "", to_integer(self.code, INT32)


class Event(_Message):
    """Something that happened during a span."""

    time_unix_nano: Any = 0
    name: str | None = None
    attributes: list[KeyValue] | None = None
    dropped_attributes_count: Any = 0

    def __post_init__(self) -> None:
        self.time_unix_nano = to_integer(self.time_unix_nano, UINT64)
        self.name = self.name or ""
        self.dropped_attributes_count = to_integer(self.dropped_attributes_count, UINT32)


class Link(_Message):
    """A span that a span names."""

    trace_id: Any = b""
    span_id: Any = b""
    trace_state: str | None = None
    attributes: list[KeyValue] | None = None
    dropped_attributes_count: Any = 0
    flags: Any = 0

    def __post_init__(self) -> None:
        self.trace_id, self.span_id = to_id(self.trace_id), to_id(self.span_id)
        self.trace_state = self.trace_state or ""
        self.dropped_attributes_count = to_integer(self.dropped_attributes_count, UINT32)
        self.flags = to_integer(self.flags, UINT32)


class Span(_Message):
    """One span."""

    trace_id: Any = b""
    span_id: Any = b""
    parent_span_id: Any = b""
    trace_state: str | None = None
    flags: Any = 0
    name: str | None = None
    kind: int | None = 0
    start_time_unix_nano: Any = 0
    end_time_unix_nano: Any = 0
    attributes: list[KeyValue] | None = None
    dropped_attributes_count: Any = 0
    events: list[Event] | None = None
    dropped_events_count: Any = 0
    links: list[Link] | None = None
    dropped_links_count: Any = 0
    status: Status | None = None

    def __post_init__(self) -> None:
        self.trace_id, self.span_id = to_id(self.trace_id), to_id(self.span_id)
        self.parent_span_id = to_id(self.parent_span_id)
        self.start_time_unix_nano = to_integer(self.start_time_unix_nano, UINT64)
        self.end_time_unix_nano = to_integer(self.end_time_unix_nano, UINT64)
        self.name, self.trace_state = self.name or "", self.trace_state or ""
        self.kind, self.flags = to_integer(self.kind, INT32), to_integer(self.flags, UINT32)
        self.dropped_attributes_count = to_integer(self.dropped_attributes_count, UINT32)
        self.dropped_events_count = to_integer(self.dropped_events_count, UINT32)
        self.dropped_links_count = to_integer(self.dropped_links_count, UINT32)
        self.status = self.status or UNSET_STATUS


class ScopeSpans(_Message):
    """Spans of one scope."""

    scope: InstrumentationScope | None = None
    spans: list[Span] | None = None
    schema_url: str | None = None

    def __post_init__(self) -> None:
        self.scope, self.schema_url = self.scope or InstrumentationScope(), self.schema_url or ""


class ResourceSpans(_Message):
    """Spans of one resource."""

    resource: Resource | None = None
    scope_spans: list[ScopeSpans] | None = None
    schema_url: str | None = None

    def __post_init__(self) -> None:
        self.resource, self.schema_url = self.resource or Resource(), self.schema_url or ""
        self.scope_spans = self.scope_spans or []


class ExportTraceServiceRequest(_Message):
    """The whole request."""

    resource_spans: list[ResourceSpans] | None = None

    def __post_init__(self) -> None:
        self.resource_spans = self.resource_spans or []


def to_integer(given: Any, limits: range) -> int:
    """An integer given as a number or as text, in any form that proto3 JSON allows; 0 for null.

    Raises ValueError if it is none, or outside the limits.
    """
    if type(given) is int and 0 <= given <= 0x7FFF_FFFF:  # within all limits that there are
        return given
    number = 0 if given is None else _parse_integer(given)
    if number not in limits:
        raise ValueError("integer out of range")
    return number


def to_id(given: Any) -> bytes:
    """The bytes of a hex id, in either case; for text that is not hex, bytes that no id has.

    Raises ValueError if it is not text.
    """
    if not given:
        return b""
    if not isinstance(given, str):
        raise ValueError("an id must be a hex string")
    try:
        return bytes.fromhex(given) if given.isalnum() else _NOT_HEX
    except ValueError:
        return _NOT_HEX


def _parse_integer(given: Any) -> int:
    if isinstance(given, bool) or not isinstance(given, int | float | str):
        raise ValueError("not an integer")
    if isinstance(given, int):
        return given
    try:
        if isinstance(given, str) and _is_short_decimal(given):
            return int(given)
        number = float(given)
    except ValueError:
        raise ValueError("not an integer") from None  # Python's text would repeat the value
    if not number.is_integer():
        raise ValueError("not an integer")
    return int(number)


def _is_short_decimal(text: str) -> bool:
    """Whether it is exact as an int, and no long work; leading zeros do not count."""
    return text.lstrip("-").isdecimal() and len(text.lstrip("-0")) < MAX_DIGITS


UNSET_STATUS = Status()
