"""OTLP's messages as rows, in whichever encoding they came.

Path: receivers → [otlp] → pipeline.batcher → storage. `decode.py` and `json.py` parse, and say with
a `PartReader` how the parts of their messages are read; this module makes the rows.
What a span must satisfy is decided here alone: ids of the right length that are not all zero;
anything else about it is kept as it came. Times beyond 2**63-1 ns (the year 2262) are stored as
2**63-1. No object per span is made beside its row tuple.
Source: opentelemetry-proto trace.proto, docs/specification.md "Partial Success".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from operator import attrgetter
from typing import Any, Protocol

from msgtrace.model.batch import Rejection, SpanBatch, operations_of, summarize
from msgtrace.model.genai import GenAiFacts
from msgtrace.model.prices import PriceTable
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

ROW_BYTES = 200
"""Least size of a row tuple in memory, without its texts."""

LONG_CONTENT_CHARS = 1024 * 1024
"""Resources and scopes of more are hashed in another way, without copies of all their texts."""

Message = Any
"""A protobuf message, or a struct with the same field names."""

Content = tuple[int, Row]
"""The hash of a resource or scope, and its columns behind that."""


class PartReader(Protocol):
    """How the parts of one encoding's messages are read.

    `text` maps the text of a span to the text that is stored.
    """

    text: dict[Any, str]

    def resource(self, envelope: Message) -> tuple[Content, str]:
        """The resource of a ResourceSpans, and its service as it is stored."""
        ...

    def scope(self, envelope: Message) -> Content:
        """The scope of a ScopeSpans."""
        ...

    def attributes(self, pairs: Sequence[Any]) -> tuple[JsonText, GenAiFacts | None]:
        """The text of a span's attributes, at least one, and what they state."""
        ...

    def plain_map(self, pairs: Sequence[Any]) -> dict[str, Any]:
        """The attributes of anything else, as values that `to_json` takes."""
        ...

    def event(self, given: Any) -> Message:
        """One event of a span."""
        ...

    def link(self, given: Any) -> Message:
        """One link of a span."""
        ...


def make_batch(
    request: Message,
    reader: PartReader,
    *,
    tenant_id: TenantId,
    body_bytes: int,
    prices: PriceTable,
) -> SpanBatch:
    """The rows of an ExportTraceServiceRequest.

    prices: for model calls that state no cost.
    Spans keep wire order. A span with an invalid id is left out and counted in `rejections`.
    """
    maker = _RowMaker(reader, tenant_id)
    for resource_spans in request.resource_spans:
        maker.add_resource_spans(resource_spans)
    batch = maker.batch
    # What waits for the database is measured: a link of two bytes on the wire is a text of ninety.
    batch.body_bytes = max(body_bytes, maker.text_bytes + ROW_BYTES * len(batch.spans))
    batch.genai = {place: facts.priced(prices) for place, facts in batch.genai.items()}
    batch.traces = summarize(batch.spans, batch.genai)
    batch.operations = operations_of(batch.spans)
    batch.rejections = dict(maker.rejected)
    return batch


def read_resource(resource: Message, schema_url: str, reader: PartReader) -> tuple[Content, str]:
    """See `PartReader.resource`."""
    attributes = reader.plain_map(resource.attributes)
    service_name = stored_label(_service_name(attributes))
    dropped = resource.dropped_attributes_count or None
    entity_refs = _entity_refs(resource.entity_refs)
    del resource  # a large one is gone before its text is made
    plain = [attributes]
    del attributes
    text = to_json(plain.pop())
    return _with_hash(text, dropped, entity_refs, escape_text(schema_url) or None), service_name


def read_scope(scope: Message, schema_url: str, reader: PartReader) -> Content:
    """See `PartReader.scope`."""
    return _with_hash(
        escape_text(scope.name),
        escape_text(scope.version),
        to_json(reader.plain_map(scope.attributes)) if scope.attributes else EMPTY_MAP,
        scope.dropped_attributes_count or None,
        escape_text(schema_url) or None,
    )


