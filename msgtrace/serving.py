"""What both processes need to listen and to stop: sockets, uvicorn, signals."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import os
import signal
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Callable, Iterator

import uvicorn
from starlette.types import ASGIApp

from msgtrace.connections import BoundedConnection, ConnectionClock, HttpLimits
from msgtrace.ports import bind_port

if sys.platform != "win32":
    import resource

logger = logging.getLogger(__name__)

STOP_GRACE_S = 7
"""How long requests under way may take to finish once a stop was asked for.

All ports stop at the same time, and what was read is then written: within the ten seconds that
Docker and most exporters wait.
"""

TLS_HANDSHAKE_TIMEOUT_S = 10.0
"""From connecting to the end of the TLS handshake."""

TLS_CLOSE_TIMEOUT_S = 30.0
"""How long a client within TLS may take the rest of its answer when the connection is closed."""

_BACKLOG = 2048
_OPEN_FILES = 10_240
"""Enough where the system names no highest number; macOS allows no more to a program."""

_SHARE_OF_OPEN_FILES = 4
"""Connections to one port may take a quarter: there are three ports and a database."""


@contextlib.asynccontextmanager
async def serve_asgi(
    app: ASGIApp,
    host: str,
    port: int,
    variable: str,
    *,
    stop: StopRequest,
    shares_port: bool = False,
    tls: ssl.SSLContext | None = None,
    limits: HttpLimits = HttpLimits(),  # noqa: B008 - immutable
) -> AsyncIterator[int]:
    """Serve an application over HTTP/1.1, within TLS if there is a context; yields the port.

    It stops when `stop` is made, or on leaving: requests under way are answered first.
    variable: the setting that names the port, for the error. shares_port: with the other workers of
    a supervisor. Raises PortUnavailable.
    """
    listener = bind_port(host, port, variable, is_shared=shares_port)
    server = _Server(
        limits,
        tls,
        uvicorn.Config(
            app,
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            ws="none",
            timeout_keep_alive=limits.idle_s,
            timeout_graceful_shutdown=STOP_GRACE_S,
        ),
    )
    stop.call_when_made(server.begin_exit)
    serving = asyncio.create_task(server.serve(sockets=[listener]), name=f"serve-{variable}")
    try:
        while not server.started and not serving.done():  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.005)
        yield listener.getsockname()[1]
    finally:
        server.begin_exit()
        await serving
        listener.close()


def raise_open_file_limit() -> None:
    """Allow this process as many open files as the system lets it have: connections are files."""
    if sys.platform == "win32":
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else hard
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):  # the system knows a lower limit
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def connections_allowed(limit: int) -> int:
    """Connections to one port: at most `limit`, fewer where the system allows few open files."""
    if sys.platform == "win32":
        return limit
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    share = limit if soft == resource.RLIM_INFINITY else max(1, soft // _SHARE_OF_OPEN_FILES)
    return min(limit, share)


@contextlib.asynccontextmanager
async def stop_request() -> AsyncIterator[StopRequest]:
    """Listen for SIGINT and SIGTERM while the block runs; enter it before anything else.

    A request that comes before the block waits for one ends the block where it is, in order.
    """
    stop = StopRequest()
    loop = asyncio.get_running_loop()
    for signal_number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(signal_number, stop.make)
    try:
        yield stop
    except asyncio.CancelledError:
        if not stop.was_made:
            raise


class StopRequest:
    """Whether this process was asked to stop. Asked a second time, it ends at once."""

    def __init__(self) -> None:
        self._made = asyncio.Event()
        self._is_awaited = False
        self._task = asyncio.current_task()
        self._callbacks: list[Callable[[], None]] = []

    @property
    def was_made(self) -> bool:
        """Whether the process was asked."""
        return self._made.is_set()

    def call_when_made(self, callback: Callable[[], None]) -> None:
        """Call it at the moment of the request: what is to stop stops at the same time."""
        self._callbacks.append(callback)

    def ensure(self) -> None:
        """Ask this process to stop, unless it was asked already."""
        if not self.was_made:
            self.make()

    async def wait(self) -> None:
        """Return when the process is asked."""
        self._is_awaited = True
        await self._made.wait()

    def make(self) -> None:
        """Ask this process to stop."""
        if self.was_made:
            logger.error("stopped_at_once")
            os._exit(1)
        self._made.set()
        for callback in self._callbacks:
            callback()
        if not self._is_awaited and self._task is not None:
            self._task.cancel()


class _Server(uvicorn.Server):
    def __init__(
        self, limits: HttpLimits, tls: ssl.SSLContext | None, config: uvicorn.Config
    ) -> None:
        super().__init__(config)
        self._limits = dataclasses.replace(
            limits, max_connections=connections_allowed(limits.max_connections)
        )
        self._tls = tls
        self._clock = ConnectionClock(limits.check_interval_s)

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until asked to stop, with an eye on slow clients to the very end."""
        watching = asyncio.create_task(self._clock.run(self.server_state.connections))
        try:
            await super().serve(sockets)
        finally:
            watching.cancel()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen with our connections; uvicorn's own startup has no TLS time limits."""
        await self.lifespan.startup()
        loop = asyncio.get_running_loop()
        self.servers = [
            await loop.create_server(
                self._connect,
                sock=each,
                backlog=_BACKLOG,
                ssl=self._tls,
                ssl_handshake_timeout=TLS_HANDSHAKE_TIMEOUT_S if self._tls else None,
                ssl_shutdown_timeout=TLS_CLOSE_TIMEOUT_S if self._tls else None,
            )
            for each in sockets or []
        ]
        self.started = True

    def begin_exit(self) -> None:
        """Stop accepting, and end once requests under way are answered."""
        self.should_exit = True

    def _connect(self) -> BoundedConnection:
        return BoundedConnection(
            self.config,
            self.server_state,
            self.lifespan.state,
            clock=self._clock,
            limits=self._limits,
        )

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone.

        Several servers share this process, and one place decides when they stop.
        """
        yield
