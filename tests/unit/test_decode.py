"""What becomes of the bytes of an export request."""

from __future__ import annotations

import dataclasses
import json
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import EntityRef
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from msgtrace.errors import MalformedRequest
from msgtrace.model.batch import SpanBatch, summarize
from msgtrace.model.span import RESOURCE_COLUMNS, SCOPE_COLUMNS, SPAN_COLUMNS
from msgtrace.model.text import MAX_LABEL_CHARS, unescape_json, unescape_text
from msgtrace.otlp.decode import decode_export_request
from msgtrace.otlp.rows import UNKNOWN_SERVICE
from tests.batches import (
    NOON_NS,
    TRACE_A,
    TRACE_B,
    key_values,
    make_batch,
    request,
    span,
    span_id_of,
)

FIXTURES = sorted((Path(__file__).parents[1] / "fixtures").glob("*.binpb"))

BAD_TRACE = "trace_id is not 16 bytes or is all zero"
BAD_SPAN = "span_id is not 8 bytes or is all zero"
BAD_PARENT = "parent_span_id is neither empty nor 8 bytes"


def columns(batch: SpanBatch) -> list[dict[str, Any]]:
    """The rows with the names of their columns."""
    return [dict(zip(SPAN_COLUMNS, row, strict=True)) for row in batch.spans]


def only(batch: SpanBatch) -> dict[str, Any]:
    [row] = columns(batch)
    return row


def decode(export: ExportTraceServiceRequest) -> SpanBatch:
    return decode_export_request(export.SerializeToString())


def names(batch: SpanBatch) -> list[str]:
    return [row["name"] for row in columns(batch)]


# Which spans are taken


@pytest.mark.parametrize(
    ("ids", "reason"),
    [
        ({"trace_id": b""}, BAD_TRACE),
        ({"trace_id": bytes(16)}, BAD_TRACE),
        ({"trace_id": b"x" * 15}, BAD_TRACE),
        ({"trace_id": b"x" * 17}, BAD_TRACE),
        ({"span_id": b""}, BAD_SPAN),
        ({"span_id": bytes(8)}, BAD_SPAN),
        ({"span_id": b"x" * 7}, BAD_SPAN),
        ({"span_id": b"x" * 16}, BAD_SPAN),
        ({"parent": b"x"}, BAD_PARENT),
        ({"parent": b"x" * 16}, BAD_PARENT),
    ],
)
def test_an_invalid_id_rejects_its_span_and_no_other(ids: dict[str, bytes], reason: str) -> None:
    batch = make_batch(span("one"), span("bad", **ids), span("two"))  # type: ignore[arg-type]  # only ids

    assert names(batch) == ["one", "two"]
    assert (batch.rejected_spans, batch.rejection_message) == (1, f"1 span: {reason}")


def test_every_reason_is_counted() -> None:
    bad_traces = [span(f"t{n}", trace_id=b"") for n in range(3)]
    bad_spans = [span(f"s{n}", span_id=b"") for n in range(2)]

    batch = make_batch(*bad_traces, span("good"), *bad_spans, span("p", parent=b"1"))

    assert batch.rejected_spans == 6
    assert (
        batch.rejection_message
        == f"3 spans: {BAD_TRACE}; 2 spans: {BAD_SPAN}; 1 span: {BAD_PARENT}"
    )
    assert sum(delta.span_count for delta in batch.traces.values()) == len(batch.spans) == 1


def test_the_rejection_message_holds_nothing_of_the_span() -> None:
    batch = make_batch(span("secret", trace_id=b"secret", attributes={"secret": "secret"}))

    assert "secret" not in batch.rejection_message


def test_facts_of_a_span_stay_with_it_when_others_are_rejected() -> None:
    tokens = {"gen_ai.usage.input_tokens": 5}

    batch = make_batch(
        span("bad", span_id=b"", attributes=tokens), span(), span("b", attributes=tokens)
    )

    assert {index: facts.input_tokens for index, facts in batch.genai.items()} == {1: 5}
    assert [delta.input_tokens for delta in batch.traces.values()] == [5]


