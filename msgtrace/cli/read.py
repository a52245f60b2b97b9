"""`msgtrace list`, `show` and `stats`: ask the query service and show the answer.

Path: command line → [cli.read] → cli.client → api. `--json` prints the API's reply unchanged.
"""

from __future__ import annotations

import re
import shlex
import urllib.parse

import click
from rich.console import Console

from msgtrace.cli.client import READ_TIMEOUT_S, QueryService
from msgtrace.cli.filters import Parameters, filter_options, to_arguments
from msgtrace.cli.options import FIELDS
from msgtrace.cli.render import (
    describe_total,
    open_console,
    print_json,
    print_models,
    print_sentence,
    print_stats,
    print_traces,
)
from msgtrace.cli.replies import TraceList, TraceStats, TraceTree
from msgtrace.cli.service_options import service_options
from msgtrace.cli.text import clean
from msgtrace.cli.tree import MAX_CHILDREN_SHOWN, MAX_SPANS_SHOWN, print_tree
from msgtrace.model.search import DEFAULT_LIMIT, MAX_LIMIT

_TRACE_ID = re.compile(r"[0-9a-f]{32}")


@click.command("list")
@filter_options
@click.option(
    "--limit",
    type=click.IntRange(1, MAX_LIMIT),
    default=DEFAULT_LIMIT,
    show_default=True,
    help="Traces on one page.",
)
@click.option("--cursor", metavar="CURSOR", help="Go on where a page before ended.")
@service_options(timeout_s=READ_TIMEOUT_S)
@click.pass_context
def list_traces(
    ctx: click.Context,
    service: QueryService,
    as_json: bool,
    filters: Parameters,
    limit: int,
    cursor: str | None,
) -> None:
    """List traces, newest first.

    Filters must all hold; --service, --name and --attr for one and the same span.
    """
    page_parameters = [("limit", str(limit)), *([("cursor", cursor)] if cursor else [])]
    body = service.get("/api/v1/traces", filters + page_parameters)
    page = service.decode(body, TraceList)
    if as_json:
        print_json(body)
        return
    console = open_console()
    if not page.traces:
        print_sentence(console, _explain_nothing(service, bool(filters), bool(cursor)))
        return
    print_traces(console, page)
    _print_foot(console, page, _repeated_arguments(ctx, filters))


def _explain_nothing(service: QueryService, is_filtered: bool, is_later_page: bool) -> str:
    if is_later_page:
        return "No more traces."
    if is_filtered:
        return "No trace matches."
    host = urllib.parse.urlsplit(service.url).hostname
    return (
        "No traces yet. Send the first one: run an instrumented program with"
        f" OTEL_EXPORTER_OTLP_ENDPOINT=http://{host}:{FIELDS['http_port'].default}"
        " OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf."
    )


def _repeated_arguments(ctx: click.Context, filters: Parameters) -> list[str]:
    """What the command for the next page repeats of this one."""
    arguments = to_arguments(filters)
    for flag, name, default in (
        ("--limit", "limit", DEFAULT_LIMIT),
        ("--url", "url", None),
        ("--config", "config_file", None),
    ):
        if ctx.params[name] != default:
            arguments += [flag, str(ctx.params[name])]
    return arguments


def _print_foot(console: Console, page: TraceList, arguments: list[str]) -> None:
    total = describe_total(page)
    if page.next_cursor is None:
        print_sentence(console, total)
        return
    command = shlex.join(["msgtrace", "list", *arguments, "--cursor", page.next_cursor])
    # Not wrapped by us: a line that the terminal wraps is copied whole.
    console.print(f"{total}; next page: {clean(command, max_chars=8_000)}", soft_wrap=True)


def _read_trace_id(_: click.Context, __: click.Parameter, text: str) -> str:
    trace_id = text.strip().lower()
    if not _TRACE_ID.fullmatch(trace_id):
        raise click.BadParameter(f"{text!r} is not a trace id of 32 hexadecimal digits.")
    return trace_id


@click.command()
@click.argument("trace_id", callback=_read_trace_id)
@click.option(
    "--children",
    "max_children",
    type=click.IntRange(min=1),
    default=MAX_CHILDREN_SHOWN,
    show_default=True,
    help="Children of one span that are shown; the others are counted.",
)
@click.option(
    "--all",
    "shows_all",
    is_flag=True,
    help=f"Show every span, also if there are more than {MAX_SPANS_SHOWN:,}.",
)
@click.option(
    "--unfold", is_flag=True, help="Show also the spans that only wrap others, of agent frameworks."
)
@click.option(
    "--messages",
    "shows_messages",
    is_flag=True,
    help="Show what was said to models and tools, and what they answered.",
)
@service_options(timeout_s=READ_TIMEOUT_S)
def show(
    service: QueryService,
    as_json: bool,
    trace_id: str,
    shows_all: bool,
    unfold: bool,
    shows_messages: bool,
    max_children: int,
) -> None:
    """Show the spans of one trace as a tree over its time.

    Beside a span stand the tokens and the cost of it and of all beneath it; ~ marks an estimate.

    A span marked (orphan) names a parent that is not stored; (cycle) is where a ring of parents
    was cut open; (deep) stands nearer to the root than it was sent. --json prints the tree with
    all that the spans carry.
    """
    folding = [] if unfold or as_json else [("fold", "wrappers")]
    body = service.get(f"/api/v1/traces/{trace_id}/tree", folding)
    tree = service.decode(body, TraceTree)
    if as_json:
        print_json(body)
    else:
        print_tree(
            open_console(),
            tree,
            max_spans=None if shows_all else MAX_SPANS_SHOWN,
            max_children=None if shows_all else max_children,
            shows_messages=shows_messages,
        )


@click.command()
@filter_options
@service_options(timeout_s=READ_TIMEOUT_S)
def stats(service: QueryService, as_json: bool, filters: Parameters) -> None:
    """Sum up traces: counts, errors, durations, tokens and cost.

    Takes the filters of `msgtrace list`.
    """
    body = service.get("/api/v1/stats", filters)
    sums = service.decode(body, TraceStats)
    if as_json:
        print_json(body)
    else:
        console = open_console()
        print_stats(console, sums)
        if sums.by_model:
            console.print()
            print_models(console, sums.by_model)
