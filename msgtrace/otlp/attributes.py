"""The attributes of protobuf spans as JSON text; what repeats is made once.

Path: otlp.decode → [otlp.attributes] → otlp.rows. An attribute on the wire, a KeyValue, is looked
up by its bytes; of a span's attributes mostly one or two are new. Their texts are joined.
Bounded: by the number and the size of what is remembered, and by key, so that a key whose values
never repeat does not push out those of others. Several threads may read at once: what one forgets
another makes anew.
What is made is what `otlp.values` makes, which stays the rule for all that is rare here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from json.encoder import encode_basestring
from typing import Any

from opentelemetry.proto.common.v1.common_pb2 import KeyValue

from msgtrace.model.genai import STATING_KEYS, GenAiFacts, read_facts
from msgtrace.model.span import JsonText
from msgtrace.otlp.long_text import LONG_BYTES, long_text_to_json
from msgtrace.otlp.values import plain_map, plain_value, to_json

MAX_REMEMBERED = 10_000
"""Attributes; with their keys some 5 MB if all are of the greatest size."""

MAX_REMEMBERED_BYTES = 256
"""Longer attributes, prompts for example, hardly repeat."""

MAX_OF_ONE_KEY = 1_000
"""A key with more values than this is thought to have a new one for each span."""

MAX_KEYS = 1_000
MAX_SHAPES = 1_000

_ORDINARY = 1
_STATES_FACTS = 2
_SPECIAL = 3
"""What a sequence of keys means: nothing, GenAI facts, or a map that JSON cannot say plainly."""

# The wire format of KeyValue and AnyValue: tags, each with the number of its field and wire type.
_KEY, _VALUE = 0x0A, 0x12
_STRING_VALUE, _INT_VALUE = 0x0A, 0x18
_ONE_BYTE_LENGTHS = 0x80
"""Lengths below this take one byte."""

# A text as the value of an attribute: the lengths of AnyValue and of the text.
_TEXT_VALUE = re.compile(rb"\x12([\x80-\xff]*[\x00-\x7f])\x0a([\x80-\xff]*[\x00-\x7f])")
_MAX_HEAD_BYTES = 2 + _ONE_BYTE_LENGTHS + 12
"""What may stand before the text, if its key is no longer than a length of one byte says."""


Part = bytes | memoryview
"""An attribute on the wire; a long one may be a view."""


class _Key:
    """A key, as it begins a member of a JSON object, and how many of its values are remembered."""

    __slots__ = ("member", "name", "remembered")

    def __init__(self, name: str) -> None:
        self.name = name
        self.member = f"{to_json(name)}:"
        self.remembered = 0


class AttributeReader:
    """Reads the attributes of spans, each the bytes of a KeyValue.

    Raises DecodeError, or UnicodeDecodeError, for bytes that are none.
    """

    def __init__(self) -> None:
        self._members = _Members()
        self._shapes: dict[tuple[str, ...], int] = {}

    def read(self, pairs: Sequence[Part]) -> tuple[JsonText, GenAiFacts | None]:
        """The text of a span's attributes, at least one, and the facts that they state."""
        names, texts = zip(*map(self._members.__getitem__, pairs), strict=True)
        shape = self._shapes.get(names) or self._add_shape(names)
        if shape == _ORDINARY:
            return JsonText(f"{{{','.join(texts)}}}"), None
        plain = plain_map([KeyValue.FromString(bytes(pair)) for pair in pairs])
        facts = read_facts(plain)
        if shape == _SPECIAL:
            return to_json(plain), facts
        del plain
        return JsonText(f"{{{','.join(texts)}}}"), facts

    def _add_shape(self, names: tuple[str, ...]) -> int:
        distinct = set(names)
        if len(distinct) < len(names) or "" in distinct or _looks_tagged(names):
            shape = _SPECIAL
        else:
            shape = _ORDINARY if STATING_KEYS.isdisjoint(distinct) else _STATES_FACTS
        if len(self._shapes) >= MAX_SHAPES:
            self._shapes.clear()
        self._shapes[names] = shape
        return shape


