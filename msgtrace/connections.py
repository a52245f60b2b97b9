"""One HTTP/1.1 connection within bounds of time and of size.

Path: serving → [connections] → the application (receivers, api).
A client that stalls holds a file descriptor until its time is up, and nobody else waits for it. Its
connection is then closed without an answer: exporters retry a connection that broke, and drop a
batch that was answered 408.
Not here: the size of a body, which the application bounds while it reads.
"""

from __future__ import annotations

import asyncio
import enum
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import httptools
from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)
from uvicorn.server import ServerState

from msgtrace.model.units import KIB

logger = logging.getLogger(__name__)

HEAD_TIMEOUT_S = 10.0
"""From connecting, or from the first byte of a later request, to the end of its headers."""

BODY_TIMEOUT_S = 60.0
"""From the end of the headers to the end of the body."""

BODY_STALL_S = 15.0
"""Between two pieces of a body."""

IDLE_TIMEOUT_S = 75
"""Longer than exporters' usual pause between batches, so that they keep their connection."""

WRITE_STALL_S = 30.0
"""How long a client may take none of an answer that waits for it."""

MAX_HEAD_BYTES = 64 * KIB
"""Target and headers of one request; also what may come between two pieces of a body."""

MAX_CONNECTIONS = 10_000
"""Connections to one port; fewer where the system allows few open files."""

