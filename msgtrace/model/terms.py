"""What a trace can be found by without looking at its spans: hashes of what they are called.

A term is a 64-bit hash, as resources and scopes have one; the same text is the same term, on every
backend and in every version. Terms are made when a summary is written and when a filter is asked.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b

MAX_TERMS = 2_000
"""A trace that would have more has none: its spans are looked at instead."""

Term = int
"""Signed, 64 bits."""


@lru_cache(maxsize=65_536)
def operation_terms(service_name: str, name: str) -> tuple[Term, Term]:
    """The terms of a span: that of its name, and that of its name and its service.

    Both texts are as they are stored.
    """
    return name_term(name), operation_term(service_name, name)


def name_term(name: str) -> Term:
    """What the spans of a name share, whichever service they are of."""
    return _hash(name, b"name")


def operation_term(service_name: str, name: str) -> Term:
    """What the spans of a service and a name share."""
    # A service has at most 255 characters, so no name can shift the border between the two.
    return _hash(f"{len(service_name)} {service_name}{name}", b"operation")


def _hash(text: str, kind: bytes) -> Term:
    digest = blake2b(text.encode(), digest_size=8, person=kind).digest()
    return int.from_bytes(digest, signed=True)
