"""Attributes that are read from their bytes are what `otlp.values` makes of the parsed ones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from google.protobuf.message import DecodeError
from hypothesis import HealthCheck, given, settings
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from msgtrace.model.genai import GenAiFacts, read_facts
from msgtrace.model.span import JsonText
from msgtrace.otlp import attributes as module
from msgtrace.otlp.attributes import (
    MAX_OF_ONE_KEY,
    MAX_REMEMBERED,
    MAX_REMEMBERED_BYTES,
    AttributeReader,
)
from msgtrace.otlp.values import plain_map, to_json
from tests.batches import key_values
from tests.fuzz.exports import attributes as any_attributes

SHARED = AttributeReader()
"""Remembers what the examples before have left."""

Read = tuple[JsonText, GenAiFacts | None]


def wire(pairs: Iterable[KeyValue]) -> list[bytes]:
    return [pair.SerializeToString() for pair in pairs]


def expected(pairs: Sequence[KeyValue]) -> Read:
    plain = plain_map(pairs)
    return to_json(plain), read_facts(plain)


def remembered(reader: AttributeReader) -> int:
    return len(reader._members)


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(any_attributes.filter(bool))
def test_attributes_are_read_alike_the_first_time_and_whenever_they_come_again(
    pairs: list[KeyValue],
) -> None:
    fresh = AttributeReader()

    for reader in (fresh, fresh, SHARED):
        assert reader.read(wire(pairs)) == expected(pairs)


@pytest.mark.parametrize(
    "value",
    [
        *("", "plain", 'a "quoted" \\ one', "tab\tand\nline", "\0", "␀0", "é", "\x7f", "x" * 300),
        *(0, 1, 127, 128, 300, 16_384, 2**21, 2**28, 2**31, 2**53, -1, 2**63 - 1, -(2**63)),
        *(True, False, None, 1.5, b"\xff", ["a", 1], {"k": "v"}),
    ],
)
def test_a_value_of_a_known_key_is_read_as_of_an_unknown_one(value: Any) -> None:
    pairs = key_values({"key": value, "other": "text"})
    reader = AttributeReader()
    reader.read(wire(key_values({"key": "makes it known", "other": "text"})))

    assert reader.read(wire(pairs)) == expected(pairs)
    assert reader.read(wire(pairs)) == expected(pairs)


@pytest.mark.parametrize(
    "body",
    [
        b"\x12\x03\x0a\x01v\x0a\x01k",  # the value before the key
        b"\x0a\x01k\x12\x03\x0a\x01v\x12\x03\x0a\x01w",  # two values: the last one counts
        b"\x0a\x01k\x12\x06\x0a\x01v\x0a\x01w",  # two texts in one value
        b"\x0a\x81\x00k\x12\x83\x00\x0a\x01v",  # lengths in more bytes than they need
        b"\x0a\x01k\x12\x03\x18\x80\x00",  # a number in more bytes than it needs
        b"\x0a\x01k\x12\x05\x18\x01\x18\x02\x10",  # fields of another kind behind the number
        b"\x0a\x01k\x12\x02\x18\x85\xba\x3e\x00",
        b"\x0a\x01k\x0a\x01l\x12\x03\x0a\x01v",  # two keys
        b"\x0a\x01k\xba\x3e\x03new\x12\x03\x0a\x01v",  # a field that nobody knows
        b"\x0a\x01k",
        b"\x0a\x00",
        b"",
    ],
)
def test_unusual_bytes_are_read_as_protobuf_reads_them(body: bytes) -> None:
    reader = AttributeReader()
    reader.read(wire(key_values({"k": "known"})))
    try:
        parsed = [KeyValue.FromString(body)]
    except DecodeError:
        with pytest.raises(DecodeError):
            reader.read([body])
        return

    assert reader.read([body]) == expected(parsed)


def test_text_that_is_not_utf8_is_refused_also_in_short_values_of_known_keys() -> None:
    reader = AttributeReader()
    reader.read(wire(key_values({"k": "known"})))

    with pytest.raises((DecodeError, UnicodeDecodeError)):
        reader.read([b"\x0a\x01k\x12\x03\x0a\x01\xff"])


def test_a_key_with_ever_new_values_pushes_out_no_others() -> None:
    reader = AttributeReader()
    reader.read(wire(key_values({"method": "GET"})))
    for number in range(3 * MAX_OF_ONE_KEY):
        reader.read(wire(key_values({"request.id": f"{number}"})))

    assert remembered(reader) == 1 + MAX_OF_ONE_KEY


def test_long_attributes_are_not_remembered() -> None:
    reader = AttributeReader()
    pairs = key_values({"prompt": "x" * MAX_REMEMBERED_BYTES})

    assert reader.read(wire(pairs)) == expected(pairs)
    assert remembered(reader) == 0


def test_what_is_remembered_is_bounded_whatever_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_KEYS", 50)
    monkeypatch.setattr(module, "MAX_SHAPES", 50)
    reader = AttributeReader()
    most = 0
    for number in range(2 * MAX_REMEMBERED):
        name = f"key {number}" if number % 2 else f"ключ {number}"
        reader.read([one_attribute(name)])
        most = max(most, remembered(reader))
        assert len(reader._shapes) <= 50
        assert len(reader._members._keys) <= 50

    assert most <= MAX_REMEMBERED


def one_attribute(name: str) -> bytes:
    return KeyValue(key=name, value=AnyValue(bool_value=True)).SerializeToString()
