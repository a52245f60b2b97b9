"""Long texts as JSON, made in pieces.

Path: otlp.attributes, otlp.values → [otlp.long_text]. Python takes one, two or four bytes for each
character of a text, as the widest of them needs, and UTF-8 beside it for the database: one emoji
makes 320 MiB of a prompt of 64 MiB, several times over while it is decoded and encoded. So no text
of all of it is made but the last, and where few characters are not ASCII these are written as
JSON's escapes, which mean the same.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from json.encoder import encode_basestring, encode_basestring_ascii

from msgtrace.model.span import JsonText
from msgtrace.model.text import escape_json
from msgtrace.model.units import KIB, MIB

LONG_BYTES = MIB
"""Of JSON; shorter ones are not worth the pieces."""

PIECE_BYTES = 256 * KIB

_NOT_ASCII = re.compile(r"[^\x00-\x7f]+")
_ESCAPE_CHARS = len("\\u20ac")


def long_text_to_json(text: memoryview) -> JsonText:
    """The JSON text of a text in UTF-8, escaped for storage. Raises UnicodeDecodeError."""
    encode = encode_basestring_ascii if _is_better_escaped(text) else encode_basestring
    return JsonText(f'"{"".join(escape_json(encode(piece)[1:-1]) for piece in _pieces(text))}"')


def long_json(encoded: bytes) -> JsonText:
    """JSON in UTF-8 as text, escaped for storage."""
    view = memoryview(encoded)
    if b"\\u0000" in encoded or not _is_better_escaped(view):
        return JsonText(escape_json(encoded.decode()))
    return JsonText("".join(map(_escaped, _pieces(view))))


def _escaped(json: str) -> str:
    """A piece of JSON, in which only texts have characters that are not ASCII."""
    if json.isascii():
        return json
    return _NOT_ASCII.sub(lambda found: encode_basestring_ascii(found[0])[1:-1], json)


def _pieces(text: memoryview) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8")()
    for start in range(0, len(text), PIECE_BYTES):
        end = start + PIECE_BYTES
        yield decoder.decode(text[start:end], final=end >= len(text))


def _is_better_escaped(text: memoryview) -> bool:
    """Whether the text takes less memory with escapes for all that is not ASCII."""
    chars, escaped_chars, bytes_a_char = 0, 0, 1
    for piece in _pieces(text):
        chars += len(piece)
        escaped_chars += len(piece)
        if "\0" in piece:  # stored as a character that is not ASCII
            return False
        if not piece.isascii():
            plain = len(piece.encode("ascii", "ignore"))
            units = len(piece.encode("utf-16-le")) // 2  # two for what is beyond U+FFFF
            escaped_chars += (units - plain) * _ESCAPE_CHARS - (len(piece) - plain)
            bytes_a_char = max(bytes_a_char, _bytes_a_char(piece, units))
    return chars < escaped_chars < chars * bytes_a_char + len(text)


def _bytes_a_char(piece: str, utf16_units: int) -> int:
    if utf16_units > len(piece):
        return 4
    return 1 if len(piece.encode("latin-1", "ignore")) == len(piece) else 2
