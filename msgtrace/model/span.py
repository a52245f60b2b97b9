"""One span as it is stored and read: OTLP's fields under OTLP's names.

Two shapes of the same thing. `SPAN_COLUMNS` is the order of a row on the write path, where no
object per span exists.
`Span` is what a reader gets. JSON columns hold the text that `otlp.values` makes; it is passed on
unparsed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NewType

TenantId = NewType("TenantId", int)
TraceId = NewType("TraceId", bytes)
SpanId = NewType("SpanId", bytes)
JsonText = NewType("JsonText", str)

DEFAULT_TENANT = TenantId(0)

TRACE_ID_BYTES = 16
SPAN_ID_BYTES = 8

STATUS_UNSET = 0
STATUS_OK = 1
STATUS_ERROR = 2

KIND_NAMES = ("UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER")
STATUS_NAMES = ("UNSET", "OK", "ERROR")

SPAN_COLUMNS = (
    "tenant_id",
    "trace_id",
    "span_id",
    "parent_span_id",
    "start_time_ns",
    "end_time_ns",
    "resource_id",
    "scope_id",
    "kind",
    "status_code",
    "flags",
    "dropped_attributes_count",
    "dropped_events_count",
    "dropped_links_count",
    "service_name",
    "name",
    "status_message",
    "trace_state",
    "attributes",
    "events",
    "links",
)
"""Order of one row tuple.

From `flags` on, None stands for the proto3 default (0, "", empty); so does it for the parent.
"""

RESOURCE_COLUMNS = (
    "tenant_id",
    "resource_id",
    "attributes",
    "dropped_attributes_count",
    "entity_refs",
    "schema_url",
)
SCOPE_COLUMNS = (
    "tenant_id",
    "scope_id",
    "name",
    "version",
    "attributes",
    "dropped_attributes_count",
    "schema_url",
)

Row = tuple[Any, ...]
"""Values in the order of one of the column tuples above."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """What produced the span. `schema_url` is that of its ResourceSpans envelope."""

    attributes: JsonText
    dropped_attributes_count: int
    entity_refs: JsonText
    schema_url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class InstrumentationScope:
    """The library that made the span. `schema_url` is that of its ScopeSpans envelope."""

    name: str
    version: str
    attributes: JsonText
    dropped_attributes_count: int
    schema_url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """One stored span. `kind` and `status_code` are OTLP's numbers, unknown ones included.

    attributes: a JSON object; events and links: JSON arrays (see `otlp.values` for the tagged
    values).
    parent_span_id is None for a root span.
    """

    trace_id: TraceId
    span_id: SpanId
    parent_span_id: SpanId | None
    start_time_ns: int
    end_time_ns: int
    kind: int
    status_code: int
    flags: int
    dropped_attributes_count: int
    dropped_events_count: int
    dropped_links_count: int
    service_name: str
    name: str
    status_message: str
    trace_state: str
    attributes: JsonText
    events: JsonText
    links: JsonText
    resource: Resource
    scope: InstrumentationScope

    @property
    def duration_ns(self) -> int:
        """End minus start as sent.

        Negative for a clock that stepped back, and for a span without an end.
        """
        return self.end_time_ns - self.start_time_ns
