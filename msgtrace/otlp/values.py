"""OTLP attribute values as JSON text and back, without loss.

Strings, booleans, arrays and maps are JSON's own. An integer has neither fraction nor exponent, a
double has one of them. What JSON cannot say is a map with one key that begins with "$":
{"$bytes": base64}, {"$int": decimal text} beyond ±(2**53 - 1), {"$double": "NaN" | "Infinity" |
"-Infinity"}, {"$strindex": n}, {"$map": [[key, value], ...]} for a map with repeated keys, a key by
string index, or a single key that begins with "$".
An unset value is null. Source: opentelemetry-proto common.proto, AnyValue and KeyValue.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList

from msgtrace.model.span import JsonText
from msgtrace.model.text import escape_json, unescape_json
from msgtrace.otlp.long_text import LONG_BYTES, long_json

if TYPE_CHECKING:  # protobuf names it in its annotations only
    from google.protobuf.internal.containers import RepeatedCompositeFieldContainer

EMPTY_MAP = JsonText("{}")
EMPTY_LIST = JsonText("[]")

# JavaScript's largest exact integer: readers there would silently round anything beyond.
MAX_PLAIN_INT = 2**53 - 1

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


def plain_map(pairs: Sequence[KeyValue]) -> dict[str, Any]:
    """Attributes as values that `to_json` takes: plain Python ones, tagged maps where needed."""
    # The string case first and without WhichOneof: it is most of all traffic.
    plain = {pair.key: (value := pair.value).string_value or plain_value(value) for pair in pairs}
    return plain if _says_all(plain, len(pairs)) else _nested_map(pairs)


def _nested_map(pairs: Sequence[KeyValue]) -> dict[str, Any]:
    """A map within a value; never makes a value twice, which over many levels would explode."""
    items = [(pair.key, (value := pair.value).string_value or plain_value(value)) for pair in pairs]
    return as_map(items, pairs)


def _says_all(plain: dict[str, Any], count: int) -> bool:
    """Whether a map of `count` pairs surely loses nothing as a plain one.

    An empty key may stand for a key by string index.
    """
    return len(plain) == count and "" not in plain and not _looks_tagged(plain)


def _looks_tagged(plain: dict[str, Any]) -> bool:
    return len(plain) == 1 and next(iter(plain)).startswith("$")


def plain_value(value: AnyValue) -> Any:
    """One value as `to_json` takes it."""
    # Cheaper than WhichOneof, and true for nearly all that is not text.
    if number := value.int_value:
        return plain_int(number)
    if value.bool_value:
        return True
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    content = getattr(value, kind)
    tag = _TAGGED.get(kind)
    return content if tag is None else tag(content)


def to_json(plain: Any) -> JsonText:
    """The JSON text of a plain value, escaped for storage (`model.text`)."""
    encoded = _encode(plain)
    del plain  # a long text that nobody else holds is gone before it is made anew
    if len(encoded) > LONG_BYTES and not encoded.isascii():
        return long_json(encoded)
    return JsonText(escape_json(encoded.decode()))


def attributes_to_json(pairs: Sequence[KeyValue]) -> JsonText:
    """Attributes as the text that is stored."""
    return to_json(plain_map(pairs)) if pairs else EMPTY_MAP


def attributes_from_json(stored: str) -> list[KeyValue]:
    """The attributes whose `attributes_to_json` is `stored`."""
    pairs = KeyValueList()
    add_pairs(pairs.values, _decode(unescape_json(stored)))
    return list(pairs.values)


def value_from_plain(plain: Any) -> AnyValue:
    """The inverse of `plain_value`."""
    match plain:
        case None:
            return AnyValue()
        case str():
            return AnyValue(string_value=plain)
        case bool():
            return AnyValue(bool_value=plain)
        case int():
            return AnyValue(int_value=plain)
        case float():
            return AnyValue(double_value=plain)
        case list():
            return AnyValue(
                array_value=ArrayValue(values=[value_from_plain(each) for each in plain])
            )
        case dict():
            return _value_from_map(plain)
    raise TypeError(f"not a JSON value: {type(plain).__name__}")


def as_map(items: list[tuple[str, Any]], pairs: Sequence[Any]) -> dict[str, Any]:
    """(key, plain value) items as a map: a plain one if nothing gets lost, else a tagged one.

    pairs: where the items come from, for keys by string index.
    Takes finished values, because making those of nested maps twice would take exponential time.
    """
    plain = dict(items)
    if _says_all(plain, len(items)):
        return plain
    # A text wins over an index beside it, which OTLP does not allow.
    indexes = [0 if pair.key else int(pair.key_strindex or 0) for pair in pairs]
    if len(plain) == len(items) and not any(indexes) and not _looks_tagged(plain):
        return plain
    return {
        "$map": [
            [{"$strindex": index} if index else key, value]
            for (key, value), index in zip(items, indexes, strict=True)
        ]
    }


def plain_int(number: int) -> Any:
    """An integer; tagged where JavaScript would round it."""
    return number if -MAX_PLAIN_INT <= number <= MAX_PLAIN_INT else {"$int": str(number)}


def plain_double(number: float) -> Any:
    """A double; tagged where JSON has no word for it."""
    if number - number == 0.0:
        return number
    word = "NaN" if number != number else "Infinity" if number > 0 else "-Infinity"
    return {"$double": word}


def plain_bytes(content: bytes) -> dict[str, str]:
    """Bytes, tagged."""
    return {"$bytes": base64.b64encode(content).decode()}


_TAGGED: dict[str, Any] = {
    "double_value": plain_double,
    "bytes_value": plain_bytes,
    "array_value": lambda array: [each.string_value or plain_value(each) for each in array.values],
    "kvlist_value": lambda kvlist: _nested_map(kvlist.values),
    "string_value_strindex": lambda index: {"$strindex": index},
}


def _value_from_map(plain: dict[str, Any]) -> AnyValue:
    if len(plain) == 1:
        match plain:
            case {"$bytes": text}:
                return AnyValue(bytes_value=base64.b64decode(text))
            case {"$int": text}:
                return AnyValue(int_value=int(text))
            case {"$double": word}:
                return AnyValue(double_value=float(word))
            case {"$strindex": index}:
                return AnyValue(string_value_strindex=index)
    value = AnyValue(kvlist_value=KeyValueList())
    add_pairs(value.kvlist_value.values, plain)
    return value


def add_pairs(attributes: RepeatedCompositeFieldContainer[KeyValue], plain: dict[str, Any]) -> None:
    """Add what `plain_map` made `plain` of to a message's attributes."""
    # Filled in place, text first: three times as fast as making messages and passing them on.
    items = plain["$map"] if plain.keys() == {"$map"} else plain.items()
    for key, value in items:
        pair = attributes.add()
        if isinstance(key, dict):
            pair.key_strindex = key["$strindex"]
        else:
            pair.key = key
        if type(value) is str:
            pair.value.string_value = value
        elif type(value) is int:
            pair.value.int_value = value
        else:
            pair.value.CopyFrom(value_from_plain(value))
