"""gRPC calls by hand for clients that mean harm: much is sent fast, slowly, in part, or never.

h2 would do, but costs more than what it attacks. Source: RFC 9113; grpc/doc/PROTOCOL-HTTP2.md.
"""

from __future__ import annotations

import asyncio
import struct
from dataclasses import dataclass, field

from hpack import Decoder, Encoder

EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
CHECK = "/grpc.health.v1.Health/Check"

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, WINDOW_UPDATE = 0, 1, 3, 4, 6, 8
END_STREAM, END_HEADERS, ACK = 1, 4, 1
INITIAL_WINDOW_SIZE = 4
FRAME_BYTES = 16_384

BROKEN = -1
"""Stands for the grpc-status of a call whose stream or connection broke."""


@dataclass(eq=False)
class Call:
    """One call of a connection. `status` is its grpc-status, None until it has ended."""

    stream_id: int
    window: int
    status: int | None = None
    may_send: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def end(self, status: int) -> None:
        """No more comes of it."""
        if self.status is None:
            self.status = status
        self.ended.set()
        self.may_send.set()


class Connection:
    """A connection whose calls share it."""

    def __init__(
        self, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.port = port
        self._reader, self._writer = reader, writer
        self._window, self._initial_window = 65_535, 65_535
        self._calls: dict[int, Call] = {}
        self._next_stream_id = 1
        self._decoder, self._encoder = Decoder(), Encoder()
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def open(cls, port: int) -> Connection:
        """Connect to loopback's `port`."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(PREFACE + _frame(SETTINGS, 0, 0, b""))
        return cls(port, reader, writer)

    def begin(self, *, encoding: str = "", method: str = EXPORT) -> Call:
        """Send the headers of a call. encoding: grpc-encoding."""
        call = Call(self._next_stream_id, self._initial_window)
        self._next_stream_id += 2
        self._calls[call.stream_id] = call
        headers = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", method),
            (":authority", "localhost"),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
        ] + ([("grpc-encoding", encoding)] if encoding else [])
        block = self._encoder.encode(headers)
        self._writer.write(_frame(HEADERS, END_HEADERS, call.stream_id, block))
        return call

    async def send(self, call: Call, data: bytes, *, ends: bool = False) -> None:
        """Send as far as the windows allow, in frames of 16 KiB; returns early if the call ends."""
        view, position = memoryview(data), 0
        while position < len(view) and call.status is None:
            count = min(FRAME_BYTES, len(view) - position, call.window, self._window)
            if count <= 0:
                call.may_send.clear()
                await call.may_send.wait()
                continue
            call.window -= count
            self._window -= count
            piece = view[position : position + count]
            position += count
            flags = END_STREAM if ends and position == len(view) else 0
            self._writer.write(_head(DATA, flags, call.stream_id, count))
            self._writer.write(piece)
            try:
                await self._writer.drain()
            except OSError:
                call.end(BROKEN)

    def end(self, call: Call) -> None:
        """Send no more of the call."""
        self._writer.write(_frame(DATA, END_STREAM, call.stream_id, b""))

    def close(self) -> None:
        """Hang up."""
        self._reading.cancel()
        self._writer.close()

    async def _read(self) -> None:
        try:
            while True:
                head = await self._reader.readexactly(9)
                size = int.from_bytes(head[:3])
                payload = await self._reader.readexactly(size)
                self._take(head[3], head[4], int.from_bytes(head[5:9]), payload)
        except (OSError, asyncio.IncompleteReadError):
            for call in self._calls.values():
                call.end(BROKEN)

    def _take(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        call = self._calls.get(stream_id)
        if kind in (SETTINGS, PING):
            self._answer(kind, flags, payload)
        elif kind == WINDOW_UPDATE:
            self._widen(call, int.from_bytes(payload))
        elif kind == HEADERS:
            headers = dict(self._decoder.decode(payload, raw=True))
            if call is not None and flags & END_STREAM:
                call.end(int(headers[b"grpc-status"]))
        elif kind == RST_STREAM and call is not None:
            call.end(BROKEN)

    def _answer(self, kind: int, flags: int, payload: bytes) -> None:
        if flags & ACK:
            return
        self._writer.write(_frame(kind, ACK, 0, payload if kind == PING else b""))
        if kind == SETTINGS:
            for identifier, value in struct.iter_unpack(">HI", payload):
                if identifier == INITIAL_WINDOW_SIZE:
                    self._resize(value - self._initial_window)

    def _resize(self, difference: int) -> None:
        self._initial_window += difference
        for call in self._calls.values():
            call.window += difference
            call.may_send.set()

    def _widen(self, call: Call | None, count: int) -> None:
        if call is not None:
            call.window += count
            call.may_send.set()
            return
        self._window += count
        for each in self._calls.values():
            each.may_send.set()


def prefix(body_bytes: int, *, is_compressed: bool = False) -> bytes:
    """What precedes the bytes of a message, whether or not so many follow."""
    return bytes([is_compressed]) + body_bytes.to_bytes(4)


def _frame(kind: int, flags: int, stream_id: int, payload: bytes) -> bytes:
    return _head(kind, flags, stream_id, len(payload)) + payload


def _head(kind: int, flags: int, stream_id: int, size: int) -> bytes:
    return size.to_bytes(3) + bytes([kind, flags]) + stream_id.to_bytes(4)
