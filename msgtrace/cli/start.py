"""`msgtrace start`: collector and query service in one process, on one storage."""

from __future__ import annotations

import click

from msgtrace.collector import Collector, serve_collector
from msgtrace.query_service import serve_query
from msgtrace.receivers.http import SDK_PATH, STANDARD_PATH, export_routes
from msgtrace.serving import stop_requested
from msgtrace.settings import Settings, mask_password
from msgtrace.storage.factory import open_storage

_WELCOME = """\
msgtrace is ready
  OTLP/gRPC   http://{host}:{grpc_port}
  OTLP/HTTP   http://{host}:{http_port}
  Query API   http://{host}:{port}
  Traces in   {database_url}

Point any OpenTelemetry exporter at it:
  export OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf OTEL_EXPORTER_OTLP_ENDPOINT=http://{host}:{http_port}

Ctrl-C stops it.
"""

_ANY_ADDRESS = ("0.0.0.0", "::")


async def run_all(settings: Settings) -> None:
    """Serve everything until asked to stop.

    Exports are also taken on the query port, so that one port is enough for a client. Raises
    ConfigError if it cannot start.
    """
    async with open_storage(settings) as storage, serve_collector(settings, storage) as collector:
        routes = export_routes(collector.export, STANDARD_PATH, SDK_PATH)
        async with serve_query(settings, storage, routes) as port:
            click.echo(_welcome(settings, collector, port), err=True)
            await stop_requested()
            click.echo("stopping: finishing what was received", err=True)


def _welcome(settings: Settings, collector: Collector, port: int) -> str:
    host = "localhost" if settings.host in _ANY_ADDRESS else settings.host
    return _WELCOME.format(
        host=f"[{host}]" if ":" in host else host,
        grpc_port=collector.grpc_port,
        http_port=collector.http_port,
        port=port,
        database_url=mask_password(settings.database_url),
    )
