"""Requests of every shape that OTLP allows, and of some that it does not, and what becomes of them.

Each case is sent over every transport in every encoding; a name begins with the row of
docs/conformance.md that it shows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from google.protobuf.message import Message
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, EntityRef, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.batches import NOON_NS, any_value, key_values, request, span, span_id_of

Make = Callable[[bytes], ExportTraceServiceRequest]
"""Makes a request from the id of a trace that nothing else uses."""

MAX_UINT32 = 2**32 - 1
MAX_UINT64 = 2**64 - 1
LAST_STORED_NS = 2**63 - 1

OTHER_TRACE = bytes([0xFF] * 8)
"""The second half of the id of another trace of the same test."""


@dataclass(frozen=True, kw_only=True)
class DataCase:
    """A request and what is stored of it: the spans of `stored`, or all of `send`.

    rejected: how many spans the answer counts; says: words that its message contains.
    """

    send: Make
    stored: Make | None = None
    rejected: int = 0
    says: tuple[str, ...] = ()

    def expected(self, trace_id: bytes) -> ExportTraceServiceRequest:
        return (self.stored or self.send)(trace_id)


def of(*spans: Callable[[bytes], Span]) -> Make:
    return lambda trace_id: request(*(make(trace_id) for make in spans))


def one(**fields: object) -> Make:
    """A request with one span."""
    return lambda trace_id: request(span(trace_id=trace_id, **fields))  # type: ignore[arg-type]


def attributes(**values: object) -> Make:
    return one(attributes=values)


def other(trace_id: bytes) -> bytes:
    return trace_id[:8] + OTHER_TRACE


def everything(trace_id: bytes) -> ExportTraceServiceRequest:
    """Every field of every message, none with its default."""
    full = span(
        "full",
        trace_id=trace_id,
        parent="parent",
        attributes={"a": 1},
        status_code=2,
        status_message="broken",
        kind=3,
        trace_state="vendor=1,other@tenant=2",
        flags=0x101,
        dropped_attributes_count=1,
        dropped_events_count=2,
        dropped_links_count=3,
        events=[
            Span.Event(
                time_unix_nano=NOON_NS + 1,
                name="event",
                attributes=key_values({"b": "c"}),
                dropped_attributes_count=4,
            )
        ],
        links=[
            Span.Link(
                trace_id=other(trace_id),
                span_id=span_id_of("linked"),
                trace_state="linked=1",
                attributes=key_values({"d": 0.5}),
                dropped_attributes_count=5,
                flags=0x301,
            )
        ],
    )
    export = request(full)
    [resource_spans] = export.resource_spans
    resource_spans.schema_url = "https://opentelemetry.io/schemas/1.30.0"
    resource_spans.resource.dropped_attributes_count = 6
    resource_spans.resource.entity_refs.append(
        EntityRef(
            schema_url="https://example.com/schema",
            type="service",
            id_keys=["service.name"],
            description_keys=["service.version"],
        )
    )
    [scope_spans] = resource_spans.scope_spans
    scope_spans.schema_url = "https://opentelemetry.io/schemas/1.31.0"
    scope_spans.scope.version = "1.2"
    scope_spans.scope.attributes.extend(key_values({"e": [True]}))
    scope_spans.scope.dropped_attributes_count = 7
    return export


def with_unknown_fields(trace_id: bytes) -> ExportTraceServiceRequest:
    """A field that nobody knows, of every wire type, in every message."""
    export = everything(trace_id)
    for message in list(messages(export)):
        for unknown in UNKNOWN_FIELDS:
            message.MergeFromString(unknown)
    return export


UNKNOWN_FIELDS = [
    bytes.fromhex("c0bb01 ff01".replace(" ", "")),  # 3000: varint
    bytes.fromhex("c9bb01 0102030405060708".replace(" ", "")),  # 3001: 64 bits
    bytes.fromhex("d2bb01 03 616263".replace(" ", "")),  # 3002: length-delimited
    bytes.fromhex("dbbb01 0801 dcbb01".replace(" ", "")),  # 3003: group
    bytes.fromhex("e5bb01 01020304".replace(" ", "")),  # 3004: 32 bits
]


def messages(message: Message) -> Iterator[Message]:
    yield message
    for field, value in message.ListFields():
        if field.type == field.TYPE_MESSAGE:
            for child in value if field.is_repeated else (value,):
                yield from messages(child)


def with_future_numbers(trace_id: bytes) -> ExportTraceServiceRequest:
    reserved = 0xFFFF_FC00 | 0x301
    link = Span.Link(trace_id=trace_id, span_id=span_id_of("x"), flags=reserved)
    return request(span(trace_id=trace_id, kind=99, status_code=77, flags=reserved, links=[link]))


def with_flags(trace_id: bytes) -> ExportTraceServiceRequest:
    numbers = [0, 0x001, 0x0FF, 0x100, 0x101, 0x300, 0x301]
    links = [Span.Link(trace_id=trace_id, span_id=span_id_of("x"), flags=n) for n in numbers]
    return request(*(span(f"{n}", trace_id=trace_id, flags=n, links=links) for n in numbers))


def with_values_everywhere(trace_id: bytes) -> ExportTraceServiceRequest:
    """Every kind of value wherever there are attributes."""
    export = everything(trace_id)
    for message in list(messages(export)):
        if "attributes" in message.DESCRIPTOR.fields_by_name:
            message.attributes.extend(key_values(VALUES))  # type: ignore[attr-defined]
    return export


VALUES: dict[str, object] = {
    "unset": None,
    "text": "žluťoučký 数 𐍈",
    "empty text": "",
    "true": True,
    "false": False,
    "int": 1,
    "zero": 0,
    "least": -(2**63),
    "greatest": 2**63 - 1,
    "first inexact": 2**53 + 1,
    "double": 0.1,
    "whole double": 3.0,
    "negative zero": -0.0,
    "tiny": 5e-324,
    "huge": 1.7976931348623157e308,
    "bytes": bytes(range(256)),
    "no bytes": b"",
    "mixed": ["a", 1, 1.5, True, None, b"\xff", [[], ["deep"]], {"k": {"l": []}}],
    "map": {"a": {"b": {"c": 1}}, "": "empty key"},
    "empty map": {},
}


def with_largest_numbers(trace_id: bytes, time_ns: int = MAX_UINT64) -> ExportTraceServiceRequest:
    event = Span.Event(time_unix_nano=MAX_UINT64, dropped_attributes_count=MAX_UINT32)
    link = Span.Link(
        trace_id=trace_id,
        span_id=span_id_of("x"),
        dropped_attributes_count=MAX_UINT32,
        flags=MAX_UINT32,
    )
    return request(
        span(
            trace_id=trace_id,
            start_ns=time_ns,
            duration_ns=0,
            flags=MAX_UINT32,
            events=[event],
            links=[link],
            dropped_attributes_count=MAX_UINT32,
            dropped_events_count=MAX_UINT32,
            dropped_links_count=MAX_UINT32,
        )
    )


def with_nul_everywhere(trace_id: bytes) -> ExportTraceServiceRequest:
    text = "a\0b␀0"
    export = everything(trace_id)
    for message in list(messages(export)):
        for field, value in message.ListFields():
            if field.type == field.TYPE_STRING and not field.is_repeated and field.name != "key":
                setattr(message, field.name, value + text)
        if "attributes" in message.DESCRIPTOR.fields_by_name:
            message.attributes.extend(key_values({text: text, "list": [text]}))  # type: ignore[attr-defined]
    return export


BAD_SPANS: list[Callable[[bytes], Span]] = [
    lambda trace_id: span("no trace id", trace_id=b""),
    lambda trace_id: span("zero trace id", trace_id=bytes(16)),
    lambda trace_id: span("short trace id", trace_id=trace_id[:15]),
    lambda trace_id: span("long trace id", trace_id=trace_id + b"x"),
    lambda trace_id: span("no span id", trace_id=trace_id, span_id=b""),
    lambda trace_id: span("zero span id", trace_id=trace_id, span_id=bytes(8)),
    lambda trace_id: span("short span id", trace_id=trace_id, span_id=bytes([1] * 7)),
    lambda trace_id: span("long span id", trace_id=trace_id, span_id=bytes([1] * 9)),
]


def good_and_bad(trace_id: bytes) -> ExportTraceServiceRequest:
    bad = [make(trace_id) for make in BAD_SPANS]
    good = good_ones(trace_id).resource_spans[0].scope_spans[0].spans
    return request(good[0], *bad[:4], good[1], *bad[4:])


def good_ones(trace_id: bytes) -> ExportTraceServiceRequest:
    return request(
        span("good root", trace_id=trace_id),
        span("good child", trace_id=trace_id, parent="good root"),
    )


def parents(trace_id: bytes, no_parent: bytes) -> ExportTraceServiceRequest:
    return request(span("root", trace_id=trace_id, parent=no_parent))


def with_odd_links(trace_id: bytes) -> ExportTraceServiceRequest:
    ids = [(b"", b""), (bytes(16), bytes(8)), (b"short", b"ids"), (trace_id * 2, trace_id)]
    links = [Span.Link(trace_id=trace, span_id=span_id) for trace, span_id in ids]
    return request(span(trace_id=trace_id, links=links))


def odd_times(trace_id: bytes) -> ExportTraceServiceRequest:
    ends = {"ends before it starts": NOON_NS - 1, "has no end": 0, "ends in the far future": 2**62}
    spans = [span(name, trace_id=trace_id, duration_ns=end - NOON_NS) for name, end in ends.items()]
    zero = span("has no times", trace_id=trace_id, start_ns=0, duration_ns=0)
    early = span("starts at the first nanosecond", trace_id=trace_id, start_ns=1, duration_ns=0)
    return request(*spans, zero, early)


def bare(trace_id: bytes) -> ExportTraceServiceRequest:
    """A span without name, kind, status, times, resource and scope."""
    export = ExportTraceServiceRequest()
    spans = export.resource_spans.add().scope_spans.add().spans
    spans.add(trace_id=trace_id, span_id=span_id_of("bare"))
    return export


def with_repeated_keys(trace_id: bytes) -> ExportTraceServiceRequest:
    pairs = [KeyValue(key="k", value=any_value(value)) for value in ("first", 2, "first")]
    nested = AnyValue()
    nested.kvlist_value.values.extend(pairs)
    made = span(trace_id=trace_id)
    made.attributes.extend([*pairs, KeyValue(key="nested", value=nested)])
    return request(made)


def many(count: int) -> Make:
    return lambda trace_id: request(
        *(
            span(
                f"span {n}", trace_id=trace_id, parent="span 0" if n else None, attributes={"n": n}
            )
            for n in range(count)
        )
    )


def with_many_parts(trace_id: bytes) -> ExportTraceServiceRequest:
    values = {f"key {n}": f"value {n}" for n in range(1000)}
    events = [Span.Event(time_unix_nano=NOON_NS + n, name=f"event {n}") for n in range(1000)]
    links = [Span.Link(trace_id=trace_id, span_id=n.to_bytes(8)) for n in range(1, 1001)]
    return request(span(trace_id=trace_id, attributes=values, events=events, links=links))


def with_string_indexes(trace_id: bytes) -> ExportTraceServiceRequest:
    """References into a table that only profiles have."""
    made = span(trace_id=trace_id)
    made.attributes.add(key_strindex=3, value=AnyValue(string_value_strindex=7))
    made.attributes.add(key="plain", value=AnyValue(string_value="kept"))
    return request(made)


def nested_arrays(depth: int) -> Make:
    value: object = "bottom"
    for _ in range(depth):
        value = [value]
    return attributes(deep=value)


def nested_maps(depth: int, key: str = "k") -> Make:
    value: object = "bottom"
    for _ in range(depth):
        value = {key: value}
    return attributes(deep=value)


def same_ids_in_two_traces(trace_id: bytes) -> ExportTraceServiceRequest:
    return request(span("twin", trace_id=trace_id), span("twin", trace_id=other(trace_id)))


def several_resources(trace_id: bytes) -> ExportTraceServiceRequest:
    """Two resources with two scopes each, and one resource that comes twice."""
    export = ExportTraceServiceRequest()
    for service in ("one", "two", "one"):
        envelope = export.resource_spans.add()
        envelope.resource.attributes.extend(key_values({"service.name": service}))
        for scope in ("x", "y"):
            scope_spans = envelope.scope_spans.add()
            scope_spans.scope.name = scope
            name = f"{len(export.resource_spans)} {scope}"
            scope_spans.spans.append(span(name, trace_id=trace_id))
    return export


CASES: dict[str, DataCase] = {
    "row_34_success_says_nothing": DataCase(send=good_ones),
    "row_34_several_resources_and_scopes": DataCase(send=several_resources),
    "row_36_exact_count_and_reason_of_rejected_spans": DataCase(
        send=good_and_bad, stored=good_ones, rejected=8, says=("trace_id", "span_id")
    ),
    "row_36_nothing_but_rejected_spans": DataCase(
        send=of(*BAD_SPANS), stored=lambda _: request(), rejected=8, says=("4 spans",)
    ),
    "row_49_unknown_fields_in_every_message": DataCase(send=with_unknown_fields, stored=everything),
    "row_49_unknown_enum_members_and_reserved_flags": DataCase(send=with_future_numbers),
    "row_50_flags_of_spans_and_links": DataCase(send=with_flags),
    "row_51_any_value_anywhere": DataCase(send=with_values_everywhere),
    "row_52_every_field": DataCase(send=everything),
    "row_53_largest_counts_and_times": DataCase(
        send=with_largest_numbers, stored=lambda id_: with_largest_numbers(id_, LAST_STORED_NS)
    ),
    "row_54_nul_in_every_text": DataCase(send=with_nul_everywhere),
    "row_54_not_a_number_and_infinities": DataCase(
        send=attributes(nan=math.nan, most=math.inf, least=-math.inf, list=[math.nan])
    ),
    "row_55_one_bad_id_costs_one_span": DataCase(
        send=lambda id_: request(span("good", trace_id=id_), span("bad", trace_id=id_[:3])),
        stored=lambda id_: request(span("good", trace_id=id_)),
        rejected=1,
        says=("1 span", "trace_id"),
    ),
    "row_56_empty_parent_is_a_root": DataCase(send=lambda id_: parents(id_, b"")),
    "row_56_zero_parent_is_a_root": DataCase(
        send=lambda id_: parents(id_, bytes(8)), stored=lambda id_: parents(id_, b"")
    ),
    "row_56_parent_of_wrong_length_is_rejected": DataCase(
        send=lambda id_: parents(id_, b"123"),
        stored=lambda _: request(),
        rejected=1,
        says=("parent_span_id",),
    ),
    "row_56_links_with_any_ids": DataCase(send=with_odd_links),
    "row_57_times_as_they_come": DataCase(send=odd_times),
    "row_58_a_span_of_nothing_but_ids": DataCase(send=bare),
    "row_59_repeated_keys": DataCase(send=with_repeated_keys),
    "row_60_a_batch_of_an_sdk": DataCase(send=many(512)),
    "row_60_attributes_of_a_mebibyte": DataCase(send=attributes(prompt="é" * 512 * 1024)),
    "row_60_a_thousand_attributes_events_links": DataCase(send=with_many_parts),
    "row_61_string_indexes": DataCase(send=with_string_indexes),
    "row_63_arrays_as_deep_as_protobuf_reads": DataCase(send=nested_arrays(40)),
    "row_63_maps_as_deep_as_protobuf_reads": DataCase(send=nested_maps(30)),
    "row_63_maps_with_empty_keys_cost_no_more": DataCase(send=nested_maps(30, key="")),
    "row_65_a_bad_span_among_the_hardest_to_store": DataCase(
        send=lambda id_: merged(
            with_largest_numbers(id_), with_nul_everywhere(id_), request(*(BAD_SPANS[0](id_),))
        ),
        stored=lambda id_: merged(
            with_largest_numbers(id_, LAST_STORED_NS), with_nul_everywhere(id_)
        ),
        rejected=1,
        says=("1 span",),
    ),
    "row_66_one_span_id_in_two_traces": DataCase(send=same_ids_in_two_traces),
    "row_66_a_span_that_is_its_own_parent": DataCase(
        send=lambda id_: request(span("self", trace_id=id_, parent="self"))
    ),
}


def merged(*requests: ExportTraceServiceRequest) -> ExportTraceServiceRequest:
    result = ExportTraceServiceRequest()
    for each in requests:
        result.MergeFrom(each)
    return result
