"""The ports that workers share, held by their supervisor as long as it runs.

Each worker binds its own sockets with SO_REUSEPORT. The supervisor's are bound and never listen:
no connection comes to them, but nobody else takes the port while all workers are away, a port 0
becomes a number, and a second supervisor is told that the port is taken.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator

from msgtrace.ports import bind_port, require_bindable
from msgtrace.settings.table import Settings, variable_name

_PORTS = {"collector": ("grpc_port", "http_port"), "start": ("grpc_port", "http_port", "port")}


@contextlib.contextmanager
def reserved_ports(service: str, settings: Settings) -> Iterator[Settings]:
    """The settings with the ports of the service, reserved meanwhile. Raises PortUnavailable."""
    with contextlib.ExitStack() as stack:
        for name in _PORTS[service]:
            variable = variable_name(name)
            port = getattr(settings, name)
            # Alone first: with SO_REUSEPORT, other workers of this user would be let in.
            require_bindable(settings.host, port, variable)
            reserved = bind_port(settings.host, port, variable, is_shared=True)
            stack.enter_context(reserved)
            settings = dataclasses.replace(settings, **{name: reserved.getsockname()[1]})
        yield settings
