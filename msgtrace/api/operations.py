"""What each endpoint does, takes and gives, told once for /openapi.json and /docs.

Path: [api.operations] → api.openapi. A route without an entry here fails a test.
Not here: what parameters and fields mean (api.descriptions).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
from msgspec import Raw

from msgtrace.api import params
from msgtrace.api.export import NEXT_CURSOR, SPAN_COUNT, TRACE_COUNT
from msgtrace.api.replies import (
    ConversationView,
    OperationView,
    PageView,
    SessionDetailView,
    SessionPageView,
    StatsView,
    TraceView,
    TreeView,
)


class ServicesReply(msgspec.Struct):
    """The services that stored spans come from."""

    services: list[str]


class OperationsReply(msgspec.Struct):
    """The operations of one service."""

    operations: list[OperationView]


class DeletedReply(msgspec.Struct):
    """What a deletion took away."""

    deleted: int


class ErrorReply(msgspec.Struct):
    """Every error, in one sentence."""

    detail: str


class HealthReply(msgspec.Struct):
    """The process lives."""

    status: str
    service: str
    version: str


class ReadyReply(msgspec.Struct):
    """Whether the process can do its work."""

    status: str
    reasons: list[str] = []


class EventView(msgspec.Struct):
    """Something that happened during a span."""

    time_unix_nano: str
    name: str
    attributes: Raw
    dropped_attributes_count: int


class LinkView(msgspec.Struct):
    """A span that a span names."""

    trace_id: str
    span_id: str
    trace_state: str
    attributes: Raw
    dropped_attributes_count: int
    flags: int


class EntityRefView(msgspec.Struct):
    """What identifies an entity within a resource."""

    schema_url: str
    type: str
    id_keys: list[str]
    description_keys: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Documented:
    """One method of one path.

    parameters: names in api.descriptions. reply: a struct, or None for a reply without JSON.
    media_types: of a reply that is no JSON. headers: name → meaning. statuses: of errors.
    """

    summary: str
    description: str = ""
    parameters: Sequence[str] = ()
    status: int = 200
    reply: type[msgspec.Struct] | None = None
    media_types: Sequence[str] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    statuses: Sequence[int] = (400, 503)


_FILTERS: Final = tuple(sorted(params.FILTER_PARAMETERS))
_ONE_TRACE: Final = ("trace_id",)
_OF_ONE: Final = (400, 404, 503)

OPERATIONS: Final[Mapping[tuple[str, str], Documented]] = {
    ("GET", "/api/v1/traces"): Documented(
        summary="List traces",
        description="Newest start first. All filters must hold; service_name, name and attr for"
        " one and the same span.",
        parameters=(*_FILTERS, "limit", "cursor", "offset"),
        reply=PageView,
    ),
    ("DELETE", "/api/v1/traces"): Documented(
        summary="Delete the traces that match",
        description="Without a filter it wants all=true. Interrupted, it leaves whole traces only.",
        parameters=(*_FILTERS, "all"),
        reply=DeletedReply,
    ),
    ("GET", "/api/v1/traces/export"): Documented(
        summary="Export traces as OTLP",
        description="Streams ExportTraceServiceRequests, newest traces first: OTLP/JSON, one a"
        " line, or protobuf, each behind four bytes of length, most significant first. With a"
        " limit the headers tell where to go on.",
        parameters=(*_FILTERS, "format", "limit", "cursor"),
        media_types=("application/x-ndjson", "application/x-protobuf"),
        headers={
            NEXT_CURSOR: "The cursor of the next reply; absent after the last and without a limit.",
            TRACE_COUNT: "How many traces the reply has; absent without a limit.",
            SPAN_COUNT: "How many spans they had when the reply began; absent without a limit.",
        },
    ),
    ("GET", "/api/v1/traces/{trace_id}"): Documented(
        summary="Get a trace",
        description="Its summary and all its spans, ordered by start, then span id.",
        parameters=_ONE_TRACE,
        reply=TraceView,
        statuses=_OF_ONE,
    ),
    ("DELETE", "/api/v1/traces/{trace_id}"): Documented(
        summary="Delete a trace",
        parameters=_ONE_TRACE,
        status=204,
        statuses=_OF_ONE,
    ),
    ("GET", "/api/v1/traces/{trace_id}/tree"): Documented(
        summary="Get a trace as a tree",
        description="A forest in which every stored span stands once, siblings ordered by start,"
        " each with the tokens and the cost of all beneath it.",
        parameters=(*_ONE_TRACE, "fold"),
        reply=TreeView,
        statuses=_OF_ONE,
    ),
    ("GET", "/api/v1/traces/{trace_id}/spans/{span_id}/messages"): Documented(
        summary="Get what was said in a model call or a tool call",
        description="In one form for all conventions. Nothing recorded is empty lists.",
        parameters=(*_ONE_TRACE, "span_id"),
        reply=ConversationView,
        statuses=_OF_ONE,
    ),
    ("GET", "/api/v1/sessions"): Documented(
        summary="List sessions",
        description="The one with the newest trace first. user_id is of any of its traces, start"
        " and end are of its newest trace, limit counts sessions.",
        parameters=("user_id", "start", "end", "limit", "cursor"),
        reply=SessionPageView,
    ),
    ("GET", "/api/v1/sessions/{session_id}"): Documented(
        summary="Get a session",
        description="With its traces, newest start first, page by page. In the path the session's"
        " id is percent-encoded; slashes may stay.",
        parameters=("session_id", "limit", "cursor"),
        reply=SessionDetailView,
        statuses=_OF_ONE,
    ),
    ("GET", "/api/v1/stats"): Documented(
        summary="Sum up the traces that match",
        description="With tokens and cost by model, by service and by day.",
        parameters=_FILTERS,
        reply=StatsView,
    ),
    ("GET", "/api/v1/services"): Documented(
        summary="List services",
        description="Sorted; each as long as one of its operations is listed.",
        reply=ServicesReply,
    ),
    ("GET", "/api/v1/services/{service}/operations"): Documented(
        summary="List the operations of a service",
        description="The distinct names and kinds of its spans, sorted; none for an unknown one."
        " Each is listed until the day of its newest span is purged. At most 2,000.",
        parameters=("service",),
        reply=OperationsReply,
    ),
    ("GET", "/health"): Documented(
        summary="Does the process live?",
        description="Asks no database. Parameters are not looked at.",
        reply=HealthReply,
        statuses=(),
    ),
    ("GET", "/ready"): Documented(
        summary="Can the process do its work?",
        description="503 with the reasons if it cannot. Parameters are not looked at.",
        reply=ReadyReply,
        statuses=(),
    ),
    ("GET", "/metrics"): Documented(
        summary="Metrics", media_types=("text/plain",), statuses=(), description="For Prometheus."
    ),
    ("GET", "/openapi.json"): Documented(
        summary="This description",
        description="OpenAPI 3.1, made from the code that serves it.",
        media_types=("application/json",),
        statuses=(),
    ),
    ("GET", "/docs"): Documented(
        summary="This description for people", media_types=("text/html",), statuses=()
    ),
}

_MAP: Final[Mapping[str, Any]] = {"type": "object"}

RAW_FIELDS: Final[Mapping[str, type[msgspec.Struct] | Mapping[str, Any]]] = {
    "attributes": _MAP,
    "events": EventView,
    "links": LinkView,
    "entity_refs": EntityRefView,
}
"""What the stored JSON of a field holds: a map, or a list of these."""
