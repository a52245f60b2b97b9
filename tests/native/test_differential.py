"""Both decoders make the same of every request, and refuse the same."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from msgtrace.otlp.decode import decode_export_request
from msgtrace.otlp.json import decode_export_json
from msgtrace.settings.table import NATIVE_PACKAGE
from tests.batches import request, span
from tests.conformance.json_encoder import to_json
from tests.fuzz.batches import DECLINED, NATIVELY, REFUSED
from tests.fuzz.exports import requests
from tests.fuzz.mutations import mutate
from tests.fuzz.targets import TARGETS, Target
from tests.fuzz.wire_mutations import SIZED, Field

pytest.importorskip(NATIVE_PACKAGE, reason="msgtrace-native is not installed")
decoders = pytest.importorskip("tests.fuzz.decoders")

CORPUS = TARGETS["protobuf"].corpus
JSON_CORPUS = TARGETS["json"].corpus

BOTH = {name: target for name, target in TARGETS.items() if name.endswith("by both decoders")}

many = settings(
    max_examples=400, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)


@pytest.mark.parametrize("target", BOTH.values(), ids=BOTH)
def test_known_requests_are_decoded_alike_and_hardly_ever_declined(target: Target) -> None:
    """Else the two decoders would be the same one."""
    outcomes = [target.run(body) for body in target.corpus]

    assert outcomes.count(NATIVELY) >= len(outcomes) - 5


@pytest.mark.parametrize("target", BOTH.values(), ids=BOTH)
def test_damaged_requests_are_mostly_not_declined(target: Target) -> None:
    """Else `make fuzz` would compare Python with Python."""
    chance = random.Random(1)
    damaged = (
        target.mutate(chance, chance.choice(target.corpus), target.corpus) for _ in "x" * 600
    )
    outcomes = [target.run(body) for body in damaged]

    assert outcomes.count(NATIVELY) > outcomes.count(DECLINED)
    assert outcomes.count(NATIVELY) > 0.25 * len(outcomes)


@many
@given(requests)
def test_any_request_is_decoded_alike(request: ExportTraceServiceRequest) -> None:
    decoders.compare_protobuf(request.SerializeToString())
    decoders.compare_json(to_json(request))


@many
@given(st.integers(0, 2**63), st.integers(0, len(CORPUS) - 1))
def test_any_damaged_request_is_decoded_or_refused_alike(seed: int, place: int) -> None:
    decoders.compare_protobuf(mutate(random.Random(seed), CORPUS[place], CORPUS))


@many
@given(st.integers(0, 2**63), st.integers(0, len(CORPUS) - 1))
def test_any_damaged_json_is_decoded_or_refused_alike(seed: int, place: int) -> None:
    decoders.compare_json(mutate(random.Random(seed), JSON_CORPUS[place], JSON_CORPUS))


GENAI_SPAN = span(attributes={"gen_ai.request.model": "gpt-4o"}).SerializeToString()


@pytest.mark.parametrize("padding", ["tag_bytes", "length_bytes"])
@pytest.mark.parametrize("size", [5, 6, 10])
def test_tags_and_lengths_of_more_than_five_bytes_are_refused_by_both(
    padding: str, size: int
) -> None:
    """Also in a span that speaks of GenAI, which is parsed once more."""
    span_field = Field(2, SIZED, GENAI_SPAN + Field(5, SIZED, b"x", **{padding: size}).encoded())
    scope_spans = Field(2, SIZED, span_field.encoded())
    body = Field(1, SIZED, scope_spans.encoded()).encoded()

    assert decoders.compare_protobuf(body) == (NATIVELY if size == 5 else REFUSED)


def in_json(**fields: str) -> bytes:
    """A request whose one span has these fields, as they stand in JSON."""
    members = ",".join(f'"{name}":{value}' for name, value in fields.items())
    ids = f'"traceId":"{"01" * 16}","spanId":"{"02" * 8}"'
    return f'{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{{{ids},{members}}}]}}]}}]}}'.encode()


@pytest.mark.parametrize("zeros", [0, 4, 6, 40, 4000])
def test_zeros_in_front_of_a_number_change_nothing_but_who_reads_it(zeros: int) -> None:
    body = in_json(startTimeUnixNano=f'"{"0" * zeros}1772366400001000000"')

    assert decoders.compare_json(body) == (NATIVELY if zeros <= 5 else DECLINED)
    [row] = decode_export_json(body).spans
    assert row[4] == 1_772_366_400_001_000_000


@pytest.mark.parametrize("number", ["-0", "-0.0", "0", "-0e0"])
def test_a_zero_has_the_same_sign(number: str) -> None:
    attribute = f'[{{"key":"k","value":{{"doubleValue":{number}}}}}]'

    assert decoders.compare_json(in_json(attributes=attribute)) in (NATIVELY, DECLINED)


def test_what_both_make_is_what_was_sent() -> None:
    """Two decoders could agree about nothing."""
    export = request(span(name="one"), span(name="two"))

    assert decoders.compare_protobuf(export.SerializeToString()) == NATIVELY
    assert [row[15] for row in decode_export_request(export.SerializeToString()).spans] == [
        "one",
        "two",
    ]