@pytest.mark.parametrize("parent", [b"", bytes(8)])
def test_an_empty_or_all_zero_parent_is_a_root(parent: bytes) -> None:
    row = only(make_batch(span(parent=parent)))

    assert row["parent_span_id"] is None


def test_a_span_may_name_itself_as_its_parent() -> None:
    row = only(make_batch(span("loop", parent="loop")))

    assert row["parent_span_id"] == row["span_id"] == span_id_of("loop")


def test_the_same_span_id_in_two_traces_is_two_spans() -> None:
    batch = make_batch(span(trace_id=TRACE_A), span(trace_id=TRACE_B))

    assert len(batch.spans) == 2
    assert batch.rejected_spans == 0


def test_a_link_with_invalid_ids_does_not_cost_the_span() -> None:
    row = only(make_batch(span(links=[Span.Link(trace_id=b"x", span_id=b"")])))

    [link] = json.loads(row["links"])
    assert (link["trace_id"], link["span_id"]) == ("78", "")


# Requests that are empty, broken or from another version


def test_an_empty_body_is_an_empty_batch() -> None:
    batch = decode_export_request(b"")

    assert batch == SpanBatch()


def test_envelopes_without_spans_leave_nothing_behind() -> None:
    export = request(span(), service="shop")
    export.resource_spans.add().resource.attributes.extend(key_values({"service.name": "idle"}))
    export.resource_spans.add().scope_spans.add().scope.name = "idle"
    export.resource_spans[0].scope_spans.add().scope.name = "idle"
    without = request(span(), service="shop")

    batch, expected = decode(export), decode(without)

    expected.body_bytes = batch.body_bytes
    assert batch == expected


@pytest.mark.parametrize(
    "body",
    [
        b"\xff",
        b"\x0a\xff",
        b"not protobuf at all",
        b'{"resourceSpans": []}',
        request(span()).SerializeToString()[:-1],
    ],
    ids=["varint", "length", "text", "json", "truncated"],
)
def test_bytes_that_do_not_parse_are_malformed(body: bytes) -> None:
    with pytest.raises(MalformedRequest):
        decode_export_request(body)


def deep(levels: int, tag: bytes) -> bytes:
    """A KeyValue whose value is nested; `tag` says in what. No library would write it for us."""
    value = b"\x18\x01"  # an integer
    for _ in range(levels):
        for field in reversed(tag):
            value = bytes([field]) + varint(len(value)) + value
    return b"\x0a\x01k\x12" + varint(len(value)) + value


def varint(number: int) -> bytes:
    low, high = number & 127, number >> 7
    return bytes([low | 128]) + varint(high) if high else bytes([low])


@pytest.mark.parametrize("tag", [b"\x2a\x0a", b"\x32\x0a\x12"], ids=["arrays", "maps"])
def test_deep_nesting_is_stored_or_malformed_but_never_a_crash(tag: bytes) -> None:
    outcomes = []
    for levels in (1, 10, 25, 100, 5_000):
        attributes = b"\x4a" + varint(len(pair := deep(levels, tag))) + pair
        body = span().SerializeToString() + attributes
        for field in (b"\x12", b"\x12", b"\x0a"):
            body = field + varint(len(body)) + body
        try:
            outcomes.append(len(decode_export_request(body).spans))
        except MalformedRequest:
            outcomes.append(0)

    assert outcomes == [1, 1, 1, 0, 0]


def field(number: int, content: bytes) -> bytes:
    """A length-delimited field."""
    return bytes([number << 3 | 2]) + varint(len(content)) + content