_span_fields = attrgetter(
    "trace_id",
    "span_id",
    "parent_span_id",
    "start_time_unix_nano",
    "end_time_unix_nano",
    "kind",
    "flags",
    "dropped_attributes_count",
    "dropped_events_count",
    "dropped_links_count",
    "name",
    "trace_state",
    "attributes",
    "events",
    "links",
    "status",
)


class _RowMaker:
    def __init__(self, reader: PartReader, tenant_id: TenantId) -> None:
        self._rows: list[Row] = []
        self.batch = SpanBatch(spans=self._rows)
        self.rejected: Counter[Rejection] = Counter()
        self.text_bytes = 0
        self._reader = reader
        self._tenant_id = tenant_id

    def add_resource_spans(self, envelope: Message) -> None:
        """Add all spans of one ResourceSpans; one without spans adds nothing."""
        if not any(scope_spans.spans for scope_spans in envelope.scope_spans):
            return
        (resource_id, content), service_name = self._reader.resource(envelope)
        self.batch.resources[resource_id] = (self._tenant_id, resource_id, *content)
        for scope_spans in envelope.scope_spans:
            if scope_spans.spans:
                scope_id, content = self._reader.scope(scope_spans)
                self.batch.scopes[scope_id] = (self._tenant_id, scope_id, *content)
                self._add_spans(scope_spans.spans, resource_id, scope_id, service_name)

    def _add_spans(
        self, spans: Sequence[Message], resource_id: int, scope_id: int, service_name: str
    ) -> None:
        # The hot loop: names are local, and nothing is called that a plain span does not need.
        tenant_id, rejected, rows, genai = (
            self._tenant_id,
            self.rejected,
            self._rows,
            self.batch.genai,
        )
        read_attributes, text_of = self._reader.attributes, self._reader.text
        for span in spans:
            (
                trace_id,
                span_id,
                parent_id,
                start_ns,
                end_ns,
                kind,
                flags,
                dropped_attributes,
                dropped_events,
                dropped_links,
                name,
                trace_state,
                pairs,
                events,
                links,
                status,
            ) = _span_fields(span)
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
            if pairs:
                attributes, facts = read_attributes(pairs)
                if facts:
                    genai[len(rows)] = facts
            status_message = status.message
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
                    kind,
                    status.code,
                    flags or None,
                    dropped_attributes or None,
                    dropped_events or None,
                    dropped_links or None,
                    service_name,
                    text_of[name],
                    text_of[status_message] if status_message else None,
                    text_of[trace_state] if trace_state else None,
                    attributes,
                    self._list(map(self._event, events)) if events else None,
                    self._list(map(self._link, links)) if links else None,
                )
            )

    def _list(self, plain: Iterable[dict[str, Any]]) -> JsonText:
        text = to_json(list(plain))
        self.text_bytes += len(text)
        return text

    def _event(self, given: Any) -> dict[str, Any]:
        event = self._reader.event(given)
        return {
            "time_unix_nano": str(event.time_unix_nano),
            "name": event.name,
            "attributes": self._reader.plain_map(event.attributes),
            "dropped_attributes_count": event.dropped_attributes_count,
        }

    def _link(self, given: Any) -> dict[str, Any]:
        link = self._reader.link(given)
        return {
            "trace_id": link.trace_id.hex(),
            "span_id": link.span_id.hex(),
            "trace_state": link.trace_state,
            "attributes": self._reader.plain_map(link.attributes),
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


def _with_hash(*content: Any) -> Content:
    """The content under 64 bits of its BLAKE2b as a signed integer; equal content is kept once."""
    texts = [each for each in content if isinstance(each, str)]
    if sum(map(len, texts)) > LONG_CONTENT_CHARS:
        hashed = blake2b(repr([len(text) for text in texts]).encode(), digest_size=8)
        for text in texts:
            hashed.update(text.encode())
        hashed.update(repr([each for each in content if not isinstance(each, str)]).encode())
    else:
        hashed = blake2b(repr(content).encode(), digest_size=8)
    return int.from_bytes(hashed.digest(), signed=True), content
