"""What both processes need to listen and to stop: sockets, uvicorn, signals."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import signal
import socket
from collections.abc import AsyncIterator, Iterator

import uvicorn
from starlette.types import ASGIApp

from msgtrace.errors import PortUnavailable

STOP_GRACE_S = 10
"""How long requests under way may take to finish once a stop was asked for."""

KEEP_ALIVE_S = 75
"""Longer than exporters' usual pause between batches, so that they keep their connection."""


@contextlib.asynccontextmanager
async def serve_asgi(app: ASGIApp, host: str, port: int, variable: str) -> AsyncIterator[int]:
    """Serve an application over HTTP/1.1; yields the port.

    On leaving, requests under way are answered first.
    variable: the setting that names the port, for the error. Raises PortUnavailable.
    """
    listener = _bind(host, port, variable)
    server = _Server(
        uvicorn.Config(
            app,
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=STOP_GRACE_S,
        )
    )
    serving = asyncio.create_task(server.serve(sockets=[listener]), name=f"serve-{variable}")
    try:
        while not server.started and not serving.done():  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.005)
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        await serving
        listener.close()


async def stop_requested() -> None:
    """Return when SIGINT or SIGTERM arrives."""
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for signal_number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(signal_number, stopped.set)
    await stopped.wait()


def require_bindable(host: str, port: int, variable: str) -> None:
    """Raise PortUnavailable, with the reason, if a server could not listen there.

    For gRPC, which gives no reason itself and writes a line of its own to standard error.
    """
    _bind(host, port, variable).close()


def port_in_use(host: str, port: int, variable: str) -> str:
    """The sentence for a port that cannot be bound."""
    return (
        f"port {port} on {host} is taken by another program;"
        f" stop it, or choose another port with {variable}"
    )


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone.

        Several servers share this process, and one place decides when they stop.
        """
        yield


def _bind(host: str, port: int, variable: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise PortUnavailable(port_in_use(host, port, variable)) from error
        raise PortUnavailable(
            f"cannot listen on {host}, port {port} ({variable}): {error.strerror or error}"
        ) from error
    return listener