def test_messages_that_come_in_pieces_add_up() -> None:
    """Protobuf allows it; see "Last One Wins" in its documentation of the encoding."""
    whole = span("in pieces", status_code=2, status_message="no").SerializeToString()
    pieces = (
        span("in pieces").SerializeToString() + field(15, b"\x18\x02") + field(15, b"\x12\x02no")
    )
    resource = request(span()).resource_spans[0].resource.attributes[0].SerializeToString()
    scope = [field(1, field(1, b"a scope")), field(1, field(2, b"2.0"))]

    def body(span_bytes: bytes, *resource_spans: bytes) -> bytes:
        return field(
            1, b"".join([*resource_spans, field(2, b"".join(scope) + field(2, span_bytes))])
        )

    in_pieces = body(pieces, field(1, field(1, resource)), field(1, b"\x10\x07"))
    in_one = body(whole, field(1, field(1, resource) + b"\x10\x07"))

    batch = decode_export_request(in_pieces)
    assert batch == dataclasses.replace(decode_export_request(in_one), body_bytes=batch.body_bytes)
    assert only(batch)["status_message"] == "no"
    [stored] = batch.scopes.values()
    assert stored[2:4] == ("a scope", "2.0")


def test_a_request_that_comes_again_is_read_alike() -> None:
    export = request(
        span("a", attributes={"k": "v", "n": 1}, trace_state="x=y", status_message="m"),
        resource={"host.name": "h"},
    )

    assert decode(export) == decode(export)


def test_unknown_fields_are_ignored_at_every_level() -> None:
    unknown = b"\xba\x3e\x03new"  # field 999, a text
    export = request(span("kept", attributes={"a": 1}))
    resource_spans = export.resource_spans[0]
    scope_spans = resource_spans.scope_spans[0]
    known = scope_spans.spans[0]
    for message in (
        known.attributes[0].value,
        known.attributes[0],
        known.status,
        known,
        scope_spans.scope,
        scope_spans,
        resource_spans.resource,
        resource_spans,
        export,
    ):
        message.MergeFromString(unknown)

    batch = decode(export)

    assert batch.body_bytes > len(request(span("kept", attributes={"a": 1})).SerializeToString())
    batch.body_bytes = 0
    expected = make_batch(span("kept", attributes={"a": 1}))
    expected.body_bytes = 0
    assert batch == expected


def test_logs_posted_as_traces_are_rejected_not_stored() -> None:
    # ResourceLogs has the field numbers of ResourceSpans; a LogRecord begins with a fixed64 time.
    record = b"\x09" + (7).to_bytes(8, "little")
    scope_logs = b"\x12" + bytes([len(record)]) + record
    resource_logs = b"\x12" + bytes([len(scope_logs)]) + scope_logs

    batch = decode_export_request(b"\x0a" + bytes([len(resource_logs)]) + resource_logs)

    assert batch.spans == []
    assert batch.rejected_spans == 1


# Numbers at their limits


@pytest.mark.parametrize(
    ("sent", "stored"),
    [(0, 0), (1, 1), (2**63 - 1, 2**63 - 1), (2**63, 2**63 - 1), (2**64 - 1, 2**63 - 1)],
)
def test_times_beyond_63_bits_are_stored_as_the_last_one(sent: int, stored: int) -> None:
    one = span(start_ns=0, duration_ns=0)
    one.start_time_unix_nano = one.end_time_unix_nano = sent

    row = only(make_batch(one))

    assert (row["start_time_ns"], row["end_time_ns"]) == (stored, stored)


def test_the_time_of_an_event_is_kept_in_full() -> None:
    row = only(make_batch(span(events=[Span.Event(time_unix_nano=2**64 - 1)])))

    assert json.loads(row["events"])[0]["time_unix_nano"] == str(2**64 - 1)


def test_an_end_before_the_start_is_kept() -> None:
    row = only(make_batch(span(start_ns=NOON_NS, duration_ns=-5)))

    assert row["end_time_ns"] - row["start_time_ns"] == -5


