"""Decode OTLP trace exports with the optional package msgtrace-native.

Path: receivers → [otlp.native] → pipeline.batcher → storage; takes the place of `otlp.decode` and
`otlp.json`. JSON is first made protobuf.
The native part turns spans into tuples of PostgreSQL's binary COPY and sums them by trace. What is
rare it leaves to these two, which stay the rule: malformed bytes, text that is not UTF-8, odd
encodings, deep values. Resources, scopes and GenAI facts are read here, as `otlp.decode` does it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

import msgtrace_native
from google.protobuf.message import DecodeError
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from msgtrace.model.batch import Rejection, SeenOperation, SpanBatch, TraceDelta, TraceKey
from msgtrace.model.genai import STATING_KEYS, read_facts
from msgtrace.model.prices import BUILT_IN, PriceTable
from msgtrace.model.span import DEFAULT_TENANT, Row, SpanId, TenantId, TraceId
from msgtrace.model.text import MAX_LABEL_CHARS, escape_text
from msgtrace.model.units import MAX_INT64
from msgtrace.otlp.decode import READER, decode_export_request
from msgtrace.otlp.in_place import LARGE_REQUEST_BYTES
from msgtrace.otlp.json import decode_export_json
from msgtrace.otlp.rows import ROW_BYTES
from msgtrace.otlp.values import plain_map

_KEYS = msgtrace_native.Keys(sorted(STATING_KEYS))

_REJECTIONS = (
    Rejection.INVALID_TRACE_ID,
    Rejection.INVALID_SPAN_ID,
    Rejection.INVALID_PARENT_SPAN_ID,
)
"""In the order of `Rows.rejected`."""


def decode_natively(
    body: bytes, *, tenant_id: TenantId = DEFAULT_TENANT, prices: PriceTable = BUILT_IN
) -> SpanBatch:
    """What `otlp.decode.decode_export_request` makes of the same bytes, and raises for them."""
    batch = _decode(body, tenant_id, len(body), prices)
    if batch is None:
        return decode_export_request(body, tenant_id=tenant_id, prices=prices)
    return batch


def decode_json_natively(
    body: bytes, *, tenant_id: TenantId = DEFAULT_TENANT, prices: PriceTable = BUILT_IN
) -> SpanBatch:
    """What `otlp.json.decode_export_json` makes of the same bytes, and raises for them."""
    wire = msgtrace_native.from_json(body)
    batch = None if wire is None else _decode(wire, tenant_id, len(body), prices)
    del wire
    if batch is None:
        return decode_export_json(body, tenant_id=tenant_id, prices=prices)
    return batch


def _decode(
    body: bytes, tenant_id: TenantId, body_bytes: int, prices: PriceTable
) -> SpanBatch | None:
    envelopes = msgtrace_native.outline(body)
    if envelopes is None or _is_mostly_one_span(envelopes, len(body)):
        return None
    batch = SpanBatch()
    try:
        target = _read_contents(envelopes, batch, tenant_id)
    except (DecodeError, UnicodeDecodeError):
        return None
    rows = msgtrace_native.decode(body, target.destinations, target.services, tenant_id, _KEYS)
    if rows is None:
        return None
    batch.spans = LazyRows(len(rows), rows.to_tuples)
    batch.copy_rows = rows.to_copy
    batch.body_bytes = max(body_bytes, rows.text_chars + ROW_BYTES * len(rows))
    batch.traces = _traces(rows, target.services, tenant_id)
    batch.operations = _operations(rows, target.services, tenant_id)
    batch.rejections = {
        rejection: count
        for rejection, count in zip(_REJECTIONS, rows.rejected, strict=True)
        if count
    }
    _add_facts(batch, rows, tenant_id, prices)
    return batch


def _is_mostly_one_span(envelopes: Sequence[Any], body_bytes: int) -> bool:
    """Whether a request is large and has few spans.

    Its texts would be in memory once more than in Python, which takes no longer for them.
    """
    if body_bytes <= LARGE_REQUEST_BYTES:
        return False
    spans: int = sum(count for _, _, scopes in envelopes for _, _, count in scopes)
    return body_bytes > spans * LARGE_REQUEST_BYTES


@dataclass(slots=True)
class _Target:
    """Where the spans of each ScopeSpans go, and the services as they are stored."""

    destinations: list[tuple[int, int, int]]
    services: list[str]


def _read_contents(envelopes: Sequence[Any], batch: SpanBatch, tenant_id: TenantId) -> _Target:
    """Put resources and scopes into the batch. Raises DecodeError, UnicodeDecodeError."""
    target = _Target([], [])
    for resource, schema_url, scopes in envelopes:
        if not any(count for _, _, count in scopes):
            target.destinations += [(0, 0, 0)] * len(scopes)
            continue
        (resource_id, columns), service = READER.read_resource(resource, schema_url)
        batch.resources[resource_id] = (tenant_id, resource_id, *columns)
        if service not in target.services:
            target.services.append(service)
        place = target.services.index(service)
        for scope, scope_schema_url, count in scopes:
            scope_id = 0
            if count:
                scope_id, columns = READER.read_scope(scope, scope_schema_url)
                batch.scopes[scope_id] = (tenant_id, scope_id, *columns)
            target.destinations.append((resource_id, scope_id, place))
    if not target.services:
        target.services.append("")
    return target


def _traces(rows: Any, services: Sequence[str], tenant_id: TenantId) -> dict[TraceKey, TraceDelta]:
    return {
        (tenant_id, TraceId(trace_id)): TraceDelta(
            start_time_ns=start_ns,
            end_time_ns=end_ns,
            root=(has_parent, root_start_ns, SpanId(root_span_id)),
            root_name=escape_text(root_name),
            root_service_name=services[root_service],
            span_count=span_count,
            error_count=error_count,
            services={services[place] for place, _ in operations},
            span_names={
                (services[place], escape_text(name))
                for place, names in operations
                for name in names
            },
        )
        for (
            trace_id,
            start_ns,
            end_ns,
            span_count,
            error_count,
            (has_parent, root_start_ns, root_span_id),
            root_name,
            root_service,
            operations,
        ) in rows.traces()
    }


def _operations(rows: Any, services: Sequence[str], tenant_id: TenantId) -> set[SeenOperation]:
    return {
        (tenant_id, services[place], escape_text(name)[:MAX_LABEL_CHARS], kind, day)
        for place, kind, day, names in rows.operations()
        for name in names
    }


def _add_facts(batch: SpanBatch, rows: Any, tenant_id: TenantId, prices: PriceTable) -> None:
    for place, message in rows.noted():
        span = Span.FromString(message)
        stated = read_facts(plain_map(span.attributes))
        if stated is not None:
            facts = batch.genai[place] = stated.priced(prices)
            delta = batch.traces[tenant_id, TraceId(span.trace_id)]
            delta.add_genai(facts, min(span.start_time_unix_nano, MAX_INT64))


class LazyRows(Sequence[Row]):
    """Rows that are made when one of them is first looked at."""

    __slots__ = ("_count", "_make", "_rows")

    def __init__(self, count: int, make: Callable[[], Sequence[Row]]) -> None:
        self._count = count
        self._make = make
        self._rows: Sequence[Row] | None = None

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | Sequence[Row]:
        return self._made()[index]

    def __iter__(self) -> Iterator[Row]:
        return iter(self._made())

    def __eq__(self, other: object) -> bool:
        """To any sequence of the same rows: so two batches compare, whatever decoded them."""
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"LazyRows({list(self)!r})"

    def _made(self) -> Sequence[Row]:
        if self._rows is None:
            self._rows = self._make()
        return self._rows
