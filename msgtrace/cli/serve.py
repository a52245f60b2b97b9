"""`msgtrace start`, `collector` and `query`: settings in, a running service until asked to stop.

Path: command line → [cli.serve] → cli.start, collector, query_service. What a service consists of
is written there; it returns normally on SIGTERM and SIGINT, so these commands then exit with 0.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from typing import Any, NoReturn

import click

from msgtrace.cli.options import SettingsSource, settings_options
from msgtrace.settings.sources import unknown_variables
from msgtrace.settings.table import Settings
from msgtrace.telemetry.logs import configure_logging

logger = logging.getLogger(__name__)


@click.command()
@settings_options()
@click.option(
    "--reload", "reloads", is_flag=True, help="Restart when the sources of msgtrace change."
)
@click.option(
    "--one-port",
    "on_one_port",
    is_flag=True,
    help="Take OTLP/HTTP on the query port, and open no other port.",
)
@click.option(
    "--until-stdin-closes",
    is_flag=True,
    help="Stop when standard input ends, because the program that holds it has ended.",
)
def start(
    source: SettingsSource, reloads: bool, on_one_port: bool, until_stdin_closes: bool
) -> None:
    """Run collector and query service in one process."""
    settings = source.read()
    if until_stdin_closes and (reloads or settings.workers > 1):
        raise click.UsageError(
            "--until-stdin-closes is for one process: no --reload, no --workers."
        )
    if on_one_port and settings.workers > 1:
        raise click.UsageError("--one-port is for one process: no --workers.")
    if reloads:
        flags = ["--one-port"] if on_one_port else []
        _supervise(["start", *flags, *source.arguments()])
        return
    _start_log(settings)
    if settings.workers > 1:
        _supervise_workers("start", settings)
    from msgtrace.cli.start import run_all  # noqa: PLC0415 - loads every server

    run_service(run_all(settings, on_one_port=on_one_port, until_stdin_closes=until_stdin_closes))


@click.command()
@settings_options(without=("port", "query_timeout_s", "cors_origins"))
def collector(source: SettingsSource) -> None:
    """Receive OTLP over gRPC and HTTP and store it."""
    settings = source.read()
    _start_log(settings)
    if settings.workers > 1:
        _supervise_workers("collector", settings)
    from msgtrace.collector import run_collector  # noqa: PLC0415 - loads grpc and the drivers

    run_service(run_collector(settings))


@click.command()
@settings_options(
    without=(
        "grpc_port",
        "http_port",
        "max_request_bytes",
        "max_queued_bytes",
        "max_batch_bytes",
        "max_dead_letter_bytes",
        "workers",
        "retention",
        "max_database_bytes",
        "retention_interval_s",
    )
)
def query(source: SettingsSource) -> None:
    """Serve stored traces to people, scripts and dashboards."""
    settings = source.read()
    _start_log(settings)
    from msgtrace.query_service import run_query_service  # noqa: PLC0415 - loads the web server

    run_service(run_query_service(settings))


def _start_log(settings: Settings) -> None:
    """Before grpc is imported, which then reads what is said about its own log."""
    configure_logging(settings)
    for variable, likely in unknown_variables().items():
        meant = {} if likely is None else {"did_you_mean": likely}
        logger.warning("unknown_variable", extra={"variable": variable, **meant})


def _supervise(arguments: Sequence[str]) -> None:
    try:
        from msgtrace.cli.reload import supervise  # noqa: PLC0415 - needs a development package
    except ImportError as error:
        raise click.ClickException(
            "--reload needs the package watchfiles: pip install 'msgtrace[dev]'"
        ) from error
    supervise(arguments)


def _supervise_workers(service: str, settings: Settings) -> NoReturn:
    from msgtrace.workers.supervisor import supervise  # noqa: PLC0415 - queries need none

    raise SystemExit(asyncio.run(supervise(service, settings)))


def run_service(service: Coroutine[Any, Any, None]) -> None:
    """Run on uvloop where it exists: it is not made for Windows."""
    from msgtrace.serving import raise_open_file_limit  # noqa: PLC0415 - loads the web server

    raise_open_file_limit()
    try:
        import uvloop  # noqa: PLC0415 - may be absent
    except ImportError:
        asyncio.run(service)
    else:
        uvloop.run(service)
