"""Spilled requests for tests, and what a spill's files hold."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

import pytest

from msgtrace.errors import InvalidSetting
from msgtrace.model.units import MIB
from msgtrace.storage.spill import Spill
from msgtrace.storage.spill_table import (
    SpillContent,
    SpilledRequest,
    open_for_reading,
    read_content,
    read_requests,
)

ENOUGH = 64 * MIB
"""Bytes of a spill that no test fills by accident."""


def spilled_request(payload: bytes = b"spans", at_ns: int = 1) -> SpilledRequest:
    return SpilledRequest(payload=payload, encoding="protobuf", span_count=3, received_at_ns=at_ns)


def numbered(count: int, first: int = 0) -> list[SpilledRequest]:
    """Requests whose time and payload are their number."""
    return [spilled_request(b"%d" % n, at_ns=n) for n in range(first, first + count)]


def payloads(requests: Sequence[SpilledRequest]) -> list[bytes]:
    return [each.payload for each in requests]


async def left_behind(folder: Path, *groups: Sequence[SpilledRequest]) -> list[Path]:
    """A file for each group, as so many collectors that have ended leave them."""
    async with contextlib.AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(Spill.open(folder, ENOUGH)) for _ in groups]
        for each, group in zip(opened, groups, strict=True):
            await each.append(group)
        return [each.path for each in opened]


async def drained(spill: Spill, max_bytes: int = MIB) -> list[bytes]:
    """Take everything out of the spill; return the payloads."""
    taken: list[bytes] = []
    while group := await spill.oldest(max_bytes):
        await spill.remove(group)
        taken += payloads(group)
    return taken


def in_file(path: Path) -> list[SpilledRequest]:
    """What somebody else sees in the file, also what is set aside."""
    with contextlib.closing(open_for_reading(path)) as connection:
        return list(read_requests(connection))


def recounted(path: Path) -> SpillContent:
    with contextlib.closing(open_for_reading(path)) as connection:
        return read_content(connection)


async def refusal_to_open(folder: Path) -> str:
    """What an operator reads whose MSGTRACE_SPILL_DIR cannot be used."""
    with pytest.raises(InvalidSetting) as raised:
        async with Spill.open(folder, ENOUGH):
            pass
    assert raised.value.name == "MSGTRACE_SPILL_DIR"
    return str(raised.value)


def names_in(folder: Path) -> list[str]:
    """The files of spills, without those that are only locks."""
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")
