"""The options of every command that asks the query service: address, patience, JSON."""

from __future__ import annotations

import contextlib
import functools
import socket
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from msgtrace.cli.client import QueryService, service_url
from msgtrace.cli.options import Decorator, config_option
from msgtrace.settings.sources import read_settings
from msgtrace.settings.table import Settings

_CONNECT_TIMEOUT_S = 2.0

json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON, one document, for programs."
)


def service_options(*, timeout_s: float) -> Decorator:
    """Give a command `--url`, `--client-cert`, `--timeout`, `--json` and `--config`.

    It receives `service: QueryService` and `as_json: bool`. timeout_s: the default of `--timeout`.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def with_service(*args: Any, **kwargs: Any) -> None:
            given, config_file = kwargs.pop("url"), kwargs.pop("config_file")
            timeout_s, client_cert = kwargs.pop("timeout"), kwargs.pop("client_cert")
            with _service_at(given, config_file) as url:
                service = QueryService(url, timeout_s, client_cert)
                command(*args, service=service, **kwargs)

        decorated: Callable[..., None] = with_service
        wait_option = timeout_option(timeout_s)
        for option in (config_option, json_option, wait_option, cert_option, _url_option):
            decorated = option(decorated)
        return decorated

    return decorate


def read_url(_: click.Context, __: click.Parameter, text: str | None) -> str | None:
    """The URL without a trailing slash; `host:port` alone means http."""
    if text is None:
        return None
    url = text.rstrip("/") if "://" in text else f"http://{text.rstrip('/')}"
    if not _is_usable(url):
        raise click.BadParameter(f"{text!r} is not an address such as http://127.0.0.1:4321.")
    return url


def _is_usable(url: str) -> bool:
    try:
        parts = urllib.parse.urlsplit(url)
        has_plain_host = bool(parts.hostname) and parts.username is None
        has_valid_port = parts.port is None or parts.port >= 0
    except ValueError:
        return False
    is_base = not parts.query and not parts.fragment
    is_printable = url.isascii() and url.isprintable() and " " not in url
    return all(
        (parts.scheme in ("http", "https"), has_plain_host, has_valid_port, is_base, is_printable)
    )


@contextlib.contextmanager
def _service_at(given: str | None, config_file: Path | None) -> Iterator[str]:
    """The URL to ask: the given one, else that of the settings.

    Where nothing listens there, the database of the settings is served for this one command, if it
    is a file.
    """
    if given is not None:
        yield given
        return
    settings = read_settings(config_file=config_file)
    url = service_url(settings)
    if _may_listen(url) or not _has_local_database(settings):
        yield url
        return
    from msgtrace.cli.momentary import momentary_query_service  # noqa: PLC0415 - loads the web server

    with momentary_query_service(settings) as momentary_url:
        yield momentary_url


def _may_listen(url: str) -> bool:
    """False only where a connection is refused; of all else the command finds out and tells."""
    place = urllib.parse.urlsplit(url)
    try:
        socket.create_connection((place.hostname, place.port), _CONNECT_TIMEOUT_S).close()
    except OSError as error:
        return not isinstance(error, ConnectionRefusedError)
    return True


def _has_local_database(settings: Settings) -> bool:
    from msgtrace.storage.factory import has_local_database  # noqa: PLC0415 - few commands need storage

    return has_local_database(settings)


_url_option = click.option(
    "--url",
    metavar="URL",
    callback=read_url,
    help="Address of the query service; by default that of the settings, on this machine."
    " Where none runs, a SQLite file is read without one.",
)

cert_option = click.option(
    "--client-cert",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="PEM file with a certificate and its key, for a service that requires one.",
)


def timeout_option(default_s: float, help: str = "How long to wait for an answer.") -> Decorator:
    """`--timeout`, in seconds."""
    return click.option(
        "--timeout",
        type=click.FloatRange(min=0, min_open=True, max=86_400),
        default=default_s,
        show_default=True,
        metavar="SECONDS",
        help=help,
    )
