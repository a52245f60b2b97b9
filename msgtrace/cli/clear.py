"""`msgtrace clear`: delete traces through the query service, after a person said yes.

Path: command line → [cli.clear] → cli.client → api. Without `--yes` nothing is deleted unless
somebody at a terminal has seen the count and agreed.
"""

from __future__ import annotations

import sys

import click

from msgtrace.cli.client import DELETE_TIMEOUT_S, QueryService
from msgtrace.cli.filters import Parameters, filter_options
from msgtrace.cli.render import print_json
from msgtrace.cli.replies import Deleted, TraceList
from msgtrace.cli.service_options import service_options
from msgtrace.cli.text import counted


@click.command()
@filter_options
@click.option("--yes", is_flag=True, help="Delete without asking.")
@service_options(timeout_s=DELETE_TIMEOUT_S)
@click.pass_context
def clear(
    ctx: click.Context, service: QueryService, as_json: bool, filters: Parameters, yes: bool
) -> None:
    """Delete traces: all, or those that match the filters.

    Takes the filters of `msgtrace list`. Shows the count and asks before it deletes.
    """
    body = _delete(service, filters) if yes else _ask_and_delete(service, filters)
    if body is None:
        click.echo("Nothing deleted.", err=True)
        ctx.exit(1)
    deleted = service.decode(body, Deleted).deleted
    if as_json:
        print_json(body)
    else:
        click.echo(f"Deleted {counted(deleted, 'trace')}.")


def can_ask() -> bool:
    """Whether somebody is there to answer a question."""
    return sys.stdin.isatty()


def _delete(service: QueryService, filters: Parameters) -> bytes:
    return service.delete("/api/v1/traces", filters or [("all", "true")])


def _ask_and_delete(service: QueryService, filters: Parameters) -> bytes | None:
    """The reply of the service, None if the answer was no."""
    if not can_ask():
        raise click.ClickException("clear asks before it deletes; without a terminal give --yes")
    body = service.get("/api/v1/traces", [*filters, ("limit", "1")])
    page = service.decode(body, TraceList)
    if page.total == 0:
        return b'{"deleted":0}'
    at_least = "" if page.total_is_exact else "more than "
    noun = "matching trace" if filters else "trace"
    question = f"Delete {at_least}{counted(page.total, noun)} at {service.url}?"
    return _delete(service, filters) if click.confirm(question, err=True) else None