@pytest.mark.parametrize("number", [-(2**31), -1, 6, 77, 2**31 - 1])
def test_unknown_kinds_and_status_codes_are_kept(number: int) -> None:
    row = only(make_batch(span(kind=number, status_code=number)))

    assert (row["kind"], row["status_code"]) == (number, number)


def test_flags_and_dropped_counts_use_all_32_bits() -> None:
    limit = 2**32 - 1
    row = only(
        make_batch(
            span(
                flags=limit,
                dropped_attributes_count=limit,
                dropped_events_count=limit,
                dropped_links_count=limit,
                events=[Span.Event(dropped_attributes_count=limit)],
                links=[Span.Link(dropped_attributes_count=limit, flags=limit)],
            )
        )
    )

    assert row["flags"] == limit
    assert row["dropped_attributes_count"] == limit
    assert row["dropped_events_count"] == limit
    assert row["dropped_links_count"] == limit
    assert json.loads(row["events"])[0]["dropped_attributes_count"] == limit
    [link] = json.loads(row["links"])
    assert (link["dropped_attributes_count"], link["flags"]) == (limit, limit)


def test_defaults_take_no_space() -> None:
    row = only(make_batch(span()))

    assert {name for name, value in row.items() if value is None} == {
        "parent_span_id",
        "flags",
        "dropped_attributes_count",
        "dropped_events_count",
        "dropped_links_count",
        "status_message",
        "trace_state",
        "attributes",
        "events",
        "links",
    }


# Where a span comes from


@pytest.mark.parametrize(
    "attributes",
    [{}, {"service.name": ""}, {"service.name": 7}, {"service.namespace": "x"}],
)
def test_a_resource_that_names_no_service_is_unknown_service(attributes: dict[str, Any]) -> None:
    export = request(span())
    resource = export.resource_spans[0].resource
    resource.ClearField("attributes")
    resource.attributes.extend(key_values(attributes))

    assert only(decode(export))["service_name"] == UNKNOWN_SERVICE


def test_missing_resource_and_scope_are_empty_ones() -> None:
    export = ExportTraceServiceRequest()
    export.resource_spans.add().scope_spans.add().spans.append(span())

    batch = decode(export)

    [resource] = batch.resources.values()
    [scope] = batch.scopes.values()
    assert only(batch)["service_name"] == UNKNOWN_SERVICE
    assert resource[2:] == ("{}", None, "[]", None)
    assert scope[2:] == ("", "", "{}", None, None)


def test_a_service_name_is_cut_and_its_attribute_is_not() -> None:
    batch = make_batch(span(), service="s" * 10_000)

    [resource] = batch.resources.values()
    assert only(batch)["service_name"] == "s" * MAX_LABEL_CHARS
    assert "s" * 10_000 in resource[2]


def test_spans_keep_the_order_of_the_wire() -> None:
    export = ExportTraceServiceRequest()
    expected = []
    for resource_number in range(3):
        resource_spans = export.resource_spans.add()
        for scope_number in range(3):
            scope_spans = resource_spans.scope_spans.add()
            for number in range(3):
                name = f"{resource_number}.{scope_number}.{number}"
                scope_spans.spans.append(span(name, start_ns=NOON_NS - number))
                expected.append(name)

    assert names(decode(export)) == expected


def test_equal_resources_and_scopes_are_stored_once() -> None:
    export = ExportTraceServiceRequest()
    for number in range(4):
        export.MergeFrom(request(span(f"{number}"), service=f"service-{number % 2}"))

    batch = decode(export)

    assert len(batch.resources) == 2
    assert len(batch.scopes) == 1
    assert len({(row["resource_id"], row["scope_id"]) for row in columns(batch)}) == 2


