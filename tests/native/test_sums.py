"""Several requests add up to the same rows of traces, whichever decoder read them."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from msgtrace.model.terms import MAX_TERMS
from msgtrace.otlp.decode import decode_export_request
from msgtrace.settings.table import NATIVE_PACKAGE
from msgtrace.storage.summary import TRACE_COLUMNS
from tests.batches import NOON_NS, request, span
from tests.fuzz.batches import NATIVELY, summaries
from tests.fuzz.exports import requests
from tests.fuzz.targets import TARGETS

pytest.importorskip(NATIVE_PACKAGE, reason="msgtrace-native is not installed")
native = pytest.importorskip("msgtrace.otlp.native")
compare_protobuf = pytest.importorskip("tests.fuzz.decoders").compare_protobuf

CORPUS = TARGETS["protobuf"].corpus

many = settings(
    max_examples=200, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)


def test_known_requests_add_up_alike() -> None:
    """Twice, so that all traces are in several."""
    natively = [body for body in CORPUS if compare_protobuf(body) == NATIVELY]
    taken = [(native.decode_natively(body), decode_export_request(body)) for body in natively]
    ours, wanted = zip(*taken, strict=True)

    assert len(taken) >= len(CORPUS) - 10
    assert summaries(ours * 2) == summaries(wanted * 2)


def test_what_models_state_adds_up_alike() -> None:
    """Costs to the last bit, in whichever order they come."""
    bodies = [
        request(
            *(
                span(
                    f"call {part} {number}",
                    start_ns=NOON_NS - number,
                    attributes={
                        "gen_ai.request.model": f"model \0 {number % 3}",
                        "gen_ai.provider.name": 'a "provider"',
                        "gen_ai.operation.name": "chat",
                        "gen_ai.usage.input_tokens": 7 * number,
                        "gen_ai.usage.output_tokens": 1,
                        "gen_ai.usage.cost.amount": 0.1 * part,
                        "gen_ai.agent.name": f"agent {part}",
                        "gen_ai.tool.name": f"tool\n{part}",
                        "session.id": f"session {number}",
                        "user.id": f"user {part}",
                    },
                )
                for number in range(3)
            )
        ).SerializeToString()
        for part in (3, 1, 2)
    ]
    wanted = summaries([decode_export_request(body) for body in bodies])
    row = dict(zip(TRACE_COLUMNS, wanted[0], strict=True))

    assert summaries([native.decode_natively(body) for body in bodies]) == wanted
    assert row["usage_count"] == 9
    assert row["cost"] > 1
    assert None not in (row["session_id"], row["user_id"], row["agents"])
    for body in bodies:
        assert compare_protobuf(body) == NATIVELY


@many
@given(st.lists(requests, max_size=4))
def test_requests_add_up_alike(several: list[ExportTraceServiceRequest]) -> None:
    bodies = [each.SerializeToString() for each in several]
    natively = [native.decode_natively(body) for body in bodies]
    wanted = summaries([decode_export_request(body) for body in bodies])

    assert summaries(natively) == wanted
    if len(natively) > 1:  # what only one of both decoders made is added up as well
        assert summaries([natively[0], *map(decode_export_request, bodies[1:])]) == wanted


def test_a_trace_of_too_many_names_has_no_terms() -> None:
    bodies = [
        request(*(span(name=f"{half} {number}") for number in range(count))).SerializeToString()
        for half, count in (("first", MAX_TERMS // 4), ("second", MAX_TERMS // 4 + 1))
    ]
    terms = TRACE_COLUMNS.index("terms")
    natively = [native.decode_natively(body) for body in bodies]

    assert [summaries([each])[0][terms] is None for each in natively] == [False, False]
    assert summaries(natively)[0][terms] is None
    assert summaries(natively) == summaries([decode_export_request(body) for body in bodies])
