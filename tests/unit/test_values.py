"""Attribute values survive the way through JSON."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList

from msgtrace.model.text import unescape_json
from msgtrace.otlp.values import attributes_from_json, attributes_to_json
from tests.batches import any_value, key_values

TAGS = ["$bytes", "$int", "$double", "$strindex", "$map"]

texts = st.one_of(st.text(max_size=8), st.text(alphabet='\0␀\\u0"a$', max_size=6))
keys = st.one_of(texts, st.sampled_from(["", "$", *TAGS]))

scalars = st.one_of(
    st.builds(AnyValue),
    st.builds(AnyValue, string_value=texts),
    st.builds(AnyValue, bool_value=st.booleans()),
    st.builds(AnyValue, int_value=st.integers(-(2**63), 2**63 - 1)),
    st.builds(AnyValue, int_value=st.sampled_from([2**53 - 1, 2**53, -(2**53) + 1, -(2**53)])),
    st.builds(AnyValue, double_value=st.floats()),
    st.builds(AnyValue, double_value=st.sampled_from([-0.0, 1e300, 5e-324, 1e22, 2.0**53, 1e16])),
    st.builds(AnyValue, bytes_value=st.binary(max_size=8)),
    st.builds(AnyValue, string_value_strindex=st.integers(-(2**31), 2**31 - 1)),
)


def pairs_of(values: st.SearchStrategy[AnyValue]) -> st.SearchStrategy[list[KeyValue]]:
    """Attributes with repeated keys and keys by index among them."""
    pair = st.one_of(
        st.builds(KeyValue, key=keys, value=values),
        st.builds(KeyValue, key_strindex=st.integers(1, 2**31 - 1), value=values),
    )
    repeated = st.builds(
        lambda key, each: [KeyValue(key=key, value=value) for value in each],
        keys,
        st.lists(values, max_size=3),
    )
    return st.one_of(st.lists(pair, max_size=4), repeated)


def nested(values: st.SearchStrategy[AnyValue]) -> st.SearchStrategy[AnyValue]:
    return st.one_of(
        st.builds(
            lambda each: AnyValue(array_value=ArrayValue(values=each)), st.lists(values, max_size=4)
        ),
        st.builds(
            lambda pairs: AnyValue(kvlist_value=KeyValueList(values=pairs)), pairs_of(values)
        ),
    )


any_values = st.recursive(scalars, nested, max_leaves=12)


def as_bytes(pairs: list[KeyValue]) -> list[bytes]:
    """What tells values apart that `==` does not: -0.0 from 0.0, one NaN from none."""
    return [pair.SerializeToString(deterministic=True) for pair in pairs]


def without_nan_bits(value: AnyValue) -> None:
    """JSON has one NaN; its sign and payload are not kept."""
    match value.WhichOneof("value"):
        case "double_value" if math.isnan(value.double_value):
            value.double_value = math.nan
        case "array_value":
            for each in value.array_value.values:
                without_nan_bits(each)
        case "kvlist_value":
            for pair in value.kvlist_value.values:
                without_nan_bits(pair.value)


@given(pairs_of(any_values))
@example(key_values({"$map": {"$map": {"$bytes": b"\0"}}}))
@example(key_values({"\0": "␀0", "␀": "\0", "␀0": "\\u0000"}))
@example([KeyValue(key="a", value=AnyValue()), KeyValue(key="a", value=any_value([]))])
def test_every_value_comes_back_as_it_was(pairs: list[KeyValue]) -> None:
    for pair in pairs:
        without_nan_bits(pair.value)

    assert as_bytes(attributes_from_json(attributes_to_json(pairs))) == as_bytes(pairs)


@given(pairs_of(any_values))
def test_stored_attributes_have_no_nul_in_any_form(pairs: list[KeyValue]) -> None:
    stored = attributes_to_json(pairs)

    assert "\0" not in stored
    assert "\\u0000" not in stored.replace("\\\\", "")


def text_of(pairs: list[KeyValue]) -> str:
    """The JSON text as readers get it."""
    return unescape_json(attributes_to_json(pairs))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "null"),
        ("", '""'),
        ("tea", '"tea"'),
        ("é\n\0", r'"é\n\u0000"'),
        (True, "true"),
        (1, "1"),
        (1.0, "1.0"),
        (0, "0"),
        (0.0, "0.0"),
        (-0.0, "-0.0"),
        (2**53 - 1, "9007199254740991"),
        (2**53, '{"$int":"9007199254740992"}'),
        (-(2**53) + 1, "-9007199254740991"),
        (-(2**53), '{"$int":"-9007199254740992"}'),
        (2**63 - 1, '{"$int":"9223372036854775807"}'),
        (math.nan, '{"$double":"NaN"}'),
        (math.inf, '{"$double":"Infinity"}'),
        (-math.inf, '{"$double":"-Infinity"}'),
        (b"", '{"$bytes":""}'),
        (b"\x00\xff", '{"$bytes":"AP8="}'),
        ([], "[]"),
        (["a", 1, None], '["a",1,null]'),
        ({}, "{}"),
        ({"a": {"b": 1}}, '{"a":{"b":1}}'),
        ({"$bytes": "no"}, '{"$map":[["$bytes","no"]]}'),
        ({"$bytes": "no", "b": 1}, '{"$bytes":"no","b":1}'),
    ],
)
def test_a_value_is_written_as_documented(value: object, expected: str) -> None:
    assert text_of(key_values({"k": value})) == f'{{"k":{expected}}}'


def test_repeated_keys_are_written_as_a_list_of_pairs() -> None:
    pairs = [KeyValue(key="k", value=any_value(n)) for n in (1, 2)]

    assert text_of(pairs) == '{"$map":[["k",1],["k",2]]}'


def test_string_indexes_are_written_as_tagged_numbers() -> None:
    pair = KeyValue(key_strindex=3, value=AnyValue(string_value_strindex=7))

    assert text_of([pair]) == '{"$map":[[{"$strindex":3},{"$strindex":7}]]}'


def test_no_attributes_are_an_empty_object() -> None:
    assert text_of([]) == "{}"


@pytest.mark.parametrize("number", [1e300, 1e22, 2.0**53, 1e16, -3.0])
def test_a_whole_double_stays_a_double(number: float) -> None:
    [pair] = attributes_from_json(attributes_to_json(key_values({"k": number})))

    assert pair.value.WhichOneof("value") == "double_value"
    assert pair.value.double_value == number