def test_any_difference_makes_another_resource_or_scope() -> None:
    export = ExportTraceServiceRequest()
    for number in range(5):
        export.MergeFrom(request(span(f"{number}")))
    for number in range(4):
        envelope = export.resource_spans[number]
        for target in (envelope, envelope.scope_spans[0]):
            target.schema_url = "https://example.org/1" if number == 0 else ""
        for content in (envelope.resource, envelope.scope_spans[0].scope):
            content.dropped_attributes_count = 1 if number == 1 else 0
            content.attributes.extend(key_values({"more": "x"} if number == 2 else {}))
    export.resource_spans[3].resource.entity_refs.add().type = "service"
    export.resource_spans[3].scope_spans[0].scope.version = "2"

    batch = decode(export)

    assert len(batch.resources) == 5
    assert len(batch.scopes) == 5


# Text and determinism


def test_nul_is_kept_in_every_text() -> None:
    nul = "a\0b␀c␀0"
    export = request(
        span(
            nul,
            status_message=nul,
            trace_state=nul,
            attributes={nul: nul, "list": [nul], "map": {nul: nul}},
            events=[Span.Event(name=nul, attributes=key_values({nul: nul}))],
            links=[Span.Link(trace_state=nul, attributes=key_values({nul: nul}))],
        ),
        service=nul,
        resource={nul: nul},
    )
    envelope = export.resource_spans[0]
    envelope.schema_url = envelope.scope_spans[0].schema_url = nul
    ref = EntityRef(schema_url=nul, type=nul, id_keys=[nul], description_keys=[nul])
    envelope.resource.entity_refs.append(ref)
    scope = envelope.scope_spans[0].scope
    scope.name = scope.version = nul
    scope.attributes.extend(key_values({nul: nul}))

    batch = decode(export)

    rows = [*batch.spans, *batch.resources.values(), *batch.scopes.values()]
    stored = [value for value in chain(*rows) if isinstance(value, str)]
    assert not any("\0" in text or "\\u0000" in text for text in stored)
    row = only(batch)
    for name in ("name", "status_message", "trace_state", "service_name"):
        assert unescape_text(row[name]) == nul
    assert json.loads(unescape_json(row["attributes"])) == {
        nul: nul,
        "list": [nul],
        "map": {nul: nul},
    }
    [event] = json.loads(unescape_json(row["events"]))
    assert (event["name"], event["attributes"]) == (nul, {nul: nul})
    [link] = json.loads(unescape_json(row["links"]))
    assert (link["trace_state"], link["attributes"]) == (nul, {nul: nul})
    [resource] = (dict(zip(RESOURCE_COLUMNS, r, strict=True)) for r in batch.resources.values())
    assert unescape_text(resource["schema_url"]) == nul
    assert json.loads(unescape_json(resource["attributes"]))[nul] == nul
    assert json.loads(unescape_json(resource["entity_refs"])) == [
        {"schema_url": nul, "type": nul, "id_keys": [nul], "description_keys": [nul]}
    ]
    [stored_scope] = (dict(zip(SCOPE_COLUMNS, r, strict=True)) for r in batch.scopes.values())
    assert {unescape_text(stored_scope[name]) for name in ("name", "version", "schema_url")} == {
        nul
    }
    assert json.loads(unescape_json(stored_scope["attributes"])) == {nul: nul}


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.stem)
def test_a_captured_request_decodes_whole_and_always_the_same(path: Path) -> None:
    manifest = json.loads((path.parent / "manifest.json").read_text())["files"][path.name]
    body = path.read_bytes()

    batch = decode_export_request(body)

    assert batch == decode_export_request(body)
    assert len(batch.spans) == manifest["spans"]
    assert len(batch.traces) == manifest["traces"]
    assert sorted({row["service_name"] for row in columns(batch)}) == sorted(manifest["services"])
    assert batch.rejected_spans == 0
    assert batch.body_bytes == len(body)
    assert batch.traces == summarize(batch.spans, batch.genai)
    assert batch.resources.keys() == {row["resource_id"] for row in columns(batch)}
    assert batch.scopes.keys() == {row["scope_id"] for row in columns(batch)}
