"""Binding a port, and what is said when that fails."""

from __future__ import annotations

import errno
import socket

from msgtrace.errors import PortUnavailable


def bind_port(host: str, port: int, variable: str, *, is_shared: bool = False) -> socket.socket:
    """A TCP socket bound to the port, not yet listening; 0 takes a free one.

    variable: the setting that names the port, for the error. is_shared: other sockets of this user
    that say so as well may be bound to it, and get their part of the connections.
    Raises PortUnavailable.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if is_shared:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        if error.errno == errno.EADDRINUSE:
            raise PortUnavailable(port_in_use(host, port, variable)) from error
        raise PortUnavailable(
            f"cannot listen on {host}, port {port} ({variable}): {error.strerror or error}"
        ) from error
    return bound


def require_bindable(host: str, port: int, variable: str) -> None:
    """Raise PortUnavailable, with the reason, if a server could not listen there by itself.

    For gRPC, which gives no reason itself and writes a line of its own to standard error.
    """
    bind_port(host, port, variable).close()


def port_in_use(host: str, port: int, variable: str) -> str:
    """The sentence for a port that cannot be bound."""
    return (
        f"port {port} on {host} is taken by another program;"
        f" stop it, or choose another port with {variable}"
    )
