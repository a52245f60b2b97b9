"""Bytes on sockets, where no client library would say what a test wants to say."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.client import HTTPResponse

import h2.config
import h2.connection
import h2.events

from tests.conformance.collectors import TIMEOUT_S, Collector
from tests.conformance.wires import EXPORT_METHOD, HttpReply, read_reply

Headers = Sequence[tuple[str, str]]


@contextlib.contextmanager
def opened(collector: Collector, transport: str = "http") -> Iterator[socket.socket]:
    """A connection to a port."""
    with socket.create_connection(collector.address(transport), timeout=TIMEOUT_S) as connection:
        yield connection


def head(*lines: str, request_line: str = "POST /v1/traces HTTP/1.1") -> bytes:
    """The head of an HTTP/1.1 request."""
    return "\r\n".join([request_line, "Host: localhost", *lines, "", ""]).encode("latin-1")


def replies(connection: socket.socket, count: int) -> list[HttpReply]:
    """The next responses on the connection."""
    # One buffered file for all, as a response's own would read into the next one.
    file = connection.makefile("rb")
    found = []
    for _ in range(count):
        response = HTTPResponse(_Shared(file))  # type: ignore[arg-type]  # all it needs
        response.begin()
        found.append(read_reply(response))
    return found


def read_to_end(connection: socket.socket) -> bytes:
    """All that comes until the other side closes; fails if it does not."""
    parts = []
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(65_536):
            parts.append(part)
    return b"".join(parts)


class _Shared:
    """Stands for a socket whose file stays open."""

    def __init__(self, file: object) -> None:
        self._file = file

    def makefile(self, *_: object) -> object:
        return _Unclosed(self._file)


class _Unclosed:
    def __init__(self, file: object) -> None:
        self._file = file

    def __getattr__(self, name: str) -> object:
        return getattr(self._file, name)

    def close(self) -> None:
        """Keep it for the next response."""


@dataclass
class Http2Answer:
    """What came on one stream, and whether its first headers ended it."""

    headers: dict[str, str] = field(default_factory=dict)
    trailers: dict[str, str] = field(default_factory=dict)
    data: bytes = b""
    is_trailers_only: bool = False
    is_reset: bool = False


class Http2Connection:
    """gRPC by hand."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self._h2.initiate_connection()
        self._answers: dict[int, Http2Answer] = {}
        self._ended: set[int] = set()
        self.pings_answered = 0
        self.is_gone = False
        self._flush()

    def call(
        self,
        body: bytes,
        headers: Mapping[str, str] | None = None,
        *,
        is_compressed: bool = False,
        method: str = EXPORT_METHOD,
        messages: int = 1,
        amid: Callable[[], None] = lambda: None,
    ) -> Http2Answer:
        """One unary call with so many times the same message; returns when its stream has ended.

        amid: called when the first byte is sent and the others are not.
        """
        stream_id = self._h2.get_next_available_stream_id()
        self._answers[stream_id] = Http2Answer()
        pseudo = {":method": "POST", ":scheme": "http", ":authority": "localhost", ":path": method}
        given = (
            pseudo | {"te": "trailers", "content-type": "application/grpc"} | dict(headers or {})
        )
        self._h2.send_headers(stream_id, list(given.items()))
        message = (bytes([is_compressed]) + len(body).to_bytes(4) + body) * messages
        self._h2.send_data(stream_id, message[:1])
        amid()
        for start in range(1, len(message), self._h2.max_outbound_frame_size):
            self._h2.send_data(stream_id, message[start:][: self._h2.max_outbound_frame_size])
        self._h2.end_stream(stream_id)
        self._flush()
        while stream_id not in self._ended and not self.is_gone:
            self.receive()
        return self._answers[stream_id]

    def ping(self, times: int) -> None:
        """Send PINGs, each when the one before is answered, until the connection ends."""
        for number in range(self.pings_answered, self.pings_answered + times):
            self._h2.ping(b"12345678")
            self._flush()
            while self.pings_answered == number and not self.is_gone:
                self.receive()

    def receive(self) -> None:
        data = self._socket.recv(65_536)
        if not data:
            self.is_gone = True
            return
        for event in self._h2.receive_data(data):
            self._take(event)
        self._flush()

    def _take(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.ResponseReceived(stream_id=int(stream_id), headers=headers):
                answer = self._answers[stream_id]
                answer.headers = _as_text(headers)
                answer.is_trailers_only = event.stream_ended is not None
            case h2.events.TrailersReceived(stream_id=int(stream_id), headers=headers):
                self._answers[stream_id].trailers = _as_text(headers)
            case h2.events.DataReceived(stream_id=int(stream_id), data=data):
                self._answers[stream_id].data += data or b""
            case h2.events.StreamEnded(stream_id=int(stream_id)):
                self._ended.add(stream_id)
            case h2.events.StreamReset(stream_id=int(stream_id)):
                self._answers[stream_id].is_reset = True
                self._ended.add(stream_id)
            case h2.events.PingAckReceived():
                self.pings_answered += 1
            case h2.events.ConnectionTerminated():
                self.is_gone = True

    def _flush(self) -> None:
        self._socket.sendall(self._h2.data_to_send())


def _as_text(headers: object) -> dict[str, str]:
    assert isinstance(headers, list)
    return {str(name): str(value) for name, value in headers}
