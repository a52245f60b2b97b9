"""The running query service keeps to what /openapi.json says, whatever it is asked."""

from __future__ import annotations

from typing import Any

import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    allow_header_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from msgtrace.api.app import documented_routes
from tests.end_to_end.captured import CAPTURED, read
from tests.end_to_end.processes import RunningProcess
from tests.end_to_end.senders import export

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    unsupported_method,
    allow_header_conformance,
]

some = settings(
    max_examples=8,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)

ITS_OWN = ("GET", "/openapi.json")
"""What schemathesis leaves out, as it has just read it."""


def _stored_ids(service: RunningProcess) -> list[dict[str, str]]:
    """Of each trace its id, that of its last span, and a session."""
    (session, *_) = service.get("/api/v1/sessions")["sessions"]
    traces = [each["trace_id"] for each in service.get("/api/v1/traces")["traces"]]
    return [
        {
            "trace_id": trace_id,
            "span_id": service.get(f"/api/v1/traces/{trace_id}")["spans"][-1]["span_id"],
            "session_id": session["session_id"],
        }
        for trace_id in traces
    ]


def test_every_operation_answers_as_it_is_described(service: RunningProcess) -> None:
    for name in CAPTURED:
        export(service, read(name)[1].SerializeToString())
    stored = _stored_ids(service)
    schema = schemathesis.openapi.from_url(f"{service.url}/openapi.json")
    asked = set()

    for result in schema.get_all_operations():
        assert isinstance(result, Ok)
        operation = result.ok()
        asked.add((operation.method.upper(), operation.path))

        @some
        @given(case=operation.as_strategy(generation_mode=GenerationMode.POSITIVE))
        def ask_rightly(case: schemathesis.Case[Any]) -> None:
            if case.method == "GET":
                known = stored[len(str(case.query)) % len(stored)]
                wanted = case.path_parameters.keys() & known.keys()
                case.path_parameters.update({name: known[name] for name in wanted})
            case.call_and_validate(checks=CHECKS)

        @some
        @given(case=operation.as_strategy(generation_mode=GenerationMode.NEGATIVE))
        def ask_wrongly(case: schemathesis.Case[Any]) -> None:
            case.call_and_validate(checks=CHECKS)

        ask_rightly()
        if operation.definition.raw.get("parameters"):
            ask_wrongly()

    assert asked == set(documented_routes()) - {ITS_OWN}
    assert service.get("/health")["status"] == "healthy"
