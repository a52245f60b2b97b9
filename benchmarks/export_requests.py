"""The requests that benchmarks send: 512 spans with ten attributes, unique ids, ten services."""

from __future__ import annotations

import random
import struct
import time
from collections.abc import Iterable
from typing import Any

import msgspec
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

SPANS_PER_REQUEST = 512
SPANS_PER_TRACE = 16
SERVICES = 10
OPERATIONS = 20

_STRINGS = {
    "http.request.method": ("GET", "POST", "PUT"),
    "url.path": tuple(f"/api/v1/items/{n}" for n in range(500)),
    "server.address": tuple(f"shop-{n}.internal" for n in range(20)),
    "user_agent.original": ("Mozilla/5.0 (X11; Linux x86_64)", "okhttp/4.12.0", "curl/8.5.0"),
    "db.system.name": ("postgresql", "redis"),
    "customer.id": tuple(f"customer-{n}" for n in range(20_000)),
    "request.id": (),
}


def make_requests(count: int, seed: int) -> list[bytes]:
    """`count` serialized requests; the same seed gives the same spans but for their times."""
    rng = random.Random(seed)
    return [_make_request(rng).SerializeToString() for _ in range(count)]


class Renewed:
    """As many requests as are wanted, made from a few: with new trace ids, and with times of now.

    Making one takes a hundredth of the time that `make_requests` takes.
    """

    def __init__(self, count: int, seed: int) -> None:
        self._rng = random.Random(seed)
        self._templates = [_Template(body) for body in make_requests(count, seed)]

    def take(self, count: int) -> list[bytes]:
        """The next requests."""
        now_ns = time.time_ns()
        return [self._rng.choice(self._templates).renew(self._rng, now_ns) for _ in range(count)]


class _Template:
    """A request, and where in it the ids of its traces and the times of its spans stand."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        [resource_spans] = ExportTraceServiceRequest.FromString(body).resource_spans
        [scope_spans] = resource_spans.scope_spans
        self._newest_ns = max(span.start_time_unix_nano for span in scope_spans.spans)
        self._trace_ids: dict[bytes, list[int]] = {}
        self._times: list[tuple[int, int, int]] = []
        place = 0
        for span in scope_spans.spans:
            times = struct.pack(
                "<cQcQ", b"\x39", span.start_time_unix_nano, b"\x41", span.end_time_unix_nano
            )
            place = body.index(span.trace_id, place)
            self._trace_ids.setdefault(span.trace_id, []).append(place)
            place = body.index(times, place)
            self._times.append((place, span.start_time_unix_nano, span.end_time_unix_nano))

    def renew(self, rng: random.Random, now_ns: int) -> bytes:
        body = bytearray(self._body)
        for places in self._trace_ids.values():
            trace_id = rng.randbytes(16)
            for place in places:
                body[place : place + 16] = trace_id
        later_ns = now_ns - self._newest_ns
        for place, start_ns, end_ns in self._times:
            struct.pack_into(
                "<cQcQ", body, place, b"\x39", start_ns + later_ns, b"\x41", end_ns + later_ns
            )
        return bytes(body)


def to_otlp_json(body: bytes) -> bytes:
    """The same request in OTLP/JSON, as an SDK in a browser would send it."""
    request = ExportTraceServiceRequest.FromString(body)
    envelopes = [
        {
            "resource": {"attributes": _json_attributes(each.resource.attributes)},
            "scopeSpans": [
                {"scope": {"name": scope.scope.name}, "spans": [_json_span(s) for s in scope.spans]}
                for scope in each.scope_spans
            ],
        }
        for each in request.resource_spans
    ]
    return msgspec.json.encode({"resourceSpans": envelopes})


def _json_span(span: Span) -> dict[str, Any]:
    return {
        "traceId": span.trace_id.hex(),
        "spanId": span.span_id.hex(),
        "parentSpanId": span.parent_span_id.hex(),
        "name": span.name,
        "kind": span.kind,
        "startTimeUnixNano": str(span.start_time_unix_nano),
        "endTimeUnixNano": str(span.end_time_unix_nano),
        "flags": span.flags,
        "attributes": _json_attributes(span.attributes),
    }


def _json_attributes(attributes: Iterable[KeyValue]) -> list[dict[str, Any]]:
    return [{"key": each.key, "value": _json_value(each.value)} for each in attributes]


def _json_value(value: AnyValue) -> dict[str, Any]:
    match value.WhichOneof("value"):
        case "int_value":
            return {"intValue": str(value.int_value)}
        case "bool_value":
            return {"boolValue": value.bool_value}
        case _:
            return {"stringValue": value.string_value}


def _make_request(rng: random.Random) -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    resource_spans = request.resource_spans.add()
    service = f"service-{rng.randrange(SERVICES)}"
    resource_spans.resource.attributes.add(key="service.name").value.string_value = service
    resource_spans.resource.attributes.add(key="host.name").value.string_value = "benchmark"
    scope_spans = resource_spans.scope_spans.add()
    scope_spans.scope.name = "benchmark"
    now_ns = time.time_ns()
    trace_id, parent_id = b"", b""
    for index in range(SPANS_PER_REQUEST):
        if index % SPANS_PER_TRACE == 0:
            trace_id, parent_id = rng.randbytes(16), b""
        start_ns = now_ns - rng.randrange(1_000_000_000)
        span = scope_spans.spans.add(
            trace_id=trace_id,
            span_id=rng.randbytes(8),
            parent_span_id=parent_id,
            name=f"GET /operation/{rng.randrange(OPERATIONS)}",
            kind=2,
            start_time_unix_nano=start_ns,
            end_time_unix_nano=start_ns + rng.randrange(50_000_000),
            flags=257,
        )
        parent_id = span.span_id
        for key, choices in _STRINGS.items():
            text = rng.choice(choices) if choices else rng.randbytes(8).hex()
            span.attributes.add(key=key).value.string_value = text
        span.attributes.add(key="http.response.status_code").value.int_value = 200
        span.attributes.add(key="http.response.size").value.int_value = rng.randrange(100_000)
        span.attributes.add(key="cache.hit").value.bool_value = rng.random() < 0.5
    return request
