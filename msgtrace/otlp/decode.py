"""Decode OTLP/protobuf trace exports.

Path: receivers → [otlp.decode] → pipeline.batcher → storage.
Pure: bytes in, SpanBatch out; no I/O, no settings. What is remembered from request to request
(attributes, resources, names) changes nothing but the time it takes. A native decoder may take this
module's place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from google.protobuf.message import DecodeError
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from msgtrace.errors import MalformedRequest
from msgtrace.model.batch import SpanBatch
from msgtrace.model.prices import BUILT_IN, PriceTable
from msgtrace.model.span import DEFAULT_TENANT, TenantId
from msgtrace.model.text import escape_text
from msgtrace.otlp.attributes import AttributeReader
from msgtrace.otlp.in_place import LARGE_REQUEST_BYTES, in_place
from msgtrace.otlp.lenient import repair_text
from msgtrace.otlp.rows import Content, make_batch, read_resource, read_scope
from msgtrace.otlp.v1.shallow_pb2 import ShallowExportRequest
from msgtrace.otlp.values import plain_map

MAX_REMEMBERED_TEXTS = 5_000
MAX_REMEMBERED_TEXT_BYTES = 256
MAX_REMEMBERED_CONTENTS = 1_000
MAX_REMEMBERED_CONTENT_BYTES = 8_192
"""What is remembered: names of spans and the like, resources and scopes; and the greatest size."""

T = TypeVar("T")


def decode_export_request(
    body: bytes, *, tenant_id: TenantId = DEFAULT_TENANT, prices: PriceTable = BUILT_IN
) -> SpanBatch:
    """Decode one serialized ExportTraceServiceRequest, already inflated and size-checked.

    Text that is not UTF-8 comes out with U+FFFD for what is wrong in it.
    prices: for model calls that state no cost.
    Raises MalformedRequest if the bytes do not parse. See `otlp.rows` for what becomes of a span.
    """
    try:
        return _decode(body, tenant_id, len(body), prices)
    except (DecodeError, UnicodeDecodeError):
        pass
    try:
        return _decode(repair_text(body), tenant_id, len(body), prices)
    except DecodeError as error:
        raise MalformedRequest("the body is not an ExportTraceServiceRequest") from error


def _decode(body: bytes, tenant_id: TenantId, body_bytes: int, prices: PriceTable) -> SpanBatch:
    request = ShallowExportRequest.FromString(body)
    if len(body) > LARGE_REQUEST_BYTES:
        request = in_place(request, body)
    return make_batch(request, READER, tenant_id=tenant_id, body_bytes=body_bytes, prices=prices)


class ShallowReader:
    """Reads the parts of messages that were parsed no deeper than a span."""

    event = staticmethod(Span.Event.FromString)
    link = staticmethod(Span.Link.FromString)
    plain_map = staticmethod(plain_map)

    def __init__(self) -> None:
        self.text: dict[Any, str] = _StoredTexts()
        self.attributes = AttributeReader().read
        self._resources: dict[tuple[bytes, bytes], tuple[Content, str]] = {}
        self._scopes: dict[tuple[bytes, bytes], Content] = {}

    def resource(self, envelope: Any) -> tuple[Content, str]:
        """See PartReader."""
        return self.read_resource(b"".join(envelope.resource), envelope.schema_url)

    def scope(self, envelope: Any) -> Content:
        """See PartReader."""
        return self.read_scope(b"".join(envelope.scope), envelope.schema_url)

    def read_resource(self, body: bytes, schema_url: bytes) -> tuple[Content, str]:
        """What `resource` gives, of the message's bytes. Raises as they are parsed."""

        def read(body: bytes, schema_url: str) -> tuple[Content, str]:
            return read_resource(Resource.FromString(body), schema_url, self)

        return _remembered(self._resources, read, body, schema_url)

    def read_scope(self, body: bytes, schema_url: bytes) -> Content:
        """What `scope` gives, of the message's bytes. Raises as they are parsed."""

        def read(body: bytes, schema_url: str) -> Content:
            return read_scope(InstrumentationScope.FromString(body), schema_url, self)

        return _remembered(self._scopes, read, body, schema_url)


def _remembered(
    known: dict[tuple[bytes, bytes], T],
    read: Callable[[bytes, str], T],
    body: bytes,
    schema_url: bytes,
) -> T:
    """What `read` makes of a message and its schema, made once for what comes again."""
    made = known.get((body, schema_url))
    if made is None:
        made = read(body, schema_url.decode())
        if len(body) + len(schema_url) <= MAX_REMEMBERED_CONTENT_BYTES:
            if len(known) >= MAX_REMEMBERED_CONTENTS:
                known.clear()
            known[body, schema_url] = made
    return made


class _StoredTexts(dict[Any, str]):
    """Text as it came → as it is stored."""

    def __missing__(self, raw: bytes) -> str:
        text = escape_text(raw.decode())
        if len(raw) <= MAX_REMEMBERED_TEXT_BYTES:
            if len(self) >= MAX_REMEMBERED_TEXTS:
                self.clear()
            self[raw] = text
        return text


READER = ShallowReader()
"""The one reader: what it remembers serves every request."""
