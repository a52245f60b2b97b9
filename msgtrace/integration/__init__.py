"""One line that shows a program's traces: for msgflux, and for plain OpenTelemetry.

Runs in the user's process and imports nothing of the rest of msgtrace: it sends OTLP/HTTP to a
msgtrace that runs as a process of its own. It needs OpenTelemetry's SDK and its OTLP/HTTP exporter,
which `pip install 'msgtrace[integration]'` brings. Importing it loads none of them.

What it promises to the program: nothing is raised into it but ValueError for a wrong argument, a
dead server does not slow it down, leaving it takes at most a few seconds, and `Observer.stop`
undoes everything. What goes wrong is a warning of the logger `msgtrace.integration`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from msgtrace.integration.observer import CaptureOptions, Observer, connect, start

__all__ = ["Observer", "configure_msgflux_telemetry", "quick_start", "start_observer"]

_DEFAULT_PORT = 4321


def quick_start(
    port: int | None = None,
    db_path: str | os.PathLike[str] | None = None,
    enable_state_dict: bool = False,
    enable_platform: bool = False,
    *,
    enable_tool_responses: bool = True,
    enable_agent_state: bool = False,
    service_name: str | None = None,
) -> Observer:
    """Record this program's spans in a msgtrace on this machine; returns when it takes them.

    A msgtrace that answers on `port` of loopback is used; else one is started as a child process,
    which ends with this one. Spans go to the tracer provider that is set; without one, a provider
    is set. Call it after your own `set_tracer_provider`, before or after importing msgflux.
    A second call returns the observer of the first one until that is stopped.

    port: by default MSGTRACE_PORT, as for `msgtrace start`, else 4321. 0 takes a free one.
    db_path: a SQLite file; by default the database of `msgtrace start`: MSGTRACE_DATABASE_URL, else
    a file in the user's data folder. Means nothing for a msgtrace that runs already.
    enable_platform: name the system and the Python version in the resource.
    enable_tool_responses, enable_agent_state: what msgflux records of its tools and agents.
    enable_state_dict is refused with a warning: msgflux cannot encode the state of an agent, and
    raises TypeError from each call.
    service_name: by default OTEL_SERVICE_NAME, MSGTRACE_SERVICE_NAME or the name of the script. It
    and enable_platform mean nothing where a provider is set.
    """
    options = CaptureOptions(
        state_dict=enable_state_dict,
        platform=enable_platform,
        tool_responses=enable_tool_responses,
        agent_state=enable_agent_state,
    )
    return start(_port(port), db_path, options=options, service_name=service_name)


def start_observer(
    port: int | None = None, db_path: str | os.PathLike[str] | None = None
) -> Observer:
    """Start or find a msgtrace on this machine, as quick_start does, and record nothing yet.

    Give the observer to `configure_msgflux_telemetry` to record.
    """
    return start(_port(port), db_path, options=None)


def configure_msgflux_telemetry(
    server: Observer | None = None,
    host: str = "localhost",
    port: int | None = None,
    enable_state_dict: bool = False,
    enable_platform: bool = False,
    enable_tool_responses: bool = True,
    enable_agent_state: bool = False,
    *,
    endpoint: str | None = None,
    headers: Mapping[str, str] | None = None,
    service_name: str | None = None,
) -> Observer:
    """Record this program's spans in a msgtrace that runs somewhere; starts no process.

    server: what `start_observer` returned; goes before host, port and endpoint.
    endpoint: a collector such as https://collector.example:4318, or the whole URL of its trace
    path; goes before host and port. Nothing is sent to find out whether it answers.
    headers: sent with each request, for a collector that asks who sends.
    The others are those of `quick_start`. Returns the observer to flush and stop.
    """
    options = CaptureOptions(
        state_dict=enable_state_dict,
        platform=enable_platform,
        tool_responses=enable_tool_responses,
        agent_state=enable_agent_state,
    )
    where = endpoint if endpoint is not None else f"http://{host}:{_port(port)}"
    return connect(server, where, headers, options=options, service_name=service_name)


def _port(given: int | None) -> int:
    if given is not None:
        return given
    named = os.environ.get("MSGTRACE_PORT", "")
    return int(named) if named.isdecimal() else _DEFAULT_PORT
