"""Text with U+0000 is stored without it, and comes back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from msgtrace.model.text import (
    MARK,
    MAX_LABEL_CHARS,
    escape_json,
    escape_text,
    stored_label,
    unescape_json,
    unescape_text,
)

# Dense in what matters, so that every neighbourhood of it occurs.
awkward = st.text(alphabet='\0␀0\\u"\n/a')
texts = st.one_of(awkward, st.text())
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda values: st.lists(values) | st.dictionaries(texts, values),
    max_leaves=8,
)


def escaped_strings(value: Any) -> Any:
    """The document with every string of it escaped, keys included."""
    if isinstance(value, str):
        return escape_text(value)
    if isinstance(value, list):
        return [escaped_strings(each) for each in value]
    if isinstance(value, dict):
        return {escape_text(key): escaped_strings(each) for key, each in value.items()}
    return value


@given(texts)
@example("\0")
@example("␀")
@example("␀0")
@example("\0␀\0␀␀0")
def test_text_comes_back(text: str) -> None:
    assert unescape_text(escape_text(text)) == text


@given(texts)
def test_escaped_text_has_no_nul(text: str) -> None:
    assert "\0" not in escape_text(text)


@given(texts, texts)
def test_different_texts_are_stored_differently(one: str, other: str) -> None:
    assert (escape_text(one) == escape_text(other)) == (one == other)


@given(st.text().filter(lambda text: "\0" not in text and MARK not in text))
def test_ordinary_text_is_stored_as_it_is(text: str) -> None:
    assert escape_text(text) == text


@given(json_values, st.booleans())
@example("\\\0", False)
@example("\\u0000", False)
@example("\\\\u0000\\\0␀", False)
@example({"␀": "\0", "\0": "␀"}, True)
def test_escaping_json_is_escaping_its_strings(value: Any, is_ascii: bool) -> None:
    document = json.dumps(value, ensure_ascii=False)
    # Writers may escape other characters as they like.
    document = document.replace("/", "\\/") if is_ascii else document

    assert json.loads(escape_json(document)) == escaped_strings(value)


@given(json_values)
@example("\\u0000\0␀0")
def test_json_comes_back_to_the_letter(value: Any) -> None:
    document = json.dumps(value, ensure_ascii=False)

    assert unescape_json(escape_json(document)) == document


@given(json_values)
def test_no_string_in_escaped_json_has_nul(value: Any) -> None:
    def check(each: Any) -> None:
        if isinstance(each, str):
            assert "\0" not in each
        elif isinstance(each, list):
            for item in each:
                check(item)
        elif isinstance(each, dict):
            check([*each.keys(), *each.values()])

    check(json.loads(escape_json(json.dumps(value, ensure_ascii=False))))


@pytest.mark.parametrize(
    ("document", "stored"),
    [
        (r'"\u0000"', '"␀0"'),
        (r'"\\u0000"', r'"\\u0000"'),
        (r'"\\\u0000"', r'"\\␀0"'),
        (r'"\\\\u0000"', r'"\\\\u0000"'),
        (r'"\u00000"', '"␀00"'),
        (r'"\u0001"', r'"\u0001"'),
        ('"␀0"', '"␀␀0"'),
        ("{}", "{}"),
    ],
)
def test_only_an_escape_of_nul_is_replaced_in_json(document: str, stored: str) -> None:
    assert escape_json(document) == stored
    assert unescape_json(stored) == document


@given(st.one_of(texts, st.text(alphabet="\0␀💥", min_size=200, max_size=400)))
def test_a_stored_label_is_the_escaped_beginning_and_fits_an_index(text: str) -> None:
    label = stored_label(text)

    assert unescape_text(label) == text[:MAX_LABEL_CHARS]
    assert len(label.encode()) < 2_700
