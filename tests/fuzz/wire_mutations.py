"""Damage protobuf where it has meaning: its fields, wire types, lengths, numbers and texts.

Only the messages on the way to one change are taken apart, so that it costs little. What cannot be
taken apart, because it was damaged before, is damaged as bytes.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValueList

from tests.fuzz.mutations import MAX_BYTES, damage
from tests.fuzz.odd_values import (
    DEPTHS,
    DOUBLES,
    IDS,
    INTEGERS,
    KEYS,
    LONG_TEXT,
    LONG_TEXTS,
    TEXTS,
)

VARINT, FIXED64, SIZED, GROUP_START, GROUP_END, FIXED32 = range(6)

DESCENTS = 0.75
"""How often the change is made in a message of this message."""

ODD_NUMBERS = [0, 17, 1000, 18_999, 19_001, 2**29 - 1, 2**29]
"""Fields that no message has, and one that none can have."""

MAX_MADE_DEPTH = 3


@dataclass(slots=True)
class Field:
    """One field: what it says, and how many bytes its tag and its length take at least."""

    number: int
    wire_type: int
    content: bytes
    tag_bytes: int = 0
    length_bytes: int = 0
    lie: int = 0
    """What is added to the length that is told."""

    def encoded(self) -> bytes:
        tag = varint(self.number << 3 | self.wire_type, self.tag_bytes)
        if self.wire_type != SIZED:
            return tag + self.content
        length = max(0, len(self.content) + self.lie)
        return tag + varint(length, self.length_bytes) + self.content


def mutate_request(chance: random.Random, body: bytes, corpus: Sequence[bytes]) -> bytes:
    """An ExportTraceServiceRequest after a change or a few."""
    return _mutate_some(chance, body, corpus, ExportTraceServiceRequest.DESCRIPTOR)


def mutate_attributes(chance: random.Random, body: bytes, corpus: Sequence[bytes]) -> bytes:
    """A KeyValueList after a change or a few."""
    return _mutate_some(chance, body, corpus, KeyValueList.DESCRIPTOR)


def _mutate_some(
    chance: random.Random, body: bytes, corpus: Sequence[bytes], kind: Descriptor
) -> bytes:
    for _ in range(chance.choice([1, 1, 1, 2, 4])):
        if chance.random() < 0.1:
            body = damage(chance, body, corpus)
        else:
            body = _mutated(chance, body, kind)
    return body[:MAX_BYTES]


def _mutated(chance: random.Random, body: bytes, kind: Descriptor) -> bytes:
    fields = split(body)
    if fields is None:
        return damage(chance, body, [body])
    inner = [field for field in fields if _message_in(field, kind)]
    if inner and chance.random() < DESCENTS:
        field = chance.choice(inner)
        inner_kind = _message_in(field, kind)
        assert inner_kind is not None
        field.content = _mutated(chance, field.content, inner_kind)
    else:
        chance.choice(_CHANGES)(chance, fields, kind)
    return b"".join(field.encoded() for field in fields)


def _message_in(field: Field, kind: Descriptor) -> Descriptor | None:
    known = kind.fields_by_number.get(field.number)
    return None if known is None or field.wire_type != SIZED else known.message_type


def split(body: bytes) -> list[Field] | None:
    """The fields of a message; None if it is none. Ends of groups are fields without content."""
    fields, place = [], 0
    while place < len(body):
        tag, place = _read_varint(body, place)
        start = place
        match tag & 7:
            case 0:
                _, place = _read_varint(body, place)
            case 1:
                place += 8
            case 2:
                length, start = _read_varint(body, place)
                place = start + length
            case 5:
                place += 4
            case 6 | 7:
                return None
        if place > len(body):
            return None
        fields.append(Field(tag >> 3, tag & 7, body[start:place]))
    return fields


def _read_varint(body: bytes, place: int) -> tuple[int, int]:
    """The number and the place behind it, which is behind the body if it does not end."""
    number = shift = 0
    while place < len(body):
        number |= (body[place] & 0x7F) << shift
        shift, place = shift + 7, place + 1
        if body[place - 1] < 0x80:
            return number, place
    return number, len(body) + 1


def varint(number: int, least_bytes: int = 0) -> bytes:
    """The number as a varint, with bytes that say nothing if it would be shorter."""
    made = bytearray()
    while number >= 0x80 or len(made) < least_bytes - 1:
        made.append(number & 0x7F | 0x80)
        number >>= 7
    made.append(number)
    return bytes(made)


# Changes of one message's fields


def _duplicate(chance: random.Random, fields: list[Field], _: Descriptor) -> None:
    if fields:
        fields.insert(chance.randint(0, len(fields)), replace(chance.choice(fields)))


def _reorder(chance: random.Random, fields: list[Field], _: Descriptor) -> None:
    chance.shuffle(fields)


def _remove(chance: random.Random, fields: list[Field], _: Descriptor) -> None:
    if fields:
        del fields[chance.randrange(len(fields))]


def _split_in_two(chance: random.Random, fields: list[Field], _: Descriptor) -> None:
    """One message in two pieces, which readers must merge."""
    place = _place_of(chance, fields, SIZED)
    if place is not None and (inner := split(fields[place].content)):
        cut = chance.randint(0, len(inner))
        pieces = [b"".join(each.encoded() for each in part) for part in (inner[:cut], inner[cut:])]
        fields[place : place + 1] = [replace(fields[place], content=piece) for piece in pieces]


def _change_wire_type(chance: random.Random, fields: list[Field], _: Descriptor) -> None:
    if fields:
        field = chance.choice(fields)
        field.wire_type = chance.randrange(8)
        field.content = _content_for(chance, field.wire_type)


def _change_number(chance: random.Random, fields: list[Field], kind: Descriptor) -> None:
    if fields:
        chance.choice(fields).number = chance.choice([*kind.fields_by_number, *ODD_NUMBERS])


def _pad_tag(chance: random.Random, fields: list[Field], _: Descriptor) -> None:
    if fields:
        chance.choice(fields).tag_bytes = chance.randint(2, 11)


def _pad_length(chance: random.Random, fields: list[Field], _: Descriptor) -> None:
    place = _place_of(chance, fields, SIZED)
    if place is not None:
        fields[place].length_bytes = chance.randint(2, 11)


def _pad_value(chance: random.Random, fields: list[Field], _: Descriptor) -> None:
    place = _place_of(chance, fields, VARINT)
    if place is not None:
        number, _end = _read_varint(fields[place].content, 0)
        fields[place].content = varint(number, chance.randint(2, 11))


def _lie_about_length(chance: random.Random, fields: list[Field], _: Descriptor) -> None:
    place = _place_of(chance, fields, SIZED)
    if place is not None:
        fields[place].lie = chance.choice([-1, 1, 100, 2**31, 2**32, 2**63])


def _add_group(chance: random.Random, fields: list[Field], kind: Descriptor) -> None:
    """A group around some fields, most often closed as it must be."""
    number = chance.choice([*kind.fields_by_number, *ODD_NUMBERS])
    start = chance.randint(0, len(fields))
    end = chance.randint(start, len(fields))
    for _ in range(chance.choice([1, 1, *DEPTHS])):
        fields.insert(start, Field(number, GROUP_START, b""))
        end += 1
        if chance.random() < 0.95:
            fields.insert(end, Field(number, GROUP_END, b""))


def _pack(chance: random.Random, fields: list[Field], _: Descriptor) -> None:
    place = _place_of(chance, fields, VARINT)
    if place is not None:
        packed = fields[place].content * chance.randint(0, 3)
        fields[place] = replace(fields[place], wire_type=SIZED, content=packed)


def _add_unknown(chance: random.Random, fields: list[Field], _: Descriptor) -> None:
    wire_type = chance.choice([VARINT, FIXED64, SIZED, FIXED32])
    field = Field(chance.choice(ODD_NUMBERS), wire_type, _content_for(chance, wire_type))
    fields.insert(chance.randint(0, len(fields)), field)


def _add_known(chance: random.Random, fields: list[Field], kind: Descriptor) -> None:
    made = _make_field(chance, chance.choice(kind.fields))
    fields.insert(chance.randint(0, len(fields)), made)


def _replace_by_known(chance: random.Random, fields: list[Field], kind: Descriptor) -> None:
    """Another value for a field that is there."""
    if fields:
        place = chance.randrange(len(fields))
        known = kind.fields_by_number.get(fields[place].number)
        if known is not None:
            fields[place] = _make_field(chance, known)


def _cut_off(chance: random.Random, fields: list[Field], _: Descriptor) -> None:
    if fields:
        content = fields[-1].content
        fields[-1].content = content[: chance.randint(0, len(content))]
        fields[-1].lie = len(content) - len(fields[-1].content)


_CHANGES: list[Callable[[random.Random, list[Field], Descriptor], None]] = [
    _duplicate,
    _reorder,
    _remove,
    _split_in_two,
    _change_wire_type,
    _change_number,
    _pad_tag,
    _pad_length,
    _pad_value,
    _lie_about_length,
    _add_group,
    _pack,
    _add_unknown,
    *[_add_known] * 6,
    *[_replace_by_known] * 10,
    _cut_off,
]


def _place_of(chance: random.Random, fields: Sequence[Field], wire_type: int) -> int | None:
    places = [place for place, field in enumerate(fields) if field.wire_type == wire_type]
    return chance.choice(places) if places else None


# Content


def _content_for(chance: random.Random, wire_type: int) -> bytes:
    match wire_type:
        case 0:
            return varint(chance.choice(INTEGERS) % 2**64)
        case 1:
            return _fixed64(chance)
        case 2:
            return LONG_TEXT if chance.random() < LONG_TEXTS else chance.choice([*TEXTS, *IDS])
        case 5:
            return struct.pack("<I", chance.choice(INTEGERS) % 2**32)
    return b""


def _fixed64(chance: random.Random) -> bytes:
    if chance.random() < 0.5:
        return struct.pack("<Q", chance.choice(INTEGERS) % 2**64)
    return struct.pack("<d", chance.choice(DOUBLES))


_WIRE_TYPES = {
    FieldDescriptor.TYPE_FIXED64: FIXED64,
    FieldDescriptor.TYPE_DOUBLE: FIXED64,
    FieldDescriptor.TYPE_FIXED32: FIXED32,
    FieldDescriptor.TYPE_STRING: SIZED,
    FieldDescriptor.TYPE_BYTES: SIZED,
    FieldDescriptor.TYPE_MESSAGE: SIZED,
}


def _make_field(chance: random.Random, known: FieldDescriptor, depth: int = 0) -> Field:
    """A field as its type wants it, with a value at the edges of that."""
    wire_type = _WIRE_TYPES.get(known.type, VARINT)
    if known.message_type is not None:
        content = _make_message(chance, known.message_type, depth)
    elif known.name == "key":
        content = chance.choice(KEYS)
    elif known.name.endswith("_id"):
        content = chance.choice(IDS)
    else:
        content = _content_for(chance, wire_type)
    return Field(known.number, wire_type, content)


def _make_message(chance: random.Random, kind: Descriptor, depth: int) -> bytes:
    if depth > MAX_MADE_DEPTH:
        return b""
    if kind is AnyValue.DESCRIPTOR:
        if chance.random() < 0.1:
            return nested_value(chance.choice(DEPTHS), chance.choice(["array", "map"]))
        chosen = [chance.choice(kind.fields)]
    else:
        chosen = [field for field in kind.fields if chance.random() < 0.7]
    return b"".join(_make_field(chance, field, depth + 1).encoded() for field in chosen)


def nested_value(depth: int, shape: str) -> bytes:
    """An AnyValue of arrays or maps in one another."""
    value = Field(3, VARINT, b"\x07").encoded()
    for _ in range(depth):
        if shape == "array":
            value = Field(5, SIZED, Field(1, SIZED, value).encoded()).encoded()
        else:
            pair = Field(1, SIZED, b"k").encoded() + Field(2, SIZED, value).encoded()
            value = Field(6, SIZED, Field(1, SIZED, pair).encoded()).encoded()
    return value
