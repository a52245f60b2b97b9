"""`msgtrace start`: collector and query service in one process, on one storage."""

from __future__ import annotations

import logging

import click

from msgtrace.collector import Collector, open_collector_storage, serve_collector
from msgtrace.query_service import serve_query
from msgtrace.receivers.http import SDK_PATH, STANDARD_PATH, export_routes
from msgtrace.serving import stop_request
from msgtrace.settings import Settings, mask_password
from msgtrace.telemetry.logs import log_started
from msgtrace.telemetry.process import ProcessTelemetry
from msgtrace.tls import open_tls
from msgtrace.workers.member import Member, listening

logger = logging.getLogger(__name__)

_WELCOME = """\
msgtrace is ready
  OTLP/gRPC   {scheme}://{host}:{grpc_port}
  OTLP/HTTP   {scheme}://{host}:{http_port}
  Query API   {scheme}://{host}:{port}
  Traces in   {database_url}

Point any OpenTelemetry exporter at it:
  export OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf OTEL_EXPORTER_OTLP_ENDPOINT={scheme}://{host}:{http_port}

Ctrl-C stops it.
"""

_ANY_ADDRESS = ("0.0.0.0", "::")  # noqa: S104 - compared with, not listened on


async def run_all(settings: Settings, member: Member | None = None) -> None:
    """Serve everything until asked to stop.

    Exports are also taken on the query port, so that one port is enough for a client. Raises
    ConfigError if it cannot start.
    """
    async with stop_request() as stop, listening(member, stop.ensure):
        async with open_tls(settings) as tls, open_collector_storage(settings) as storage:
            telemetry = ProcessTelemetry(storage)
            async with serve_collector(
                settings, storage, telemetry, tls, stop, member
            ) as collector:
                routes = export_routes(collector.export, STANDARD_PATH, SDK_PATH)
                async with serve_query(
                    settings, storage, telemetry, tls, stop, routes, member
                ) as port:
                    _announce(settings, storage.backend, collector, port, member)
                    if member is not None:
                        member.say_serving()
                    await stop.wait()
                    logger.info("stopping")
        logger.info("stopped", extra=collector.totals())


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
    )
    if settings.log_format == "console" and (member is None or member.is_first):
        click.echo(_welcome(settings, collector, port), err=True)


def _welcome(settings: Settings, collector: Collector, port: int) -> str:
    host = "localhost" if settings.host in _ANY_ADDRESS else settings.host
    return _WELCOME.format(
        scheme="https" if settings.tls_cert_file else "http",
        host=f"[{host}]" if ":" in host else host,
        grpc_port=collector.grpc_port,
        http_port=collector.http_port,
        port=port,
        database_url=mask_password(settings.database_url),
    )
