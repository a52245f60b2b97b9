"""Damage OTLP/JSON where it has meaning: its names, numbers, texts, nesting and space.

A body is taken as tokens, so that also what is no JSON can be damaged further.
"""

from __future__ import annotations

import base64
import json
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

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

TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*+"|[ \t\r\n]++|[{}\[\],:]|[^\s{}\[\],:"]++|.', re.DOTALL)

SPACES = [b" ", b"\t", b"\r\n", b"  \n ", b"\x0c", b"\x0b", b"\xc2\xa0", b"\xef\xbb\xbf", b"//\n"]

ESCAPES = [
    rb"\u0041",
    rb"\u00e9",
    rb"\u2400",
    rb"\u0000",
    rb"\ud83d\ude00",
    rb"\uD83D\uDE00",
    rb"\ud83d",
    rb"\ude00",
    rb"\ude00\ud83d",
    rb"\ud83d\\ude00",
    rb"\ud83dx",
    rb"\/\b\f\n\r\t\"\\",
    rb"\u12",
    rb"\u12G4",
    rb"\x41",
    rb"\U0041",
    b"\\",
    b"\n",
    b"\x1f",
    *TEXTS,
]


def _text(content: bytes) -> bytes:
    return b'"' + content.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'


_JUST_NUMBERS = [str(number).encode() for number in INTEGERS]
_SMALL_NUMBERS = [str(number).encode() for number in INTEGERS if abs(number) <= 2**32]
_JUST_DOUBLES = [repr(number).encode() for number in DOUBLES]
_JUST_TEXTS = [_text(text) for text in TEXTS if b"\n" not in text]
_JUST_IDS = [
    _text(form) for each in IDS for form in (each.hex().encode(), each.hex().upper().encode())
]
_JUST_BYTES = [
    _text(text) for text in b"+/+/ -_-_ YQ== YQ= YQ YR== Y Y=== =YQ YQ==YQ== Y*== YWI= YWJj".split()
] + [b'""', b'"Y Q"']

_FITTING = {
    b"Id": _JUST_IDS,
    b"Nano": _JUST_NUMBERS + [_text(number) for number in _JUST_NUMBERS],
    b"intValue": _JUST_NUMBERS + [_text(number) for number in _JUST_NUMBERS],
    b"Count": _SMALL_NUMBERS,
    b"flags": _SMALL_NUMBERS,
    b"kind": _SMALL_NUMBERS,
    b"code": _SMALL_NUMBERS,
    b"doubleValue": _JUST_NUMBERS + _JUST_DOUBLES + [_text(number) for number in _JUST_DOUBLES],
    b"boolValue": [b"true", b"false"],
    b"bytesValue": _JUST_BYTES,
    b"key": [_text(key) for key in KEYS],
    b"stringValue": _JUST_TEXTS,
    b"name": _JUST_TEXTS,
    b"message": _JUST_TEXTS,
    b"State": _JUST_TEXTS,
    b"Url": _JUST_TEXTS,
}
"""By the end of a field's name: values that it may have, in type or nearly."""

ODD_VALUES = [
    *b'null true false {} [] [{}] [null] [[]] {"values":[]} {"x":1} nul tru NaN Infinity'.split(),
    *_JUST_NUMBERS,
    *map(_text, _JUST_NUMBERS),
    *_JUST_DOUBLES,
    *map(_text, _JUST_DOUBLES),
    *b"-0 -0.0 1e2 1E+2 1e-2 10e-1 1.50 1. .5 01 +1 - 1e400 1e-400 0x10 1_000 0e99999".split(),
    *map(_text, b"-0 -00 +1 1e2 1.0 10e-1 0x10 1_0 NaN Infinity -Infinity inf . 1_".split()),
    *(b'" 1"', b'"1 "', b'"- 1"', b'""', '"\u0661"'.encode(), '"\uff11"'.encode(), b'"\\u0031"'),
    *_JUST_TEXTS,
    *_JUST_IDS,
    *_JUST_BYTES,
]


@dataclass(frozen=True, slots=True)
class Member:
    """Where a member of an object stands among the tokens."""

    name: int
    value: int
    end: int


def mutate_json(chance: random.Random, body: bytes, corpus: Sequence[bytes]) -> bytes:
    """A body in JSON after a change or a few."""
    if chance.random() < 0.1:
        body = damage(chance, body, corpus)
    tokens = TOKEN.findall(body)
    for _ in range(chance.choice([1, 1, 1, 2, 4])):
        if chance.random() < 0.15:
            chance.choice(_TOKEN_CHANGES)(chance, tokens)
        elif (member := _find_member(chance, tokens)) is not None:
            chance.choice(_MEMBER_CHANGES)(chance, tokens, member)
    return b"".join(tokens)[:MAX_BYTES]


