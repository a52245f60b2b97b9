from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msgtrace.otlp.values import to_json
from msgtrace.storage.attribute_filters import (
    LETS_ALL_IN,
    lets_in,
    make_filter,
    pairs_of,
    probes_of,
)


def made_of(*attributes: dict[str, Any]) -> bytes:
    return make_filter(pairs_of(to_json(each) for each in attributes))


def may_hold(made: bytes | None, key: str, value: str) -> bool:
    return any(lets_in(made, *probe) for probe in probes_of(key, value))


SAID = {
    "a": "a",
    "7": "7",
    "true": True,
    "false": False,
    "zero": 0,
    "one": 1,
    "double": 2.5,
    "list": [1],
    "map": {"x": 1},
    "none": None,
    "big": {"$int": "9223372036854775807"},
    "nan": {"$double": "NaN"},
}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("a", "a"),
        ("7", "7"),
        ("true", "true"),
        ("false", "false"),
        ("zero", "0"),
        ("zero", "-0"),
        ("zero", "0.0"),
        ("one", "1"),
        ("one", "1e0"),
        ("double", "2.50"),
        ("big", "9223372036854775807"),
        ("nan", "NaN"),
    ],
)
def test_a_filter_lets_in_what_a_search_would_find(key: str, value: str) -> None:
    assert may_hold(made_of(SAID), key, value)


def test_truths_and_numbers_do_not_hide_each_other() -> None:
    for attributes in (({"k": 1}, {"k": True}), ({"k": True}, {"k": 1}), ({"k": 0}, {"k": False})):
        made = made_of(*attributes)
        number, truth = ("1", "true") if attributes[0]["k"] else ("0", "false")
        assert may_hold(made, "k", number)
        assert may_hold(made, "k", truth)


texts = st.text(max_size=8)
values = texts | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)


@given(st.lists(st.dictionaries(texts, values, max_size=5), max_size=20))
def test_no_pair_is_kept_out(attributes: list[dict[str, Any]]) -> None:
    made = made_of(*attributes)
    for each in attributes:
        for key, value in each.items():
            assert may_hold(made, key, value if isinstance(value, str) else repr(value))


def test_one_in_two_hundred_is_let_in_by_mistake() -> None:
    made = made_of(*({"id": f"{n:016x}", "customer": f"c-{n % 700}"} for n in range(1_500)))

    mistakes = sum(may_hold(made, "id", f"{n:016x}") for n in range(100_000, 120_000))

    assert mistakes / 20_000 < 0.01
    assert len(made) < 1_500 * 4


def test_without_a_filter_everything_is_let_in() -> None:
    for made in (None, LETS_ALL_IN):
        assert may_hold(made, "a", "b")
    assert not may_hold(made_of(), "a", "b")
