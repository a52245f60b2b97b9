"""Spans of every shape that OpenTelemetry's Python SDK can make, and what the API shows of them."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
    format_span_id,
    format_trace_id,
    set_span_in_context,
)

VALUES: dict[str, Any] = {
    "string": "GET /cart",
    "string.empty": "",
    "string.nul": "before\0after",
    "string.nul.mark": "␀ ␀0 ␀␀ \0␀",
    "string.backslashes": "\\u0000 \\\\u0000 \\\0",
    "string.json": '{"$bytes": "AA=="}',
    "string.controls": "\x01\x1b[31m\x7f\u2028",
    "string.scripts": "žluťoučký 数 𐍈 👩‍👩‍👧",
    "string.long": "x" * 100_000,
    "key with \0 and ␀": "kept",
    "true": True,
    "false": False,
    "int": 42,
    "int.zero": 0,
    "int.least": -(2**63),
    "int.greatest": 2**63 - 1,
    "int.last_exact": 2**53 - 1,
    "int.first_inexact": 2**53,
    "int.negative.first_inexact": -(2**53),
    "double": 0.1,
    "double.whole": 3.0,
    "double.zero": 0.0,
    "double.negative_zero": -0.0,
    "double.greatest": 1.7976931348623157e308,
    "double.least": 5e-324,
    "double.beyond_int": 1e25,
    "double.nan": math.nan,
    "double.infinity": math.inf,
    "double.negative_infinity": -math.inf,
    "bytes": bytes(range(256)),
    "bytes.empty": b"",
    "null": None,
    "array.empty": [],
    "array.strings": ["a", "", "c"],
    "array.booleans": [True, False],
    "array.ints": [1, -(2**63), 2**63 - 1],
    "array.doubles": [1.0, math.nan, -math.inf],
    "array.mixed": ["a", 1, 1.0, True, None, b"\xff", {"in": "side"}, [[]]],
    "map": {"a": {"b": {"c": [{"d": b"\0"}]}}, "n": 1, "x": 1.5},
    "map.empty": {},
    "map.like_bytes": {"$bytes": "AA=="},
    "map.like_int": {"$int": "1"},
    "map.like_map": {"$map": []},
    "map.two_dollars": {"$int": "1", "$bytes": ""},
}
"""One attribute of every kind that the SDK takes, at every limit."""

REMOTE_STATE = "vendor=a,other@tenant=b/c"


def make_spans() -> list[ReadableSpan]:
    """Ended spans of three resources and three scopes, in four traces of their own."""
    collected = InMemorySpanExporter()
    with _tracers(collected) as (web, plain, cut):
        _nested(web, plain)
        _orphan_of_a_remote_parent(web)
        _cut_down(cut)
        _bare(plain)
    return list(collected.get_finished_spans())


def expected_span(span: ReadableSpan) -> dict[str, Any]:
    """What docs/api.md promises for a span of the SDK, attribute values as in Python."""
    context, parent = span.context, span.parent
    assert context is not None
    assert span.start_time is not None
    assert span.end_time is not None
    scope = span.instrumentation_scope
    assert scope is not None
    return {
        "trace_id": format_trace_id(context.trace_id),
        "span_id": format_span_id(context.span_id),
        "parent_span_id": None if parent is None else format_span_id(parent.span_id),
        "name": span.name,
        "kind": span.kind.name,
        "start_time": _rfc3339(span.start_time),
        "end_time": _rfc3339(span.end_time),
        "start_time_unix_nano": str(span.start_time),
        "end_time_unix_nano": str(span.end_time),
        "duration_ms": (span.end_time - span.start_time) / 1_000_000,
        "status": {
            "status_code": span.status.status_code.name,
            "description": span.status.description or "",
        },
        "trace_state": context.trace_state.to_header(),
        "flags": _flags(parent),
        "service_name": span.resource.attributes["service.name"],
        "attributes": dict(span.attributes or {}),
        "dropped_attributes_count": span.dropped_attributes,
        "events": [
            {
                "time_unix_nano": str(event.timestamp),
                "name": event.name,
                "attributes": dict(event.attributes or {}),
                "dropped_attributes_count": event.dropped_attributes,
            }
            for event in span.events
        ],
        "dropped_events_count": span.dropped_events,
        "links": [_expected_link(link) for link in span.links],
        "dropped_links_count": span.dropped_links,
        "resource": {
            "attributes": dict(span.resource.attributes),
            "dropped_attributes_count": 0,
            "entity_refs": [],
            "schema_url": span.resource.schema_url,
        },
        "scope": {
            "name": scope.name,
            "version": scope.version or "",
            "attributes": dict(scope.attributes or {}),
            "dropped_attributes_count": 0,
            "schema_url": scope.schema_url or "",
        },
    }


def shown_span(span: dict[str, Any]) -> dict[str, Any]:
    """A span of the API with its attribute values turned back into Python's."""
    return span | {
        "attributes": _from_json(span["attributes"]),
        "events": [
            each | {"attributes": _from_json(each["attributes"])} for each in span["events"]
        ],
        "links": [each | {"attributes": _from_json(each["attributes"])} for each in span["links"]],
        "resource": span["resource"] | {"attributes": _from_json(span["resource"]["attributes"])},
        "scope": span["scope"] | {"attributes": _from_json(span["scope"]["attributes"])},
    }


