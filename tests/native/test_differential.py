"""Both decoders make the same of every request, and refuse the same."""

from __future__ import annotations

import dataclasses
import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from msgtrace.errors import MalformedRequest
from msgtrace.model.batch import SpanBatch
from msgtrace.otlp.decode import decode_export_request
from msgtrace.otlp.json import decode_export_json
from msgtrace.settings import NATIVE_PACKAGE
from tests.conformance.json_encoder import to_json
from tests.fuzz.exports import requests
from tests.fuzz.mutations import mutate
from tests.fuzz.targets import TARGETS, check_batch

native = pytest.importorskip("msgtrace.otlp.native", reason="msgtrace-native is not installed")

msgtrace_native = pytest.importorskip(NATIVE_PACKAGE)

CORPUS = TARGETS["protobuf"].corpus
JSON_CORPUS = TARGETS["json"].corpus

many = settings(
    max_examples=400, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)


def plain(batch: SpanBatch) -> dict[str, Any]:
    """All that a batch says, but how its rows are encoded."""
    check_batch(batch)
    fields = {each.name: getattr(batch, each.name) for each in dataclasses.fields(batch)}
    del fields["copy_rows"]
    return fields | {"spans": list(batch.spans)}


def outcome(decode: Any, body: bytes) -> Any:
    try:
        return plain(decode(body))
    except MalformedRequest as error:
        return str(error)


def assert_same(body: bytes) -> None:
    assert outcome(native.decode_natively, body) == outcome(decode_export_request, body)


def assert_same_json(body: bytes) -> None:
    assert outcome(native.decode_json_natively, body) == outcome(decode_export_json, body)


@pytest.mark.parametrize("place", range(len(CORPUS)))
def test_known_requests_are_decoded_alike(place: int) -> None:
    assert_same(CORPUS[place])
    assert_same_json(JSON_CORPUS[place])


def test_known_requests_are_hardly_ever_declined() -> None:
    """Else the two decoders would be the same one."""
    wires = [msgtrace_native.from_json(body) for body in JSON_CORPUS]

    assert sum(msgtrace_native.outline(body) is not None for body in CORPUS) >= len(CORPUS) - 5
    assert sum(wire is not None for wire in wires) >= len(JSON_CORPUS) - 5


@many
@given(requests)
def test_any_request_is_decoded_alike(request: ExportTraceServiceRequest) -> None:
    assert_same(request.SerializeToString())
    assert_same_json(to_json(request))


@many
@given(st.integers(0, 2**63), st.integers(0, len(CORPUS) - 1))
def test_any_damaged_request_is_decoded_or_refused_alike(seed: int, place: int) -> None:
    assert_same(mutate(random.Random(seed), CORPUS[place], CORPUS))


@many
@given(st.integers(0, 2**63), st.integers(0, len(CORPUS) - 1))
def test_any_damaged_json_is_decoded_or_refused_alike(seed: int, place: int) -> None:
    assert_same_json(mutate(random.Random(seed), JSON_CORPUS[place], JSON_CORPUS))