CHECK_INTERVAL_S = 1.0
"""How exact the times above are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpLimits:
    """What one client may take from an HTTP port."""

    head_s: float = HEAD_TIMEOUT_S
    body_s: float = BODY_TIMEOUT_S
    body_stall_s: float = BODY_STALL_S
    idle_s: int = IDLE_TIMEOUT_S
    write_stall_s: float = WRITE_STALL_S
    max_head_bytes: int = MAX_HEAD_BYTES
    max_connections: int = MAX_CONNECTIONS
    check_interval_s: float = CHECK_INTERVAL_S


class ConnectionClock:
    """Seconds in which the event loop was free to read what clients sent.

    While the loop is held up, their bytes wait in the kernel: that time is not theirs.
    """

    def __init__(self, interval_s: float) -> None:
        self.now_s = 0.0
        self._interval_s = interval_s

    def after(self, seconds: float) -> float:
        """The time when so many seconds are surely over: `now_s` lags by up to the interval."""
        return self.now_s + self._interval_s + seconds

    async def run(self, connections: Iterable[Any]) -> None:
        """Advance, and check `connections`, all of them BoundedConnections. Forever."""
        loop = asyncio.get_running_loop()
        checked_at = loop.time()
        while True:
            await asyncio.sleep(self._interval_s)
            step_s = min(loop.time() - checked_at, 2 * self._interval_s)
            checked_at = loop.time()
            self.now_s += step_s
            for connection in list(connections):
                connection.check(step_s)


class _Reading(enum.Enum):
    HEAD = enum.auto()
    BODY = enum.auto()
    NOTHING = enum.auto()


class BoundedConnection(HttpToolsProtocol):
    """uvicorn's connection, with limits.

    An offer to upgrade is declined as RFC 9110, 7.8 allows: the request is served over HTTP/1.1.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        *,
        clock: ConnectionClock,
        limits: HttpLimits,
    ) -> None:
        super().__init__(config, server_state, app_state)
        self._clock = clock
        self._limits = limits
        self._reading = _Reading.HEAD
        self._deadline_s = clock.after(limits.head_s)
        self._stall_deadline_s = 0.0
        self._idle_bytes = 0  # since the last sign of progress: a head's end, a body's piece
        self._unsent_bytes = 0
        self._unsent_until_s = 0.0
        self._problem = HTTPStatus.BAD_REQUEST
        self._is_refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn
        """Serve the client, unless there are too many."""
        super().connection_made(transport)
        self._deadline_s = self._clock.after(self._limits.head_s)
        if len(self.connections) > self._limits.max_connections:
            self._end("too many connections", logging.WARNING)

    def data_received(self, data: bytes) -> None:
        """Parse; refuse what is not HTTP/1.1, and a head that is too large."""
        self._unset_keepalive_if_required()
        if self._is_refused:
            return
        if self._reading is _Reading.NOTHING:
            self._begin_head()
        self._stall_deadline_s = self._clock.after(self._limits.body_stall_s)
        self._idle_bytes += len(data)
        try:
            self._parse(data)
            self._require_small(self._idle_bytes)
        except httptools.HttpParserError:
            self._refuse(self._problem)

    def on_message_begin(self) -> None:
        """Start the clock of a request that follows another one in the same read."""
        super().on_message_begin()
        if self._reading is _Reading.NOTHING:
            self._begin_head()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; trailers are left out, as RFC 9110, 6.5.1 allows."""
        if self._reading is _Reading.HEAD:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Start the request. Not one that offers an upgrade: it comes again without the offer."""
        lines = (len(name) + len(value) for name, value in self.headers)
        self._require_small(len(self.url) + sum(lines))
        if self.parser.should_upgrade():
            return
        self._idle_bytes = 0
        self._reading = _Reading.BODY
        self._deadline_s = self._clock.after(self._limits.body_s)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Hand a piece of the body on."""
        self._idle_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Wait for the next request."""
        if self._reading is _Reading.BODY:
            self._idle_bytes = 0
            self._reading = _Reading.NOTHING
            super().on_message_complete()

    def shutdown(self) -> None:
        """Prepare for the end of the server.

        Within TLS an idle client would have to agree to the close, and many never do.
        """
        super().shutdown()
        if self.transport.is_closing() and not self.transport.get_write_buffer_size():
            self.transport.abort()

    def check(self, step_s: float) -> None:
        """End the connection if its time is up. step_s: seconds since the last check."""
        now_s = self._clock.now_s
        if self.flow.read_paused:  # the application is slow, not the client
            self._deadline_s += step_s
            self._stall_deadline_s += step_s
        unsent = self.transport.get_write_buffer_size()
        if unsent != self._unsent_bytes:
            self._unsent_bytes = unsent
            self._unsent_until_s = self._clock.after(self._limits.write_stall_s)
        if self.transport.is_closing() and not unsent:
            self.transport.abort()
        elif unsent and now_s > self._unsent_until_s:
            self._end("the client takes no more of its answer")
        elif self._reading is _Reading.HEAD and now_s > self._deadline_s:
            self._end("the headers took too long", logging.DEBUG)
        elif self._reading is _Reading.BODY and now_s > min(
            self._deadline_s, self._stall_deadline_s
        ):
            self._end("the body took too long")

    def _begin_head(self) -> None:
        self._reading = _Reading.HEAD
        self._deadline_s = self._clock.after(self._limits.head_s)

    def _parse(self, data: bytes) -> None:
        while data:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                # The parser takes the body for the other protocol and reports the request as
                # complete without it, which would pass for an export without spans.
                data = self._head_without_upgrade() + data[upgrade.args[0] :]
            else:
                return

    def _head_without_upgrade(self) -> bytes:
        method = self.parser.get_method()
        if method == b"CONNECT":
            raise httptools.HttpParserError("CONNECT asks for a proxy")
        version = self.parser.get_http_version().encode()
        lines = [b"%b %b HTTP/%b" % (method, self.url, version)]
        lines += [b"%b: %b" % header for header in self.headers if header[0] != b"upgrade"]
        return b"\r\n".join(lines) + b"\r\n\r\n"

    def _require_small(self, head_bytes: int) -> None:
        if head_bytes > self._limits.max_head_bytes:
            self._problem = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            raise httptools.HttpParserError("the head is too large")

    def _refuse(self, status: HTTPStatus) -> None:
        """Answer and close, after the answers to whole requests that came before."""
        self._is_refused = True
        self._reading = _Reading.NOTHING
        last: RequestResponseCycle | None = self.cycle
        if last is not None and not last.response_complete:
            if not last.more_body:
                last.keep_alive = False
                return
            if last.response_started or self.pipeline:
                self.transport.close()  # an answer in the midst of another one would be misread
                return
        logger.debug("http_request_refused", extra={"client": self._host(), "status": int(status)})
        text = status.phrase.encode()
        self.transport.write(
            STATUS_LINE[status]
            + b"content-type: text/plain; charset=utf-8\r\nconnection: close\r\n"
            + b"content-length: %d\r\n\r\n%b" % (len(text), text)
        )
        self.transport.close()

    def _end(self, reason: str, level: int = logging.INFO) -> None:
        fields = {"client": self._host(), "reason": reason}
        logger.log(level, "http_connection_ended", extra=fields)
        self.transport.abort()

    def _host(self) -> str:
        return self.client[0] if self.client else ""
