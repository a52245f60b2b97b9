"""Cut a large export request into small ones, without parsing its spans.

Path: receivers → [otlp.split] → otlp.decode. A parsed message takes up to some 300 times its bytes
on the wire (an empty link has two), so a large body is never parsed as a whole: each piece is a
request of its own with some of the spans, under the same resource and scope.
What cannot be cut, a single span or a resource, is counted instead before anybody parses it.
Source: protobuf.dev "Encoding"; field numbers of opentelemetry-proto trace.proto, common.proto.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgtrace.errors import MalformedRequest, RequestTooLarge

MAX_SPANS = 300_000
"""Spans of one request; each takes time and memory even if it is empty."""

MAX_ELEMENTS = 250_000
"""Attributes, events, links and values in one span or resource that is larger than a piece."""

MAX_JSON_OBJECTS = 500_000
"""JSON objects in one request, which is parsed as a whole; a span has some twenty."""

_RESOURCE_SPANS = 1  # of the request
_SCOPE_SPANS = 2  # of ResourceSpans
_SPANS = 2  # of ScopeSpans

_LENGTH_DELIMITED = 2
_FIXED_BYTES = {1: 8, 5: 4}

# Message and field number → the message that the field holds ("" for text), for all fields that can
# be there many times or lead to such.
_ELEMENTS = {
    ("span", 9): "pair",
    ("span", 11): "event",
    ("span", 13): "link",
    ("event", 3): "pair",
    ("link", 4): "pair",
    ("pair", 2): "value",
    ("value", 5): "array",
    ("array", 1): "value",
    ("value", 6): "map",
    ("map", 1): "pair",
    ("resource_spans", 1): "resource",
    ("resource", 1): "pair",
    ("resource", 3): "entity",
    ("entity", 3): "",
    ("entity", 4): "",
    ("scope_spans", 1): "scope",
    ("scope", 3): "pair",
}

_Field = tuple[int, int, int, int]
"""(number, start of the field, start of its content, end)."""


def split_request(body: bytes, piece_bytes: int) -> Iterator[bytes]:
    """The request as requests of about `piece_bytes`, in order; one that is no larger as it is.

    Raises MalformedRequest if the bytes are no protobuf, RequestTooLarge for too many elements;
    pieces that were given out before that are good.
    """
    if len(body) <= piece_bytes:
        yield body
        return
    span_count = 0
    for number, _, start, end in _fields(body, 0, len(body)):
        if number != _RESOURCE_SPANS:
            continue
        head, scopes = _parts(body, start, end, _SCOPE_SPANS, "resource_spans", piece_bytes)
        for scope_start, scope_end in scopes:
            scope_head, spans = _parts(
                body, scope_start, scope_end, _SPANS, "scope_spans", piece_bytes
            )
            span_count += len(spans)
            if span_count > MAX_SPANS:
                raise RequestTooLarge(f"the request has more than {MAX_SPANS} spans")
            for group in _groups(body, spans, max(piece_bytes, len(head) + len(scope_head))):
                scope_spans = scope_head + group
                yield _wrap(_RESOURCE_SPANS, head + _wrap(_SCOPE_SPANS, scope_spans))


def check_json(body: bytes, _piece_bytes: int) -> Iterator[bytes]:
    """An OTLP/JSON request as it is. Raises RequestTooLarge if it has too many objects."""
    if body.count(b"{") > MAX_JSON_OBJECTS:
        raise RequestTooLarge(f"the request has more than {MAX_JSON_OBJECTS} JSON objects")
    yield body


def _parts(
    body: bytes, start: int, end: int, wanted: int, message: str, piece_bytes: int
) -> tuple[bytes, list[tuple[int, int]]]:
    """A message without its fields of number `wanted`, and where the contents of those lie."""
    rest: list[bytes] = []
    found: list[tuple[int, int]] = []
    for number, field_start, content_start, content_end in _fields(body, start, end):
        if number == wanted:
            found.append((content_start, content_end))
            if len(found) > MAX_SPANS:
                raise RequestTooLarge(f"the request has more than {MAX_SPANS} spans")
        else:
            rest.append(body[field_start:content_end])
    head = b"".join(rest)
    if len(head) > piece_bytes:
        _require_few_elements(head, message)
    return head, found


def _groups(body: bytes, spans: list[tuple[int, int]], piece_bytes: int) -> Iterator[bytes]:
    """The fields of the spans, joined up to about `piece_bytes`."""
    group: list[bytes] = []
    size = 0
    for start, end in spans:
        if end - start > piece_bytes:
            _require_few_elements(body[start:end], "span")
        group.append(_wrap(_SPANS, body[start:end]))
        size += end - start + 2
        if size >= piece_bytes:
            yield b"".join(group)
            group, size = [], 0
    if group:
        yield b"".join(group)


def _require_few_elements(content: bytes, message: str) -> None:
    """Count what is in a message too large to be cut, as deep as it goes."""
    count = 0
    to_do = [(message, 0, len(content))]
    while to_do:
        kind, start, end = to_do.pop()
        for number, _, content_start, content_end in _fields(content, start, end):
            child = _ELEMENTS.get((kind, number))
            if child is None:
                continue
            count += 1
            if count > MAX_ELEMENTS:
                raise RequestTooLarge(f"one {message} has more than {MAX_ELEMENTS} elements")
            if child:
                to_do.append((child, content_start, content_end))


def _fields(body: bytes, position: int, end: int) -> Iterator[_Field]:
    """The fields of one message."""
    while position < end:
        start = position
        tag, position = _varint(body, position, end)
        wire_type = tag & 7
        content_start = position
        if wire_type == _LENGTH_DELIMITED:
            length, content_start = _varint(body, position, end)
            position = content_start + length
        elif wire_type == 0:
            _, position = _varint(body, position, end)
        elif wire_type in _FIXED_BYTES:
            position += _FIXED_BYTES[wire_type]
        else:
            raise MalformedRequest("the body is not an ExportTraceServiceRequest")
        if position > end:
            raise MalformedRequest("the body is not an ExportTraceServiceRequest")
        yield tag >> 3, start, content_start, position


def _varint(body: bytes, position: int, end: int) -> tuple[int, int]:
    """The integer at `position`, and the position behind it."""
    value = 0
    for shift in range(0, 70, 7):
        if position >= end:
            break
        byte = body[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise MalformedRequest("the body is not an ExportTraceServiceRequest")


def _wrap(number: int, content: bytes) -> bytes:
    """A length-delimited field."""
    length = len(content)
    header = bytearray([number << 3 | _LENGTH_DELIMITED])
    while length > 0x7F:
        header.append(length & 0x7F | 0x80)
        length >>= 7
    header.append(length)
    return bytes(header) + content
