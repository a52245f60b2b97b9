"""`msgtrace start`: collector and query service in one process, on one storage."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading

import click

from msgtrace.collector import Collector, open_collector_storage, serve_collector
from msgtrace.query_service import serve_query
from msgtrace.receivers.http import SDK_PATH, STANDARD_PATH, export_routes
from msgtrace.serving import StopRequest, stop_request
from msgtrace.settings.passwords import mask_password
from msgtrace.settings.table import Settings
from msgtrace.telemetry.logs import log_started
from msgtrace.telemetry.process import ProcessTelemetry
from msgtrace.tls import open_tls
from msgtrace.workers.member import Member, listening

logger = logging.getLogger(__name__)

_WELCOME = """\
msgtrace is ready
{ports}  Query API   {base}:{port}
  Traces in   {database_url}

Point any OpenTelemetry exporter at it:
  export OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf OTEL_EXPORTER_OTLP_ENDPOINT={base}:{otlp_port}

Ctrl-C stops it.
"""

_ANY_ADDRESS = ("0.0.0.0", "::")  # noqa: S104 - compared with, not listened on


async def run_all(
    settings: Settings,
    member: Member | None = None,
    *,
    on_one_port: bool = False,
    until_stdin_closes: bool = False,
) -> None:
    """Serve everything until asked to stop.

    Exports are also taken on the query port, so that one port is enough for a client.
    on_one_port: open no other.
    until_stdin_closes: the end of standard input asks to stop, too: whoever holds its other end has
    ended, in whatever way. Raises ConfigError if it cannot start.
    """
    async with stop_request() as stop, listening(member, stop.ensure):
        if until_stdin_closes:
            _stop_when_stdin_closes(stop)
        async with open_tls(settings) as tls, open_collector_storage(settings) as storage:
            telemetry = ProcessTelemetry(storage)
            async with serve_collector(
                settings, storage, telemetry, tls, stop, member, opens_ports=not on_one_port
            ) as collector:
                routes = export_routes(collector.export, STANDARD_PATH, SDK_PATH)
                async with serve_query(
                    settings,
                    storage,
                    telemetry,
                    tls,
                    stop,
                    routes,
                    member,
                    lambda: {"ends_with_parent": True} if until_stdin_closes else {},
                ) as port:
                    _announce(settings, storage.backend, collector, port, member)
                    if member is not None:
                        member.say_serving()
                    await stop.wait()
                    logger.info("stopping")
        logger.info("stopped", extra=collector.totals())


def _stop_when_stdin_closes(stop: StopRequest) -> None:
    """Wait in a thread of its own: no event loop of every system can wait for a pipe."""
    loop = asyncio.get_running_loop()

    def wait() -> None:
        with contextlib.suppress(OSError):
            while os.read(0, 4096):
                pass
        with contextlib.suppress(RuntimeError):  # the loop has ended before
            loop.call_soon_threadsafe(stop.ensure)

    threading.Thread(target=wait, name="parent", daemon=True).start()


def _announce(
    settings: Settings, database: str, collector: Collector, port: int, member: Member | None
) -> None:
    log_started(
        settings,
        "start",
        database,
        grpc_port=collector.grpc_port,
        http_port=collector.http_port,
        port=port,
        decoder=collector.decoder,
    )
    if settings.log_format == "console" and (member is None or member.is_first):
        click.echo(_welcome(settings, collector, port), err=True)


def _welcome(settings: Settings, collector: Collector, port: int) -> str:
    host = "localhost" if settings.host in _ANY_ADDRESS else settings.host
    scheme = "https" if settings.tls_cert_file else "http"
    base = f"{scheme}://[{host}]" if ":" in host else f"{scheme}://{host}"
    own_ports = {"OTLP/gRPC": collector.grpc_port, "OTLP/HTTP": collector.http_port}
    return _WELCOME.format(
        base=base,
        ports="".join(
            f"  {name}   {base}:{own}\n" for name, own in own_ports.items() if own is not None
        ),
        otlp_port=port if collector.http_port is None else collector.http_port,
        port=port,
        database_url=mask_password(settings.database_url),
    )
