"""Long texts as JSON: in pieces, with escapes where these take less memory, and of one meaning."""

from __future__ import annotations

import sys

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from msgtrace.model.text import unescape_json
from msgtrace.otlp import long_text
from msgtrace.otlp.long_text import LONG_BYTES, long_json, long_text_to_json
from msgtrace.otlp.values import to_json

EMOJI = "\U0001f600"


@pytest.fixture(params=[1, 3, 7], autouse=True, scope="module")
def piece_bytes(request: pytest.FixtureRequest) -> object:
    """Pieces so short that every boundary lies within something."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(long_text, "PIECE_BYTES", request.param)
        yield request.param


PARTS = ['"', "\\", "\0", "u0000", "x", "\n", "é", "€", "␀", EMOJI, "中"]
TEXTS = st.lists(st.sampled_from(PARTS)).map("".join)


@given(TEXTS)
def test_a_text_comes_back_from_its_pieces(text: str) -> None:
    stored = long_text_to_json(memoryview(text.encode()))

    assert msgspec.json.decode(unescape_json(stored)) == text
    assert "\\u0000" not in stored.replace("\\\\", "")


@given(st.dictionaries(TEXTS, TEXTS | st.lists(TEXTS)))
def test_a_map_comes_back_from_its_pieces(plain: dict[str, object]) -> None:
    stored = long_json(msgspec.json.encode(plain))

    assert msgspec.json.decode(unescape_json(stored)) == plain
    assert "\\u0000" not in stored.replace("\\\\", "")


def test_text_that_is_not_utf8_is_told() -> None:
    for wrong in (b"abc\xff", b"abcdefgh\xf0\x9f\x98", b"\xed\xa0\x80"):
        with pytest.raises(UnicodeDecodeError):
            long_text_to_json(memoryview(wrong))


@pytest.mark.parametrize("odd", ["é", "€", EMOJI])
def test_one_odd_character_does_not_widen_all_others(odd: str) -> None:
    text = "x" * 10_000 + odd

    stored = long_text_to_json(memoryview(text.encode()))

    assert stored.isascii()
    assert sys.getsizeof(stored) < 1.1 * len(text)


@pytest.mark.parametrize("dense", ["é", "中", EMOJI])
def test_a_text_of_another_script_is_stored_as_it_is(dense: str) -> None:
    text = dense * 1_000

    assert long_text_to_json(memoryview(text.encode())) == f'"{text}"'


def test_a_long_map_is_written_with_escapes_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_text, "PIECE_BYTES", 1024)
    plain = {EMOJI: ["x" * LONG_BYTES]}

    stored = to_json(plain)

    assert stored.isascii()
    assert msgspec.json.decode(stored) == plain