class _Members(dict[Part, tuple[str, str]]):
    """A KeyValue's bytes → its key, and its text as a member of a JSON object."""

    def __init__(self) -> None:
        super().__init__()
        self._keys: dict[bytes, _Key] = {}

    def __missing__(self, pair: Part) -> tuple[str, str]:
        if isinstance(pair, memoryview):
            return self._read_view(pair)
        key, text = self._read_usual(pair) or self._read_any(pair)
        member = key.name, text
        if key.remembered < MAX_OF_ONE_KEY and len(pair) <= MAX_REMEMBERED_BYTES:
            if len(self) >= MAX_REMEMBERED:
                self._forget()
            key.remembered += 1
            self[pair] = member
        return member

    def _read_usual(self, pair: bytes) -> tuple[_Key, str] | None:
        """The member for a known key with a short text or a small integer; None for any other.

        Takes the fields in the order and with the lengths that every encoder writes.
        """
        size = len(pair)
        if not 2 < size < _ONE_BYTE_LENGTHS:
            return None
        start = pair[1] + 2
        key = self._keys.get(pair[:start])
        if key is None or start + 4 > size:
            return None
        tag, length, kind, content = pair[start : start + 4]
        if tag != _VALUE or start + 2 + length != size:
            return None
        if kind == _STRING_VALUE and start + 4 + content == size:
            text = pair[start + 4 :].decode()
            if text.isascii() and text.isprintable():
                return key, key.member + encode_basestring(text)
        elif kind == _INT_VALUE:
            number = _small_varint(pair[start + 3 :])
            return None if number is None else (key, f"{key.member}{number}")
        return None

    def _read_view(self, pair: memoryview) -> tuple[str, str]:
        """The member for a long attribute, of which no more copies are made than needed."""
        head = bytes(pair[:_MAX_HEAD_BYTES])
        key_end = head[1] + 2
        lengths = _TEXT_VALUE.match(head, key_end)
        is_usual = (
            lengths is not None
            and (head[0], head[1] < _ONE_BYTE_LENGTHS) == (_KEY, True)
            and _small_varint(lengths[1]) == len(pair) - lengths.end(1)
            and _small_varint(lengths[2]) == len(pair) - lengths.end()
        )
        if lengths is None or not is_usual:
            key, text = self._read_any(bytes(pair))
            return key.name, text
        key = self._key_of(head, head[2:key_end].decode())
        content = pair[lengths.end() :]
        if len(content) > LONG_BYTES:
            return key.name, key.member + long_text_to_json(content)
        return key.name, key.member + to_json(str(content, "utf-8"))

    def _read_any(self, pair: bytes) -> tuple[_Key, str]:
        message = KeyValue.FromString(pair)
        value = message.value
        plain: Any = value.string_value or plain_value(value)
        key = self._key_of(pair, message.key)
        del message, value
        return key, key.member + to_json(plain)

    def _key_of(self, pair: bytes, name: str) -> _Key:
        """The key, remembered if it is short and written as every encoder does."""
        encoded = name.encode()
        head = bytes((_KEY, min(len(encoded), 0xFF))) + encoded
        if len(encoded) >= _ONE_BYTE_LENGTHS or not pair.startswith(head):
            return _Key(name)
        key = self._keys.get(head)
        if key is None:
            if len(self._keys) >= MAX_KEYS:
                self._forget()
            key = self._keys[head] = _Key(name)
        return key

    def _forget(self) -> None:
        # Keys as well: their counts speak of what was remembered.
        self.clear()
        self._keys.clear()


def _looks_tagged(names: tuple[str, ...]) -> bool:
    """Whether a reader would take the map for a tagged value."""
    return len(names) == 1 and names[0].startswith("$")


def _small_varint(content: bytes) -> int | None:
    """The integer that `content` is, None if it is longer than four bytes or anything else."""
    last = len(content) - 1
    if not 0 <= last < 4 or content[last] >= 0x80:
        return None
    number = 0
    for place, byte in enumerate(content):
        if place < last and byte < 0x80:
            return None
        number |= (byte & 0x7F) << 7 * place
    return number
