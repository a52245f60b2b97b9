"""How text with U+0000 is stored.

PostgreSQL refuses that character in text and in JSON, OTLP allows it. In a table U+0000 stands as
"␀0" and a genuine "␀" (U+2400) as "␀␀", on every backend, in text columns and in JSON text. The
decoder escapes, the readers of the backends undo it; nothing else sees escaped text.
"""

from __future__ import annotations

import re

MARK = "␀"

MAX_LABEL_CHARS = 255
"""Longest derived text in an index. PostgreSQL refuses index entries above about 2,700 bytes."""

_ESCAPED = {"\0": MARK + "0", MARK: MARK + MARK}
_TO_ESCAPE = re.compile(f"[\0{MARK}]")
_TO_UNESCAPE = re.compile(f"{MARK}(.)", re.DOTALL)
# A pair of backslashes is matched first, so that the text `\u0000` written as `\\u0000` is left
# alone.
_TO_ESCAPE_IN_JSON = re.compile(rf"\\\\|\\u0000|{MARK}")


def escape_text(text: str) -> str:
    """`text` as it is stored in a text column."""
    if "\0" in text or MARK in text:
        return _TO_ESCAPE.sub(lambda match: _ESCAPED[match[0]], text)
    return text


def unescape_text(stored: str) -> str:
    """The inverse of `escape_text`."""
    if MARK not in stored:
        return stored
    return _TO_UNESCAPE.sub(lambda match: "\0" if match[1] == "0" else match[1], stored)


def stored_label(text: str) -> str:
    """A derived, indexed text (service, session, user, …) as it is stored.

    It is cut to MAX_LABEL_CHARS, then escaped. The attribute that it was derived from keeps the
    whole text.
    """
    return escape_text(text[:MAX_LABEL_CHARS])


def escape_json(json: str) -> str:
    """A JSON text as it is stored: the strings in it are escaped."""
    if "\\u0000" not in json and MARK not in json:
        return json
    return _TO_ESCAPE_IN_JSON.sub(_escape_in_json, json)


def unescape_json(stored: str) -> str:
    """The inverse of `escape_json`."""
    if MARK not in stored:
        return stored
    return _TO_UNESCAPE.sub(lambda match: "\\u0000" if match[1] == "0" else match[1], stored)


def _escape_in_json(match: re.Match[str]) -> str:
    found = match[0]
    return {"\\u0000": MARK + "0", MARK: MARK + MARK}.get(found, found)
