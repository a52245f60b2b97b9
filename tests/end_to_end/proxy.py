"""A TCP proxy before a database, to cut or freeze the connection to it."""

from __future__ import annotations

import contextlib
import socket
import threading
import urllib.parse
from collections.abc import Iterator

CHUNK_BYTES = 64 * 1024


class DatabaseProxy:
    """Forwards a port of loopback to the server of a PostgreSQL URL; `url` leads through it."""

    def __init__(self, database_url: str) -> None:
        self._target = _address(database_url)
        self._flows = threading.Event()
        self._flows.set()
        self._listener: socket.socket | None = None
        self._sockets: list[socket.socket] = []
        self.port = 0
        self.restore()
        self.url = _through(database_url, self.port)

    def cut(self) -> None:
        """End all connections; new ones are refused."""
        assert self._listener is not None
        for each in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        self._listener = None
        self._sockets.clear()
        self._flows.set()

    def restore(self) -> None:
        """Take connections again, on the same port."""
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        listener.listen()
        self.port = listener.getsockname()[1]
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def freeze(self) -> None:
        """Pass nothing on, and say nothing about it."""
        self._flows.clear()

    def thaw(self) -> None:
        """Pass on what came meanwhile."""
        self._flows.set()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                family = socket.AF_UNIX if isinstance(self._target, str) else socket.AF_INET
                server = socket.socket(family)
                server.connect(self._target)
                self._sockets += [client, server]
                for ends in ((client, server), (server, client)):
                    threading.Thread(target=self._pump, args=ends, daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while chunk := source.recv(CHUNK_BYTES):
                self._flows.wait()
                sink.sendall(chunk)
            sink.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def database_proxy(database_url: str) -> Iterator[DatabaseProxy]:
    """A proxy that forwards, ended afterwards."""
    proxy = DatabaseProxy(database_url)
    try:
        yield proxy
    finally:
        if proxy._listener is not None:
            proxy.cut()


def _address(database_url: str) -> str | tuple[str, int]:
    """Where the server listens: the path of a Unix socket, or host and port."""
    parts = urllib.parse.urlsplit(database_url)
    query = dict(urllib.parse.parse_qsl(parts.query))
    host, port = parts.hostname or query.get("host", "127.0.0.1"), parts.port or 5432
    return f"{host}/.s.PGSQL.{port}" if host.startswith("/") else (host, port)


def _through(database_url: str, port: int) -> str:
    parts = urllib.parse.urlsplit(database_url)
    credentials, at, _ = parts.netloc.rpartition("@")
    query = [
        pair for pair in urllib.parse.parse_qsl(parts.query) if pair[0] not in ("host", "port")
    ]
    return parts._replace(
        netloc=f"{credentials}{at}127.0.0.1:{port}", query=urllib.parse.urlencode(query)
    ).geturl()