def _find_member(chance: random.Random, tokens: Sequence[bytes]) -> Member | None:
    colons = [place for place, token in enumerate(tokens) if token == b":"]
    if not colons:
        return None
    colon = chance.choice(colons)
    name, value = colon - 1, colon + 1
    while name > 0 and tokens[name].isspace():
        name -= 1
    while value < len(tokens) and tokens[value].isspace():
        value += 1
    if name < 0 or value == len(tokens):
        return None
    return Member(name, value, _end_of_value(tokens, value))


def _end_of_value(tokens: Sequence[bytes], start: int) -> int:
    depth = 0
    for place in range(start, len(tokens)):
        depth += (tokens[place] in (b"{", b"[")) - (tokens[place] in (b"}", b"]"))
        if depth <= 0:
            return place + (depth == 0)
    return len(tokens)


# Changes of a member


def _odd_value(chance: random.Random, tokens: list[bytes], member: Member) -> None:
    tokens[member.value : member.end] = [chance.choice(ODD_VALUES)]


def _fitting_value(chance: random.Random, tokens: list[bytes], member: Member) -> None:
    name = tokens[member.name].strip(b'"')
    fitting = next((each for end, each in _FITTING.items() if name.endswith(end)), None)
    if fitting is not None:
        tokens[member.value : member.end] = [chance.choice(fitting)]


def _other_form(chance: random.Random, tokens: list[bytes], member: Member) -> None:
    """Another way to say the same, or nearly."""
    if member.end - member.value == 1:
        value = tokens[member.value]
        forms = _forms_of_text(chance, value) if value[:1] == b'"' else _forms_of_number(value)
        tokens[member.value] = chance.choice(forms)


def _forms_of_number(number: bytes) -> list[bytes]:
    sign, digits = (b"-", number[1:]) if number[:1] == b"-" else (b"", number)
    forms = [
        number + b".0",
        number + b".000",
        number + b"e0",
        number + b"E+00",
        number + b"0e-1",
        number + b"0" * 25 + b"e-25",
        sign + b"0" + digits,
        sign + b"0" * 30 + digits,
        b"-" + number,
        number + b"0" * 30,
    ]
    return [*forms, *(b'"' + form + b'"' for form in (number, *forms))]


def _forms_of_text(chance: random.Random, text: bytes) -> list[bytes]:
    content = text[1:-1]
    forms = [
        content,  # a number perhaps
        b'"' + content.upper() + b'"',
        b'"' + content.lower() + b'"',
        b'"' + content.replace(b"+", b"-").replace(b"/", b"_") + b'"',
        b'"' + content.rstrip(b"=") + b'"',
        b'"' + content + b'="',
        b'" ' + content + b'"',
        b'"' + content + b' "',
        b'"' + base64.b64encode(content) + b'"',
        _escaped(content, "04x"),
        _escaped(content, "04X"),
        _with_escape(chance, text),
        _with_escape(chance, text),
        _with_escape(chance, text),
    ]
    if content.lstrip(b"-").isdigit():
        forms += _forms_of_number(content)
    return forms


def _escaped(content: bytes, form: str) -> bytes:
    """Every character by its number."""
    units = content.decode(errors="replace").encode("utf-16-be")
    pairs = (units[place : place + 2] for place in range(0, len(units), 2))
    numbers = (format(int.from_bytes(pair), form) for pair in pairs)
    return ('"' + "".join(f"\\u{number}" for number in numbers) + '"').encode()


def _with_escape(chance: random.Random, text: bytes) -> bytes:
    at = chance.randint(1, max(1, len(text) - 1))
    return text[:at] + chance.choice(ESCAPES) + text[at:]


def _other_name(chance: random.Random, tokens: list[bytes], member: Member) -> None:
    name = tokens[member.name].strip(b'"')
    snake = re.sub(rb"([A-Z])", lambda found: b"_" + found[1].lower(), name)
    tokens[member.name] = chance.choice(
        [
            b'"' + snake + b'"',
            b'"' + name.upper() + b'"',
            b'"' + name.capitalize() + b'"',
            b'"unknown"',
            b'""',
            name,
            b"'" + name + b"'",
            _escaped(name, "04x"),
            chance.choice(tokens),
        ]
    )


def _come_twice(chance: random.Random, tokens: list[bytes], member: Member) -> None:
    again = [tokens[member.name], b":", *tokens[member.value : member.end]]
    if chance.random() < 0.6:
        again[2:] = [chance.choice(ODD_VALUES)]
    if chance.random() < 0.5:
        tokens[member.end : member.end] = [b",", *again]
    else:
        tokens[member.name : member.name] = [*again, b","]


