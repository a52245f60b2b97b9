"""Bytes of strangers end in rows or in a refusal, never in a fault.

`make fuzz` does the same for as long as one likes.
"""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.fuzz.exports import requests
from tests.fuzz.mutations import mutate
from tests.fuzz.targets import TARGETS, Target

few = settings(
    max_examples=80, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)

every_target = pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)


@every_target
@few
@given(body=st.binary(max_size=300))
def test_arbitrary_bytes(target: Target, body: bytes) -> None:
    target.try_out(body)


@every_target
def test_the_corpus_is_taken(target: Target) -> None:
    for body in target.corpus:
        target.run(body)


@every_target
def test_damaged_bytes(target: Target) -> None:
    chance = random.Random(1)
    for _ in range(400):
        target.try_out(target.mutate(chance, chance.choice(target.corpus), target.corpus))


@few
@given(request=requests, chance=st.randoms(use_true_random=False))
def test_any_request_damaged(request: ExportTraceServiceRequest, chance: random.Random) -> None:
    body = request.SerializeToString()
    TARGETS["protobuf"].run(body)
    TARGETS["protobuf"].try_out(mutate(chance, body, [body]))
