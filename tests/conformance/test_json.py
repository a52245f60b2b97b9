"""OTLP/JSON as the specification and the proto3 JSON mapping allow it, written by hand."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from grpc import StatusCode
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.batches import NOON_NS, any_value, request, span, span_id_of
from tests.conformance import data_cases
from tests.conformance.collectors import Collector
from tests.conformance.json_encoder import plain
from tests.conformance.wires import JSON, Refusal, http

NAME = "json"
SPAN_ID = span_id_of(NAME).hex()


@dataclass(frozen=True, kw_only=True)
class JsonCase:
    """Members of a span as JSON text, and what comes of them.

    fields: of the span that is stored. rejected: the span is left out. refused: the whole request.
    """

    members: Mapping[str, str]
    fields: Mapping[str, Any] = field(default_factory=dict)
    rejected: bool = False
    refused: bool = False


def body_of(trace_id: bytes, members: Mapping[str, str]) -> bytes:
    """A request with one span, whose members are given as JSON text."""
    given = {
        "traceId": f'"{trace_id.hex()}"',
        "spanId": f'"{SPAN_ID}"',
        "name": f'"{NAME}"',
        "startTimeUnixNano": f'"{NOON_NS}"',
        "endTimeUnixNano": f'"{NOON_NS}"',
    } | dict(members)
    text = ",".join(f'"{name}":{value}' for name, value in given.items())
    around = json.dumps(plain(request(Span(name="MARK"))))
    return around.replace('{"name": "MARK"}', "{" + text + "}").encode()


def expected_of(trace_id: bytes, fields: Mapping[str, Any]) -> ExportTraceServiceRequest:
    made = span(NAME, trace_id=trace_id, duration_ns=0)
    made.MergeFrom(Span(**fields))
    return request(made)


def members(**texts: str) -> Mapping[str, str]:
    return texts


ID = '"' + SPAN_ID + '"'
ARABIC_ONE = "\u0661"

PARENT = bytes.fromhex("0a1b2c3d4e5f6071")

CASES: dict[str, JsonCase] = {
    "row_67_ids_in_capitals": JsonCase(
        members=members(spanId=ID.upper(), parentSpanId='"0A1B2C3D4E5F6071"'),
        fields={"parent_span_id": PARENT},
    ),
    "row_67_ids_in_both_cases": JsonCase(
        members=members(parentSpanId='"0a1B2c3D4e5F6071"'), fields={"parent_span_id": PARENT}
    ),
    "row_67_no_parent": JsonCase(members=members(parentSpanId='""')),
    "row_67_zero_parent": JsonCase(members=members(parentSpanId='"0000000000000000"')),
    "row_67_base64_trace_id": JsonCase(
        members=members(traceId='"qqqqqqqqqqqqqqqqqqqqqg=="'), rejected=True
    ),
    "row_67_base64_span_id": JsonCase(members=members(spanId='"u7u7u7u7u7s="'), rejected=True),
    "row_67_id_of_odd_length": JsonCase(members=members(spanId='"abc"'), rejected=True),
    "row_67_id_too_short": JsonCase(members=members(spanId='"abcd"'), rejected=True),
    "row_67_id_too_long": JsonCase(members=members(spanId='"00112233445566778899"'), rejected=True),
    "row_67_id_with_spaces": JsonCase(
        members=members(spanId='"00 11 22 33 44 55 66 77"'), rejected=True
    ),
    "row_67_id_with_a_prefix": JsonCase(
        members=members(spanId='"0x00112233445566"'), rejected=True
    ),
    "row_67_id_of_zeros": JsonCase(members=members(spanId='"0000000000000000"'), rejected=True),
    "row_67_id_of_no_characters": JsonCase(members=members(spanId='""'), rejected=True),
    "row_67_id_in_digits_of_another_script": JsonCase(
        members=members(spanId=f'"{ARABIC_ONE * 16}"'), rejected=True
    ),
    "row_67_parent_that_is_no_hex": JsonCase(
        members=members(parentSpanId='"parent"'), rejected=True
    ),
    "row_67_id_as_a_number": JsonCase(members=members(spanId="1234567890123456"), refused=True),
    "row_67_id_as_a_list": JsonCase(members=members(spanId="[1,2,3]"), refused=True),
    "row_67_ids_of_links": JsonCase(
        members=members(
            links='[{"traceId":"' + "AB" * 16 + '","spanId":"' + "cd" * 8 + '"},{"traceId":"?"}]'
        ),
        fields={
            "links": [
                Span.Link(trace_id=b"\xab" * 16, span_id=b"\xcd" * 8),
                Span.Link(trace_id=b"?"),  # no hex, and no reason to lose the span
            ]
        },
    ),
    "row_68_names_of_the_proto_are_unknown": JsonCase(
        members=members(
            parent_span_id='"0a1b2c3d4e5f6071"',
            trace_state='"a=b"',
            start_time_unix_nano='"1"',
            dropped_attributes_count="7",
            Name='"capital"',
        )
    ),
    "row_69_kind_as_a_number": JsonCase(members=members(kind="3"), fields={"kind": 3}),
    "row_69_kind_that_nobody_named": JsonCase(members=members(kind="99"), fields={"kind": 99}),
    "row_69_kind_as_a_name": JsonCase(members=members(kind='"SPAN_KIND_CLIENT"'), refused=True),
    "row_69_status_code_as_a_name": JsonCase(
        members=members(status='{"code":"STATUS_CODE_ERROR"}'), refused=True
    ),
    "row_70_times_as_text": JsonCase(
        members=members(startTimeUnixNano=f'"{NOON_NS}"', endTimeUnixNano=f'"{NOON_NS + 1}"'),
        fields={"end_time_unix_nano": NOON_NS + 1},
    ),
    "row_70_times_as_numbers": JsonCase(
        members=members(startTimeUnixNano=f"{NOON_NS}", endTimeUnixNano=f"{NOON_NS + 1}"),
        fields={"end_time_unix_nano": NOON_NS + 1},
    ),
    "row_70_times_with_an_exponent": JsonCase(
        members=members(startTimeUnixNano="1.7723664e18", endTimeUnixNano='"1.7723664E+18"'),
        fields={"start_time_unix_nano": NOON_NS, "end_time_unix_nano": NOON_NS},
    ),
    "row_70_largest_time": JsonCase(
        members=members(endTimeUnixNano=f'"{2**64 - 1}"'),
        fields={"end_time_unix_nano": 2**63 - 1},
    ),
    "row_70_time_beyond_64_bits": JsonCase(
        members=members(endTimeUnixNano=f'"{2**64}"'), refused=True
    ),
    "row_70_time_number_beyond_64_bits": JsonCase(
        members=members(endTimeUnixNano=f"{2**64}"), refused=True
    ),
    "row_70_time_below_zero": JsonCase(members=members(endTimeUnixNano='"-1"'), refused=True),
    "row_70_time_with_a_fraction": JsonCase(members=members(endTimeUnixNano="1.5"), refused=True),
    "row_70_time_that_is_no_number": JsonCase(
        members=members(endTimeUnixNano='"now"'), refused=True
    ),
    "row_70_time_in_hex": JsonCase(members=members(endTimeUnixNano='"0x10"'), refused=True),
    "row_70_time_of_no_digits": JsonCase(members=members(endTimeUnixNano='""'), refused=True),
    "row_70_time_as_a_truth": JsonCase(members=members(endTimeUnixNano="true"), refused=True),
    "row_70_counts_as_text": JsonCase(
        members=members(flags='"257"', droppedEventsCount='"4294967295"', droppedLinksCount="3.0"),
        fields={"flags": 257, "dropped_events_count": 2**32 - 1, "dropped_links_count": 3},
    ),
    "row_70_count_beyond_32_bits": JsonCase(
        members=members(droppedLinksCount="4294967296"), refused=True
    ),
    "row_70_count_below_zero": JsonCase(members=members(droppedLinksCount="-1"), refused=True),
    "row_70_kind_beyond_32_bits": JsonCase(members=members(kind="2147483648"), refused=True),
    "row_73_unknown_names_with_any_value": JsonCase(
        members=members(
            future='{"a":[1,"x",null,{"b":1e400}]}',
            other="-1.5e300",
            status='{"new":true,"code":2}',
            events='[{"name":"e","severity":[]}]',
        ),
        fields={
            "status": {"code": 2},
            "events": [Span.Event(name="e")],
        },
    ),
    "row_74_null_is_unset": JsonCase(
        members=members(
            parentSpanId="null",
            traceState="null",
            flags="null",
            kind="null",
            attributes="null",
            droppedAttributesCount="null",
            events="null",
            droppedEventsCount="null",
            links="null",
            droppedLinksCount="null",
            status="null",
        )
    ),
    "row_74_null_in_lists_of_values": JsonCase(
        members=members(
            attributes='[{"key":"k","value":null},{"key":null,"value":{"stringValue":null}}]',
            events='[{"timeUnixNano":null,"name":null,"attributes":null}]',
        ),
        fields={
            "attributes": [KeyValue(key="k", value=AnyValue()), KeyValue(value=AnyValue())],
            "events": [Span.Event()],
        },
    ),
    "row_54_a_lone_surrogate_is_replaced": JsonCase(
        members=members(traceState=r'"a\ud800b"', status=r'{"message":"\udc00\ud83d\ude00"}'),
        fields={"trace_state": "a\ufffdb", "status": {"message": "\ufffd😀"}},
    ),
    "row_54_nul_in_text": JsonCase(
        members=members(traceState=r'"a\u0000b"'), fields={"trace_state": "a\0b"}
    ),
    "row_62_bytes_that_are_not_utf8": JsonCase(
        members=members(traceState='"aXb"'), fields={"trace_state": "a\ufffdb"}
    ),
    "row_61_key_index_beyond_32_bits": JsonCase(
        members=members(attributes='[{"keyStrindex":2147483648}]'), refused=True
    ),
    "row_75_wrong_type_for_text": JsonCase(members=members(name="1"), refused=True),
    "row_75_wrong_type_for_a_list": JsonCase(members=members(events="{}"), refused=True),
    "row_75_wrong_type_for_an_object": JsonCase(members=members(status="[]"), refused=True),
    "row_75_wrong_type_in_a_list": JsonCase(members=members(links="[1]"), refused=True),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_member(collector: Collector, case: JsonCase, trace_id: bytes) -> None:
    body = body_of(trace_id, case.members).replace(b'"aXb"', b'"a\xffb"')

    outcome = JSON.send(collector, body)

    check(collector, outcome, case, expected_of(trace_id, case.fields), trace_id)


def value(text: str, meaning: object) -> JsonCase:
    """The value of an attribute as JSON text, and what it means."""
    return JsonCase(
        members={"attributes": '[{"key":"k","value":' + text + "}]"},
        fields={"attributes": [KeyValue(key="k", value=any_value(meaning))]},
    )


def no_value(text: str) -> JsonCase:
    return JsonCase(members={"attributes": '[{"key":"k","value":' + text + "}]"}, refused=True)


VALUES: dict[str, JsonCase] = {
    "row_51_value_unset": value("{}", None),
    "row_51_value_text": value('{"stringValue":"č"}', "č"),
    "row_51_value_truth": value('{"boolValue":false}', False),
    "row_51_value_nested": value(
        '{"arrayValue":{"values":[{"intValue":"1"},{},{"kvlistValue":{"values":[{"key":"a",'
        '"value":{"boolValue":true}}]}},{"arrayValue":{}},{"kvlistValue":{"values":null}}]}}',
        [1, None, {"a": True}, [], {}],
    ),
    "row_70_int_as_text": value('{"intValue":"9007199254740993"}', 2**53 + 1),
    "row_70_int_as_a_number": value('{"intValue":9007199254740993}', 2**53 + 1),
    "row_70_int_below_zero": value('{"intValue":"-5"}', -5),
    "row_70_int_zero": value('{"intValue":0}', 0),
    "row_70_int_with_an_exponent": value('{"intValue":1e3}', 1000),
    "row_70_int_text_with_an_exponent": value('{"intValue":"-1.5e3"}', -1500),
    "row_70_int_least": value('{"intValue":"-9223372036854775808"}', -(2**63)),
    "row_70_int_greatest": value('{"intValue":9223372036854775807}', 2**63 - 1),
    "row_70_int_beyond_64_bits": no_value('{"intValue":"9223372036854775808"}'),
    # OpenTelemetry's JavaScript exporter writes every whole number so; a double keeps its worth.
    "row_70_int_number_beyond_64_bits": value('{"intValue":1e20}', 1e20),
    "row_70_int_number_of_400_digits": no_value('{"intValue":%s}' % ("9" * 400)),
    "row_70_double_of_400_digits": no_value('{"doubleValue":%s}' % ("9" * 400)),
    "row_70_int_with_a_fraction": no_value('{"intValue":1.5}'),
    "row_70_int_infinite": no_value('{"intValue":"Infinity"}'),
    "row_70_int_that_is_no_number": no_value('{"intValue":"one"}'),
    "row_70_int_as_a_truth": no_value('{"intValue":true}'),
    "row_71_double_as_a_number": value('{"doubleValue":1.5}', 1.5),
    "row_71_double_without_a_fraction": value('{"doubleValue":3}', 3.0),
    "row_71_double_as_text": value('{"doubleValue":"-2.5e-3"}', -0.0025),
    "row_71_double_negative_zero": value('{"doubleValue":-0.0}', -0.0),
    "row_71_double_greatest": value(
        '{"doubleValue":1.7976931348623157e308}', 1.7976931348623157e308
    ),
    "row_71_double_nan": value('{"doubleValue":"NaN"}', math.nan),
    "row_71_double_infinity": value('{"doubleValue":"Infinity"}', math.inf),
    "row_71_double_negative_infinity": value('{"doubleValue":"-Infinity"}', -math.inf),
    "row_71_double_bare_nan_is_no_json": no_value('{"doubleValue":NaN}'),
    "row_71_double_that_is_no_number": no_value('{"doubleValue":"one"}'),
    "row_71_double_as_a_truth": no_value('{"doubleValue":true}'),
    "row_72_bytes_standard": value('{"bytesValue":"+/+/AA=="}', b"\xfb\xff\xbf\x00"),
    "row_72_bytes_url_safe": value('{"bytesValue":"-_-_AA=="}', b"\xfb\xff\xbf\x00"),
    "row_72_bytes_without_padding": value('{"bytesValue":"+/+/AA"}', b"\xfb\xff\xbf\x00"),
    "row_72_bytes_url_safe_without_padding": value('{"bytesValue":"-_-_AA"}', b"\xfb\xff\xbf\x00"),
    "row_72_bytes_none": value('{"bytesValue":""}', b""),
    "row_72_bytes_of_one_character": no_value('{"bytesValue":"A"}'),
    "row_72_bytes_of_another_alphabet": no_value('{"bytesValue":"AA!A"}'),
    "row_72_bytes_as_a_list": no_value('{"bytesValue":[1,2]}'),
    "row_73_value_with_unknown_names": value('{"future":1,"stringValue":"s","x":[]}', "s"),
    "row_74_value_with_null_members": value('{"stringValue":null,"intValue":"2"}', 2),
    "row_75_value_text_of_wrong_type": no_value('{"stringValue":1}'),
    "row_75_value_truth_of_wrong_type": no_value('{"boolValue":"true"}'),
    "row_75_value_as_plain_json": no_value('"text"'),
}


@pytest.mark.parametrize("case", VALUES.values(), ids=VALUES)
def test_value(collector: Collector, case: JsonCase, trace_id: bytes) -> None:
    outcome = JSON.send(collector, body_of(trace_id, case.members))

    check(collector, outcome, case, expected_of(trace_id, case.fields), trace_id)


def check(
    collector: Collector,
    outcome: ExportTraceServiceResponse | Refusal,
    case: JsonCase,
    expected: ExportTraceServiceRequest,
    trace_id: bytes,
) -> None:
    if case.refused:
        assert isinstance(outcome, Refusal)
        assert (outcome.http_status, outcome.code) == (400, StatusCode.INVALID_ARGUMENT)
    else:
        assert isinstance(outcome, ExportTraceServiceResponse), outcome
        assert outcome.partial_success.rejected_spans == case.rejected
    is_stored = not (case.refused or case.rejected)
    collector.stores(expected if is_stored else request(), trace_id)


def test_row_68_the_envelope_in_names_of_the_proto_is_empty(
    collector: Collector, trace_id: bytes
) -> None:
    body = JSON.encode(request(span(trace_id=trace_id)))

    outcome = JSON.send(collector, body.replace(b"resourceSpans", b"resource_spans"))

    assert outcome == ExportTraceServiceResponse()
    collector.stores(request(), trace_id)


def test_row_73_unknown_names_in_every_object(collector: Collector, trace_id: bytes) -> None:
    export = data_cases.everything(trace_id)
    body = JSON.encode(export).replace(b"{", b'{"unheardOf":{"x":[{}]},').replace(b",}", b"}")
    assert json.loads(body)

    assert JSON.send(collector, body) == ExportTraceServiceResponse()

    collector.stores(export)


def test_row_59_repeated_member_names_are_no_fault(collector: Collector, trace_id: bytes) -> None:
    body = body_of(trace_id, {}).replace(b'"name":', b'"name":"first","name":')

    assert JSON.send(collector, body) == ExportTraceServiceResponse()


NO_REQUESTS: dict[str, bytes] = {
    "row_75_no_bytes": b"",
    "row_75_spaces": b"  \n",
    "row_75_number": b"1234",
    "row_75_list": b"[]",
    "row_75_text": b'"resourceSpans"',
    "row_75_truth": b"true",
    "row_75_null": b"null",
    "row_75_not_json": b"resourceSpans=1",
    "row_75_single_quotes": b"{'resourceSpans':[]}",
    "row_75_trailing_comma": b'{"resourceSpans":[],}',
    "row_75_unfinished": b'{"resourceSpans":[',
    "row_75_two_values": b"{}{}",
    "row_75_comment": b"{} // done",
    "row_75_bare_control_character": b'{"a":"\x01"}',
    "row_75_bad_escape": rb'{"a":"\x41"}',
    "row_75_utf16": "{}".encode("utf-16"),
    "row_75_protobuf": b"\x0a\x00",
    "row_75_envelopes_of_wrong_type": b'{"resourceSpans":{"scopeSpans":[]}}',
    "row_75_envelope_of_wrong_type": b'{"resourceSpans":["x"]}',
    "row_75_arrays_20000_deep": b'{"resourceSpans":' + b"[" * 20_000 + b"]" * 20_000 + b"}",
    "row_75_unknown_arrays_20000_deep": b'{"x":' + b"[" * 20_000 + b"]" * 20_000 + b"}",
    "row_75_unknown_objects_20000_deep": b'{"x":' + b'{"x":' * 20_000 + b"1" + b"}" * 20_001,
    "row_75_arrays_20000_deep_without_end": b"[" * 20_000,
    "row_75_time_of_4400_digits": body_of(bytes(16), {"endTimeUnixNano": "9" * 4400}),
    "row_75_time_text_of_4400_digits": body_of(bytes(16), {"endTimeUnixNano": f'"{"9" * 4400}"'}),
    "row_75_int_of_4400_digits": body_of(
        bytes(16), {"attributes": '[{"key":"k","value":{"intValue":%s}}]' % ("9" * 4400)}
    ),
    "row_75_flags_of_4400_digits": body_of(bytes(16), {"flags": "9" * 4400}),
}


@pytest.mark.parametrize("body", NO_REQUESTS.values(), ids=NO_REQUESTS)
def test_no_request(collector: Collector, body: bytes) -> None:
    refusal = JSON.refuse(collector, body)

    assert (refusal.http_status, refusal.code) == (400, StatusCode.INVALID_ARGUMENT)


@pytest.mark.parametrize("digits", [400, 4400])
def test_row_75_doubles_with_many_digits_are_answered(
    collector: Collector, digits: int, trace_id: bytes
) -> None:
    for number in ("9" * digits, "0." + "9" * digits, f'"{"9" * digits}"'):
        case = no_value('{"doubleValue":' + number + "}")

        outcome = JSON.send(collector, body_of(trace_id, case.members))

        assert not isinstance(outcome, Refusal) or outcome.http_status == 400


@pytest.mark.parametrize("member", ["endTimeUnixNano", "flags", "kind", "name", "events"])
def test_row_39_a_refusal_names_the_place_and_not_the_value(
    collector: Collector, member: str, trace_id: bytes
) -> None:
    secret = "12345-secret" * 100
    given = secret if member != "name" else [secret]

    refusal = JSON.refuse(collector, body_of(trace_id, {member: json.dumps(given)}))

    assert f"spans[0].{member}" in refusal.status.message or member not in ("kind", "name")
    assert "secret" not in refusal.status.message


def test_row_76_the_reply_in_json(collector: Collector, trace_id: bytes) -> None:
    full, part = (
        http(collector, "/v1/traces", body, {"Content-Type": JSON.media_type})
        for body in (body_of(trace_id, {}), body_of(trace_id, {"spanId": '"x"'}))
    )

    assert (full.status, full.body) == (200, b"{}")
    said = json.loads(part.body)
    assert said.keys() == {"partialSuccess"}
    assert said["partialSuccess"].keys() == {"rejectedSpans", "errorMessage"}
    assert (part.status, said["partialSuccess"]["rejectedSpans"]) == (200, "1")
