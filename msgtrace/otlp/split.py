"""Cut a large export request into small ones, without parsing its spans.

Path: receivers → [otlp.split] → otlp.decode. A parsed message takes up to some 300 times its bytes
on the wire (an empty link has two), so a large body is never parsed as a whole: each piece is a
request of its own with some of the spans, under the same resource and scope.
What cannot be cut, a single span or a resource, is counted instead before anybody parses it.
Source: protobuf.dev "Encoding"; field numbers of opentelemetry-proto trace.proto, common.proto.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from msgtrace.errors import MalformedRequest, RequestTooLarge

MAX_SPANS = 300_000
"""Spans of one request; each takes time and memory even if it is empty."""

MAX_ELEMENTS = 250_000
"""Attributes, events, links and values in one span or resource that is larger than a piece."""

MAX_FIELDS = 4_000_000
"""Fields that are walked over before anything is parsed; each takes about a microsecond."""

MAX_COUNTED_FIELDS = 500_000
"""The same in a request that is counted and not stored."""

MAX_JSON_OBJECTS = 500_000
"""JSON objects in one request, which is parsed as a whole; a span has some twenty."""

_NEARLY_ALL = 0.9

_RESOURCE_SPANS = 1  # of the request
_SCOPE_SPANS = 2  # of ResourceSpans
_SPANS = 2  # of ScopeSpans

_VARINT = 0
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

_Parts = Sequence[bytes | memoryview]
"""Bytes that are not joined yet: the request is there once already."""

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
    pieces = _Cutter(body, piece_bytes).pieces()
    first, second = next(pieces, []), next(pieces, None)
    if second is None and sum(map(len, first)) > len(body) * _NEARLY_ALL:
        # Handed out and forgotten: a large one would stay in memory while its spans are stored.
        whole = [body]
        del body, pieces, first
        yield whole.pop()
        return
    yield b"".join(first)
    if second is not None:
        yield b"".join(second)
    for piece in pieces:
        yield b"".join(piece)


def check_json(body: bytes, _piece_bytes: int) -> Iterator[bytes]:
    """An OTLP/JSON request as it is. Raises RequestTooLarge if it has too many objects."""
    if body.count(b"{") > MAX_JSON_OBJECTS:
        raise RequestTooLarge(f"the request has more than {MAX_JSON_OBJECTS} JSON objects")
    yield body


def count_fields(body: bytes, path: Sequence[Collection[int]]) -> int:
    """How many fields lie at the end of a path of field numbers, of which each step has several.

    Raises MalformedRequest, RequestTooLarge for too many fields on the way.
    """
    return _count(_Walker(body, MAX_COUNTED_FIELDS), 0, len(body), path)


def _count(walker: _Walker, start: int, end: int, path: Sequence[Collection[int]]) -> int:
    numbers, rest = path[0], path[1:]
    found = (field for field in walker.fields(start, end) if field[0] in numbers)
    if not rest:
        return sum(1 for _ in found)
    return sum(_count(walker, content_start, end, rest) for _, _, content_start, end in found)


class _Walker:
    """Walks over the fields of messages, no further than `max_fields` of them in all."""

    def __init__(self, body: bytes, max_fields: int) -> None:
        self._view = memoryview(body)
        self._max_fields = max_fields
        self._field_count = 0

    def fields(self, position: int, end: int) -> Iterator[_Field]:
        """The fields of one message."""
        while position < end:
            start = position
            tag, position = _varint(self._view, position, end)
            wire_type = tag & 7
            content_start = position
            if wire_type == _LENGTH_DELIMITED:
                length, content_start = _varint(self._view, position, end)
                position = content_start + length
            elif wire_type == _VARINT:
                _, position = _varint(self._view, position, end)
            else:
                position += _FIXED_BYTES.get(wire_type, len(self._view))
            # No message has a field 0; zeros would be millions of them.
            if position > end or tag < 8:
                raise MalformedRequest("the body is no export request")
            self._field_count += 1
            _require_few(self._field_count, self._max_fields, "the request", "fields")
            yield tag >> 3, start, content_start, position


class _Cutter(_Walker):
    """Walks one request as deep as it must be cut."""

    def __init__(self, body: bytes, piece_bytes: int) -> None:
        super().__init__(body, MAX_FIELDS)
        self._piece_bytes = piece_bytes
        self._span_count = 0

    def pieces(self) -> Iterator[_Parts]:
        """Each piece as the parts of a request with one ResourceSpans."""
        for number, _, start, end in self.fields(0, len(self._view)):
            if number != _RESOURCE_SPANS:
                continue
            head, scopes = self._open(start, end, _SCOPE_SPANS, "resource_spans")
            for scope_start, scope_end in scopes:
                scope_head, spans = self._open(scope_start, scope_end, _SPANS, "scope_spans")
                self._span_count += len(spans)
                _require_few(self._span_count, MAX_SPANS, "the request", "spans")
                for group in self._groups(spans, len(head) + len(scope_head)):
                    scope_spans = _field(_SCOPE_SPANS, [scope_head, *group])
                    yield _field(_RESOURCE_SPANS, [head, *scope_spans])

    def _open(
        self, start: int, end: int, wanted: int, message: str
    ) -> tuple[bytes, list[tuple[int, int]]]:
        """A message without its fields of number `wanted`, and where the contents of those lie."""
        rest: list[memoryview] = []
        found: list[tuple[int, int]] = []
        for number, field_start, content_start, content_end in self.fields(start, end):
            if number == wanted:
                found.append((content_start, content_end))
                _require_few(len(found), MAX_SPANS, "the request", "spans")
            else:
                rest.append(self._view[field_start:content_end])
                if content_end - field_start > self._piece_bytes:
                    self._require_few_elements(field_start, content_end, message)
        return b"".join(rest), found

    def _groups(self, spans: list[tuple[int, int]], head_bytes: int) -> Iterator[_Parts]:
        """The fields of the spans, up to about a piece together, and no less than their head."""
        enough_bytes = max(self._piece_bytes, head_bytes)
        group: list[bytes | memoryview] = []
        size = 0
        for start, end in spans:
            if end - start > self._piece_bytes:
                self._require_few_elements(start, end, "span")
            group += _field(_SPANS, [self._view[start:end]])
            size += end - start
            if size >= enough_bytes:
                yield group
                group, size = [], 0
        if group:
            yield group

    def _require_few_elements(self, start: int, end: int, message: str) -> None:
        """Count what is in a message too large to be cut, as deep as it goes."""
        count = 0
        to_do = [(message, start, end)]
        while to_do:
            kind, start, end = to_do.pop()
            for number, _, content_start, content_end in self.fields(start, end):
                child = _ELEMENTS.get((kind, number))
                if child is None:
                    continue
                count += 1
                _require_few(count, MAX_ELEMENTS, f"one {message}", "elements")
                if child:
                    to_do.append((child, content_start, content_end))


def _require_few(count: int, limit: int, what: str, elements: str) -> None:
    if count > limit:
        raise RequestTooLarge(f"{what} has more than {limit} {elements}")


def _varint(body: memoryview, position: int, end: int) -> tuple[int, int]:
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
    raise MalformedRequest("the body is no export request")


def _field(number: int, content: _Parts) -> list[bytes | memoryview]:
    """A length-delimited field, as its parts in order."""
    length = sum(map(len, content))
    header = bytearray([number << 3 | _LENGTH_DELIMITED])
    while length > 0x7F:
        header.append(length & 0x7F | 0x80)
        length >>= 7
    header.append(length)
    return [bytes(header), *content]