def exact(value: Any) -> Any:
    """`value` in a form in which 1, 1.0 and True differ, and NaN equals itself."""
    if isinstance(value, Mapping):
        return {key: exact(each) for key, each in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [exact(each) for each in value]
    if isinstance(value, bool | int | float):
        return f"{type(value).__name__} {value!r}"
    return value


def _from_json(value: Any) -> Any:
    """The rules of docs/api.md, "Attribute values", read backwards."""
    match value:
        case {"$bytes": text, **others} if not others:
            return base64.b64decode(text)
        case {"$int": text, **others} if not others:
            return int(text)
        case {"$double": word, **others} if not others:
            return float(word)
        case {"$map": pairs, **others} if not others:
            return {key: _from_json(each) for key, each in pairs}
        case dict():
            return {key: _from_json(each) for key, each in value.items()}
        case list():
            return [_from_json(each) for each in value]
        case int():
            assert abs(value) < 2**53, "JavaScript would round it"
    return value


@contextmanager
def _tracers(collected: InMemorySpanExporter) -> Iterator[tuple[Any, Any, Any]]:
    shop = Resource(
        {
            "service.name": "shop",
            "service.instance.id": "a-1",
            "cores": 8,
            "load": 0.5,
            "tags": ("x",),
        },
        "https://opentelemetry.io/schemas/1.40.0",
    )
    stock = Resource({"service.name": "stock \0 ␀"})
    tiny = SpanLimits(
        max_span_attributes=1,
        max_events=1,
        max_links=1,
        max_event_attributes=1,
        max_link_attributes=1,
    )
    providers = [
        TracerProvider(resource=shop, shutdown_on_exit=False),
        TracerProvider(resource=stock, shutdown_on_exit=False),
        TracerProvider(
            resource=Resource({"service.name": "cut"}), span_limits=tiny, shutdown_on_exit=False
        ),
    ]
    for provider in providers:
        provider.add_span_processor(SimpleSpanProcessor(collected))
    try:
        yield (
            providers[0].get_tracer(
                "shop.web", "1.2.3", "https://example.com/schema/2", {"tier": "web", "weight": 2}
            ),
            providers[1].get_tracer("stock"),
            providers[2].get_tracer("cut", "0"),
        )
    finally:
        for provider in providers:
            provider.shutdown()


def _nested(web: Any, plain: Any) -> None:
    with web.start_as_current_span("GET /cart", kind=SpanKind.SERVER) as root:
        root.set_attributes(VALUES)
        root.set_status(StatusCode.OK)
        link = Link(root.get_span_context(), {"why": "retry", "n": 1, "raw": b"\1"})
        with web.start_as_current_span("call stock", kind=SpanKind.CLIENT, links=[link]) as call:
            call.add_event("empty")
            call.add_event("retry", {"attempt": 2, "wait": 0.5, "\0": "\0"}, timestamp=1)
            with (
                plain.start_as_current_span("reserve", kind=SpanKind.CONSUMER) as reserve,
                plain.start_as_current_span("", kind=SpanKind.INTERNAL),
            ):
                reserve.add_link(call.get_span_context())
        with plain.start_as_current_span("notify", kind=SpanKind.PRODUCER) as notify:
            notify.record_exception(ValueError("no \0 address"), {"exception.extra": [1, 2]})
            notify.set_status(Status(StatusCode.ERROR, "ValueError: no \0 address"))


def _orphan_of_a_remote_parent(tracer: Any) -> None:
    ids = RandomIdGenerator()
    remote = SpanContext(
        ids.generate_trace_id(),
        ids.generate_span_id(),
        is_remote=True,
        trace_flags=TraceFlags(TraceFlags.SAMPLED),
        trace_state=TraceState.from_header([REMOTE_STATE]),
    )
    context = set_span_in_context(NonRecordingSpan(remote))
    span = tracer.start_span("worker", context, SpanKind.CONSUMER, links=[Link(remote)])
    span.end()


def _cut_down(tracer: Any) -> None:
    first, second = (
        SpanContext(number, number, is_remote=False, trace_flags=TraceFlags(0)) for number in (1, 2)
    )
    links = [Link(first, {"a": 1, "b": 2}), Link(second, {"a": 1, "b": 2})]
    with tracer.start_as_current_span("limited", links=links) as span:
        span.set_attributes({"a": 1, "b": 2, "c": 3})
        span.add_event("first", {"a": 1, "b": 2})
        span.add_event("second", {"a": 1, "b": 2})


def _bare(tracer: Any) -> None:
    """A span that ends in the very nanosecond in which it starts."""
    span = tracer.start_span("bare", start_time=1_772_366_400_000_000_001)
    span.end(1_772_366_400_000_000_001)


def _expected_link(link: Link) -> dict[str, Any]:
    return {
        "trace_id": format_trace_id(link.context.trace_id),
        "span_id": format_span_id(link.context.span_id),
        "trace_state": "",  # the SDK's exporter leaves it out
        "attributes": dict(link.attributes or {}),
        "dropped_attributes_count": link.dropped_attributes,
        "flags": _flags(link.context),
    }


def _flags(context: SpanContext | None) -> int:
    """What the SDK's exporter sends: that it knows whether the context is remote, and if it is."""
    return 0x300 if context is not None and context.is_remote else 0x100


def _rfc3339(time_ns: int) -> str:
    seconds, fraction_ns = divmod(time_ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{fraction_ns:09d}Z"
