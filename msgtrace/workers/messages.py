"""What supervisor and workers say to each other: one JSON document a line, over a socket pair.

The supervisor tells a worker what to serve, and asks it for a snapshot. A worker says when its
ports are open, and asks for the snapshots of all: operators look at whichever worker they reach.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import msgspec

from msgtrace.model.units import MIB
from msgtrace.settings.table import Settings

MAX_LINE_BYTES = 16 * MIB
"""A snapshot has some 50 KiB."""


class Sample(msgspec.Struct, array_like=True):
    """One value of a metric."""

    name: str
    labels: dict[str, str]
    value: float


class Family(msgspec.Struct, array_like=True):
    """One metric with all its values."""

    name: str
    help: str
    kind: str
    samples: list[Sample]


class Snapshot(msgspec.Struct):
    """What one worker shows of itself. reasons: why it is not ready; details: for /ready."""

    number: int
    reasons: list[str]
    details: dict[str, Any]
    families: list[Family]


class Assignment(msgspec.Struct, tag=True):
    """To a worker, first of all. is_first: nobody has served before it, so it may say so."""

    service: str
    settings: Settings
    number: int
    is_first: bool


class Serving(msgspec.Struct, tag=True):
    """From a worker: its ports are open."""


class ShowYourself(msgspec.Struct, tag=True):
    """To a worker: the supervisor wants a snapshot."""

    question: int


class Shown(msgspec.Struct, tag=True):
    """From a worker."""

    question: int
    snapshot: Snapshot


class ShowAll(msgspec.Struct, tag=True):
    """From a worker: it wants the snapshots of all."""

    question: int


class AllShown(msgspec.Struct, tag=True):
    """To a worker. Without those that did not answer in time. restarts: since the start."""

    question: int
    workers: int
    restarts: int
    snapshots: list[Snapshot]


Message = Assignment | Serving | ShowYourself | Shown | ShowAll | AllShown

_decoder = msgspec.json.Decoder(Message)


class Channel:
    """One end of the pair."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, end: socket.socket) -> Channel:
        """Take over the socket."""
        return cls(*await asyncio.open_connection(sock=end, limit=MAX_LINE_BYTES))

    def send(self, message: Message) -> None:
        """Say it; nothing happens if the other side has ended."""
        if not self._writer.is_closing():
            self._writer.write(msgspec.json.encode(message) + b"\n")

    async def receive(self) -> Message | None:
        """What the other side says next, None once it has ended."""
        try:
            line = await self._reader.readline()
        except (OSError, ValueError):  # reset, or a line that is too long
            return None
        return _decoder.decode(line) if line.endswith(b"\n") else None

    def close(self) -> None:
        """Let the socket go."""
        self._writer.close()