def _leave_out(_: random.Random, tokens: list[bytes], member: Member) -> None:
    start, end = member.name, member.end
    if tokens[start - 1] == b",":
        start -= 1
    elif end < len(tokens) and tokens[end] == b",":
        end += 1
    del tokens[start:end]


def _add_member(chance: random.Random, tokens: list[bytes], member: Member) -> None:
    name = chance.choice([b'"unknown"', b'""', *tokens[member.name : member.name + 1]])
    value = chance.choice([*ODD_VALUES, nested(chance.choice(DEPTHS), chance)])
    tokens[member.name : member.name] = [name, b":", value, b","]


def _wrap(chance: random.Random, tokens: list[bytes], member: Member) -> None:
    before, after = chance.choice([(b"[", b"]"), (b'{"values":[', b"]}"), (b'{"x":', b"}")])
    tokens[member.end : member.end] = [after]
    tokens[member.value : member.value] = [before]


def _repeat_element(chance: random.Random, tokens: list[bytes], member: Member) -> None:
    """A list twice as long; for anything else a second value."""
    if tokens[member.value] == b"[" and member.end - member.value > 2:
        inside = tokens[member.value + 1 : member.end - 1]
        tokens[member.end - 1 : member.end - 1] = [b",", *inside]
    else:
        _come_twice(chance, tokens, member)


def _attribute_value(chance: random.Random, tokens: list[bytes], member: Member) -> None:
    """Any value where an AnyValue may stand."""
    tokens[member.value : member.end] = [any_value(chance)]


def _attribute(chance: random.Random, tokens: list[bytes], member: Member) -> None:
    """A key that means something, with any value, in a list of attributes."""
    if tokens[member.name] == b'"attributes"' and tokens[member.value] == b"[":
        key = _text(chance.choice(KEYS))
        pair = b'{"key":' + key + b',"value":' + any_value(chance) + b"}"
        is_first = member.end - member.value == 2
        tokens[member.value + 1 : member.value + 1] = [pair] if is_first else [pair, b","]


def any_value(chance: random.Random) -> bytes:
    """An AnyValue, mostly a good one."""
    if chance.random() < 0.15:
        return nested(chance.choice(DEPTHS), chance)
    if chance.random() < 10 * LONG_TEXTS:
        return b'{"stringValue":"' + LONG_TEXT + b'"}'
    name = chance.choice(b"stringValue intValue doubleValue boolValue bytesValue".split())
    value = chance.choice(_FITTING[name] if chance.random() < 0.8 else ODD_VALUES)
    return b'{"' + name + b'":' + value + b"}"


def nested(depth: int, chance: random.Random) -> bytes:
    """An AnyValue of arrays or maps in one another."""
    before, after = chance.choice(
        [
            (b'{"arrayValue":{"values":[', b"]}}"),
            (b'{"kvlistValue":{"values":[{"key":"k","value":', b"}]}}"),
            (b"[", b"]"),
        ]
    )
    return before * depth + b'{"intValue":"7"}' + after * depth


_MEMBER_CHANGES: list[Callable[[random.Random, list[bytes], Member], None]] = [
    *[_odd_value] * 2,
    *[_fitting_value] * 8,
    *[_other_form] * 6,
    _other_name,
    *[_come_twice] * 2,
    _leave_out,
    _add_member,
    _wrap,
    _repeat_element,
    _attribute_value,
    *[_attribute] * 3,
]


# Changes of any token


def _add_space(chance: random.Random, tokens: list[bytes]) -> None:
    tokens.insert(chance.randint(0, len(tokens)), chance.choice(SPACES))


def _drop_token(chance: random.Random, tokens: list[bytes]) -> None:
    if tokens:
        del tokens[chance.randrange(len(tokens))]


def _repeat_token(chance: random.Random, tokens: list[bytes]) -> None:
    if tokens:
        place = chance.randrange(len(tokens))
        tokens.insert(place, tokens[place])


def _odd_token(chance: random.Random, tokens: list[bytes]) -> None:
    if tokens:
        tokens[chance.randrange(len(tokens))] = chance.choice(ODD_VALUES)


def _spell_out(_: random.Random, tokens: list[bytes]) -> None:
    """Space wherever it may stand."""
    try:
        tokens[:] = [json.dumps(json.loads(b"".join(tokens)), indent=1).encode()]
    except (ValueError, RecursionError):
        tokens.append(b" ")


_TOKEN_CHANGES: list[Callable[[random.Random, list[bytes]], None]] = [
    *[_add_space] * 3,
    _drop_token,
    _repeat_token,
    _odd_token,
    _spell_out,
]
