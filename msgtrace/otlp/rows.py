"""OTLP's messages as rows, in whichever encoding they came.

Path: receivers → [otlp] → pipeline.batcher → storage. `decode.py` and `json.py` parse, this module
makes the rows: it reads OTLP's field names, from protobuf messages and from JSON structs alike.
What a span must satisfy is decided here alone: ids of the right length that are not all zero;
anything else about it is kept as it came. Times beyond 2**63-1 ns (the year 2262) are stored as
2**63-1. No object per span is made beside its row tuple.
Source: opentelemetry-proto trace.proto, docs/specification.md "Partial Success".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Any

from msgtrace.model.batch import Rejection, SpanBatch, summarize
from msgtrace.model.genai import read_facts
from msgtrace.model.span import SPAN_ID_BYTES, TRACE_ID_BYTES, JsonText, Row, TenantId
from msgtrace.model.text import escape_text, stored_label
from msgtrace.model.units import MAX_INT64
from msgtrace.otlp.values import EMPTY_LIST, EMPTY_MAP, to_json

UNKNOWN_SERVICE = "unknown_service"
"""The service of spans whose resource names none.

The name that the OpenTelemetry resource conventions give it.
"""

_NO_TRACE = bytes(TRACE_ID_BYTES)
_NO_SPAN = bytes(SPAN_ID_BYTES)
_PARENT_BYTES = (SPAN_ID_BYTES, 0)

_ROW_BYTES = 200
"""Least size of a row tuple in memory, without its texts."""

PlainMap = Callable[[Any], dict[str, Any]]
"""Turns the attributes of one encoding into values that `to_json` takes."""

Message = Any
"""A protobuf message, or a struct with the same field names."""


def make_batch(
    request: Message, plain_map: PlainMap, *, tenant_id: TenantId, body_bytes: int
) -> SpanBatch:
    """The rows of an ExportTraceServiceRequest.

    Spans keep wire order. A span with an invalid id is left out and counted in `rejections`.
    """
    maker = _RowMaker(plain_map, tenant_id)
    for resource_spans in request.resource_spans:
        maker.add_resource_spans(resource_spans)
    batch = maker.batch
    # What waits for the database is measured: a link of two bytes on the wire is a text of ninety.
    batch.body_bytes = max(body_bytes, maker.text_bytes + _ROW_BYTES * len(batch.spans))
    batch.traces = summarize(batch.spans, batch.genai)
    batch.rejections = dict(maker.rejected)
    return batch


class _RowMaker:
    def __init__(self, plain_map: PlainMap, tenant_id: TenantId) -> None:
        self._rows: list[Row] = []
        self.batch = SpanBatch(spans=self._rows)
        self.rejected: Counter[Rejection] = Counter()
        self.text_bytes = 0
        self._plain_map = plain_map
        self._tenant_id = tenant_id

    def add_resource_spans(self, envelope: Message) -> None:
        """Add all spans of one ResourceSpans; one without spans adds nothing."""
        if not any(scope_spans.spans for scope_spans in envelope.scope_spans):
            return
        resource = envelope.resource
        attributes = self._plain_map(resource.attributes)
        resource_id = self._add_content(
            self.batch.resources,
            to_json(attributes),
            resource.dropped_attributes_count or None,
            _entity_refs(resource.entity_refs),
            escape_text(envelope.schema_url) or None,
        )
        service_name = stored_label(_service_name(attributes))
        for scope_spans in envelope.scope_spans:
            if scope_spans.spans:
                scope_id = self._add_scope(scope_spans)
                self._add_spans(scope_spans.spans, resource_id, scope_id, service_name)

    def _add_scope(self, envelope: Message) -> int:
        scope = envelope.scope
        return self._add_content(
            self.batch.scopes,
            escape_text(scope.name),
            escape_text(scope.version),
            self._attributes(scope.attributes),
            scope.dropped_attributes_count or None,
            escape_text(envelope.schema_url) or None,
        )

    def _add_content(self, known: dict[int, Any], *content: Any) -> int:
        content_id = _content_hash(content)
        known[content_id] = (self._tenant_id, content_id, *content)
        return content_id

    def _add_spans(
        self, spans: Sequence[Message], resource_id: int, scope_id: int, service_name: str
    ) -> None:
        # The hot loop: names are local, and nothing is called that a plain span does not need.
        tenant_id, rejected, plain_map = self._tenant_id, self.rejected, self._plain_map
        rows, genai = self._rows, self.batch.genai
        for span in spans:
            trace_id, span_id, parent_id = span.trace_id, span.span_id, span.parent_span_id
            if (
                len(trace_id) != TRACE_ID_BYTES
                or len(span_id) != SPAN_ID_BYTES
                or not (
                    trace_id != _NO_TRACE
                    and span_id != _NO_SPAN
                    and len(parent_id) in _PARENT_BYTES
                )
            ):
                rejected[_id_problem(trace_id, span_id)] += 1
                continue
            attributes = None
            if pairs := span.attributes:
                plain = plain_map(pairs)
                attributes = to_json(plain)
                if facts := read_facts(plain):
                    genai[len(rows)] = facts
            status, trace_state = span.status, span.trace_state
            status_message = status.message
            start_ns, end_ns = span.start_time_unix_nano, span.end_time_unix_nano
            events, links = span.events, span.links
            # In SPAN_COLUMNS order.
            rows.append(
                (
                    tenant_id,
                    trace_id,
                    span_id,
                    parent_id if parent_id and parent_id != _NO_SPAN else None,
                    start_ns if start_ns <= MAX_INT64 else MAX_INT64,
                    end_ns if end_ns <= MAX_INT64 else MAX_INT64,
                    resource_id,
                    scope_id,
                    span.kind,
                    status.code,
                    span.flags or None,
                    span.dropped_attributes_count or None,
                    span.dropped_events_count or None,
                    span.dropped_links_count or None,
                    service_name,
                    escape_text(span.name),
                    escape_text(status_message) if status_message else None,
                    escape_text(trace_state) if trace_state else None,
                    attributes,
                    self._list(self._event, events) if events else None,
                    self._list(self._link, links) if links else None,
                )
            )

    def _attributes(self, pairs: Sequence[Message]) -> JsonText:
        return to_json(self._plain_map(pairs)) if pairs else EMPTY_MAP

    def _list(self, plain: Callable[[Message], Any], messages: Sequence[Message]) -> JsonText:
        text = to_json([plain(message) for message in messages])
        self.text_bytes += len(text)
        return text

    def _event(self, event: Message) -> dict[str, Any]:
        return {
            "time_unix_nano": str(event.time_unix_nano),
            "name": event.name,
            "attributes": self._plain_map(event.attributes),
            "dropped_attributes_count": event.dropped_attributes_count,
        }

    def _link(self, link: Message) -> dict[str, Any]:
        return {
            "trace_id": link.trace_id.hex(),
            "span_id": link.span_id.hex(),
            "trace_state": link.trace_state,
            "attributes": self._plain_map(link.attributes),
            "dropped_attributes_count": link.dropped_attributes_count,
            "flags": link.flags,
        }


def _id_problem(trace_id: bytes, span_id: bytes) -> Rejection:
    if len(trace_id) != TRACE_ID_BYTES or trace_id == _NO_TRACE:
        return Rejection.INVALID_TRACE_ID
    if len(span_id) != SPAN_ID_BYTES or span_id == _NO_SPAN:
        return Rejection.INVALID_SPAN_ID
    return Rejection.INVALID_PARENT_SPAN_ID


def _service_name(attributes: dict[str, Any]) -> str:
    pairs = attributes["$map"] if attributes.keys() == {"$map"} else attributes.items()
    named = (value for key, value in pairs if key == "service.name" and isinstance(value, str))
    return next(filter(None, named), UNKNOWN_SERVICE)


def _entity_refs(references: Sequence[Message]) -> JsonText:
    if not references:
        return EMPTY_LIST
    return to_json(
        [
            {
                "schema_url": each.schema_url,
                "type": each.type,
                "id_keys": list(each.id_keys),
                "description_keys": list(each.description_keys),
            }
            for each in references
        ]
    )


def _content_hash(content: tuple[Any, ...]) -> int:
    """64 bits of BLAKE2b as a signed integer, the key under which equal content is stored once."""
    digest = blake2b(repr(content).encode(), digest_size=8).digest()
    return int.from_bytes(digest, signed=True)
