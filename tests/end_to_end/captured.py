"""Requests that real programs have sent, from tests/fixtures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.end_to_end.processes import RunningProcess
from tests.end_to_end.rebuild import SpanKey, shown_spans

FIXTURES = Path(__file__).parents[1] / "fixtures"
CAPTURED: Mapping[str, Any] = json.loads((FIXTURES / "manifest.json").read_text())["files"]
"""File name → what the manifest says about it."""


def read(name: str) -> tuple[bytes, ExportTraceServiceRequest]:
    """The inflated body as it was sent, and the message that it is."""
    body = (FIXTURES / name).read_bytes()
    return body, ExportTraceServiceRequest.FromString(body)


def read_json(name: str) -> bytes:
    """The same request in OTLP/JSON."""
    return (FIXTURES / name).with_suffix(".json").read_bytes()


def stored_spans(service: RunningProcess, sent: Mapping[SpanKey, str]) -> dict[SpanKey, str]:
    """Of the traces of `sent` the spans that it has; requests share traces with each other."""
    found: dict[SpanKey, str] = {}
    for trace_id in {trace_id for trace_id, _, _ in sent}:
        found |= shown_spans(service.get_trace(trace_id))
    return {key: span for key, span in found.items() if key in sent}
