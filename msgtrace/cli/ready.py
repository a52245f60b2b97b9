"""`msgtrace ready`: whether what runs on this machine can do its work, for health checks.

Path: command line → [cli.ready] → /ready of the OTLP/HTTP port and of the query port. A port that
nobody listens on belongs to a service that runs elsewhere; at least one must answer.
Not here: why a service is not ready. It says so itself.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import ssl
from pathlib import Path

import click

from msgtrace.cli.client import local_host
from msgtrace.cli.options import config_option
from msgtrace.cli.text import clean
from msgtrace.settings.sources import read_settings
from msgtrace.settings.table import Settings

MAX_REPLY_BYTES = 64 * 1024


@click.command()
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0, min_open=True, max=60),
    default=3.0,
    show_default=True,
    metavar="SECONDS",
    help="How long each service may take to answer.",
)
@config_option
def ready(timeout_s: float, config_file: Path | None) -> None:
    """Exit with 0 if the services on this machine are ready, else with 1 and the reasons.

    Asks the ports of the settings; made for health checks of containers. Where clients must show a
    certificate, it shows the service's own.
    """
    settings = read_settings(config_file=config_file)
    asked = (("collector", settings.http_port), ("query service", settings.port))
    found = {name: _problem(settings, port, timeout_s) for name, port in asked}
    running = {name: problem for name, problem in found.items() if problem is not None}
    if not running:
        ports = " or ".join(str(port) for _, port in asked)
        raise click.ClickException(f"nothing listens on port {ports}")
    problems = [f"{name}: {problem}" for name, problem in running.items() if problem]
    if problems:
        raise click.ClickException(clean("; ".join(problems), max_chars=2_000))
    click.echo(f"ready: {', '.join(running)}")


def _problem(settings: Settings, port: int, timeout_s: float) -> str | None:
    """Why the service on the port is not ready; "" if it is, None if nobody listens."""
    try:
        with contextlib.closing(_connection(settings, port, timeout_s)) as connection:
            connection.request("GET", "/ready")
            response = connection.getresponse()
            body = response.read(MAX_REPLY_BYTES)
    except ConnectionRefusedError:
        return None
    except (OSError, http.client.HTTPException) as error:
        return f"no answer ({str(error) or type(error).__name__})"
    return "" if response.status == http.client.OK else _reasons(response.status, body)


def _connection(settings: Settings, port: int, timeout_s: float) -> http.client.HTTPConnection:
    host = local_host(settings)
    if not settings.tls_cert_file:
        return http.client.HTTPConnection(host, port, timeout=timeout_s)
    # The certificate is for the name that clients use. Nothing secret is sent to this machine.
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if settings.tls_client_ca_file:
        context.load_cert_chain(settings.tls_cert_file, settings.tls_key_file)
    return http.client.HTTPSConnection(host, port, timeout=timeout_s, context=context)


def _reasons(status: int, body: bytes) -> str:
    try:
        return ", ".join(json.loads(body)["reasons"])
    except (ValueError, KeyError, TypeError):
        return f"status {status}"
