"""Damage bytes as wires, disks and attackers do."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

INTERESTING = [
    b"\x00",
    b"\xff",
    b"\x80" * 9 + b"\x01",  # the longest varint
    b"\xff" * 10,
    b"\xed\xa0\x80",  # a surrogate in UTF-8
    b"\x0a\x00",
    b"{}",
    b"[[[[[[[[",
    b"null",
    b"1e400",
    b"-0",
    b"\\ud800",
    b"\\u0000",
    b'"',
    b"9" * 400,
    b"\x1f\x8b\x08",
    b"\x28\xb5\x2f\xfd",
]

MAX_BYTES = 1 << 21


def mutate(chance: random.Random, body: bytes, corpus: Sequence[bytes]) -> bytes:
    """`body` after a few changes; `corpus` is where pieces of others come from."""
    damaged = bytearray(body)
    for _ in range(1 << chance.randrange(5)):
        chance.choice(_MUTATIONS)(chance, damaged, corpus)
    return bytes(damaged[:MAX_BYTES])


def damage(chance: random.Random, body: bytes, corpus: Sequence[bytes]) -> bytes:
    """`body` after one change."""
    damaged = bytearray(body)
    chance.choice(_MUTATIONS)(chance, damaged, corpus)
    return bytes(damaged)


def _flip_bit(chance: random.Random, body: bytearray, _: Sequence[bytes]) -> None:
    if body:
        body[chance.randrange(len(body))] ^= 1 << chance.randrange(8)


def _set_byte(chance: random.Random, body: bytearray, _: Sequence[bytes]) -> None:
    if body:
        body[chance.randrange(len(body))] = chance.randrange(256)


def _insert(chance: random.Random, body: bytearray, _: Sequence[bytes]) -> None:
    at = chance.randint(0, len(body))
    body[at:at] = chance.choice(INTERESTING)


def _overwrite(chance: random.Random, body: bytearray, _: Sequence[bytes]) -> None:
    piece = chance.choice(INTERESTING)
    at = chance.randint(0, len(body))
    body[at : at + len(piece)] = piece


def _remove(chance: random.Random, body: bytearray, _: Sequence[bytes]) -> None:
    start, end = _slice(chance, body)
    del body[start:end]


def _repeat(chance: random.Random, body: bytearray, _: Sequence[bytes]) -> None:
    start, end = _slice(chance, body)
    piece = body[start:end]
    if len(body) < MAX_BYTES // 2:
        body[end:end] = piece * chance.choice([1, 2, 10])


def _cut(chance: random.Random, body: bytearray, _: Sequence[bytes]) -> None:
    del body[chance.randint(0, len(body)) :]


def _splice(chance: random.Random, body: bytearray, corpus: Sequence[bytes]) -> None:
    other = chance.choice(corpus)
    start, end = _slice(chance, other)
    at = chance.randint(0, len(body))
    body[at:at] = other[start:end]


def _slice(chance: random.Random, body: bytes | bytearray) -> tuple[int, int]:
    start = chance.randint(0, len(body))
    return start, min(len(body), start + chance.choice([1, 2, 4, 8, 64, 512]))


_MUTATIONS: list[Callable[[random.Random, bytearray, Sequence[bytes]], None]] = [
    _flip_bit,
    _set_byte,
    _insert,
    _overwrite,
    _remove,
    _repeat,
    _cut,
    _splice,
]
