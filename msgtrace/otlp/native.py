"""Decode OTLP trace exports with the optional package msgtrace-native.

Path: receivers → [otlp.native] → pipeline.batcher → storage; takes the place of `otlp.decode` and
`otlp.json`. JSON is first made protobuf.
The native part turns spans into tuples of PostgreSQL's binary COPY and sums them by trace. What is
rare it leaves to these two, which stay the rule: malformed bytes, text that is not UTF-8, odd
encodings, deep values. Resources, scopes and GenAI facts are read here, as `otlp.decode` does it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, overload

import msgtrace_native
from google.protobuf.message import DecodeError
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from msgtrace.model.batch import (
    Rejection,
    RootRank,
    SeenOperation,
    SpanBatch,
    TraceDelta,
    TraceKey,
    TraceRows,
)
from msgtrace.model.genai import ALIASES_VERSION, STATING_KEYS, read_facts
from msgtrace.model.prices import BUILT_IN, PriceTable
from msgtrace.model.span import DEFAULT_TENANT, Row, SpanId, TenantId, TraceId
from msgtrace.model.terms import MAX_TERMS
from msgtrace.model.text import MAX_LABEL_CHARS
from msgtrace.model.units import MAX_INT64
from msgtrace.otlp.decode import READER, decode_export_request
from msgtrace.otlp.in_place import LARGE_REQUEST_BYTES
from msgtrace.otlp.json import decode_export_json
from msgtrace.otlp.rows import ROW_BYTES
from msgtrace.otlp.values import plain_map

INTERFACE = 2
"""What the package's functions take and give; as in native/src/lib.rs. Raise both together."""

if getattr(msgtrace_native, "INTERFACE", None) != INTERFACE:
    raise ImportError(
        f"msgtrace-native {msgtrace_native.__version__} belongs to another release of msgtrace"
    )

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
    batch.traces = LazyTraces(rows, tenant_id)
    batch.join_traces = join_natively
    batch.operations = _operations(rows, tenant_id)
    batch.rejections = {
        rejection: count
        for rejection, count in zip(_REJECTIONS, rows.rejected, strict=True)
        if count
    }
    _add_facts(batch, rows, prices)
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


def _operations(rows: Any, tenant_id: TenantId) -> set[SeenOperation]:
    return {
        (tenant_id, service, name[:MAX_LABEL_CHARS], kind, day)
        for service, name, kind, day in rows.operations()
    }


def _add_facts(batch: SpanBatch, rows: Any, prices: PriceTable) -> None:
    for number, (place, message) in enumerate(rows.noted()):
        span = Span.FromString(message)
        stated = read_facts(plain_map(span.attributes))
        if stated is not None:
            facts = batch.genai[place] = stated.priced(prices)
            delta = _delta(0, 0, 0, 0, _NO_ROOT, ("", ""), (), None)
            delta.add_genai(facts, min(span.start_time_unix_nano, MAX_INT64))
            rows.add_facts(number, _facts_of(delta))


_NO_ROOT = (False, 0, SpanId(b""))

_LABELS = ("models", "providers", "operations", "agents", "tools")
_COUNTS = ("usage_count", "input_tokens", "output_tokens", "cached_tokens", "reasoning_tokens")
_COSTS = ("cost", "estimated_cost")
_RANKED = ("workflow", "session", "user")


def _facts_of(delta: TraceDelta) -> tuple[list[Any], ...]:
    """What a delta has of GenAI, as the native part takes and gives it."""
    return (
        [getattr(delta, name) for name in _RANKED],
        [list(getattr(delta, name)) for name in _LABELS],
        [getattr(delta, name) for name in _COUNTS],
        [getattr(delta, name) for name in _COSTS],
    )


class LazyTraces(Mapping[TraceKey, TraceDelta]):
    """What a request adds to its traces; made when it is first looked at.

    rows: the native object that has it all.
    """

    __slots__ = ("_made", "_tenant_id", "rows")

    def __init__(self, rows: Any, tenant_id: TenantId) -> None:
        self.rows = rows
        self._tenant_id = tenant_id
        self._made: dict[TraceKey, TraceDelta] | None = None

    def __getitem__(self, key: TraceKey) -> TraceDelta:
        return self._deltas()[key]

    def __iter__(self) -> Iterator[TraceKey]:
        return iter(self._deltas())

    def __len__(self) -> int:
        return len(self._deltas())

    def __repr__(self) -> str:
        return f"LazyTraces({self._deltas()!r})"

    def _deltas(self) -> dict[TraceKey, TraceDelta]:
        if self._made is None:
            self._made = {
                (self._tenant_id, TraceId(trace_id)): _delta(*values)
                for trace_id, *values in self.rows.traces()
            }
        return self._made


def _delta(
    start_ns: int,
    end_ns: int,
    span_count: int,
    error_count: int,
    root: RootRank,
    root_operation: tuple[str, str],
    operations: Sequence[tuple[str, str]],
    facts: tuple[list[Any], ...] | None,
) -> TraceDelta:
    delta = TraceDelta(
        start_time_ns=start_ns,
        end_time_ns=end_ns,
        root=root,
        root_name=root_operation[1],
        root_service_name=root_operation[0],
        span_count=span_count,
        error_count=error_count,
        services={service for service, _ in operations},
        span_names=set(operations),
    )
    if facts is not None:
        ranked, labels, counts, costs = facts
        for name, value in zip(_RANKED + _COUNTS + _COSTS, ranked + counts + costs, strict=True):
            setattr(delta, name, value)
        for name, texts in zip(_LABELS, labels, strict=True):
            setattr(delta, name, set(texts))
    return delta


def join_natively(batches: Sequence[SpanBatch]) -> TraceRows | None:
    """See SpanBatch.join_traces."""
    rows = [batch.traces.rows for batch in batches if isinstance(batch.traces, LazyTraces)]
    if len(rows) < len(batches):
        return None
    joined: TraceRows | None = msgtrace_native.summarize(rows, ALIASES_VERSION, MAX_TERMS)
    return joined


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
