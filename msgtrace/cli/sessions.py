"""`msgtrace sessions`: conversations, and the traces of one.

Path: command line → [cli.sessions] → cli.client → api.
"""

from __future__ import annotations

import shlex
import urllib.parse
from collections.abc import Sequence

import click
from rich.console import Console
from rich.text import Text

from msgtrace.cli.client import READ_TIMEOUT_S, QueryService
from msgtrace.cli.filters import Parameters, read_age
from msgtrace.cli.render import (
    COST_STYLE,
    ERROR_STYLE,
    MODEL_STYLE,
    QUIET_STYLE,
    WORKFLOW_STYLE,
    describe_cost,
    describe_tokens,
    open_console,
    plain_table,
    print_facts,
    print_json,
    print_line,
    print_sentence,
    print_trace_rows,
)
from msgtrace.cli.replies import SessionDetail, SessionList, SessionSummary
from msgtrace.cli.service_options import service_options
from msgtrace.cli.text import (
    clean,
    counted,
    exact_local_time,
    human_cost,
    human_duration,
    human_tokens,
    local_time,
)
from msgtrace.model.search import DEFAULT_LIMIT, MAX_LIMIT

TABLE_MIN_WIDTH = 130


@click.command()
@click.argument("session_id", metavar="[SESSION]", required=False)
@click.option("--user", "user_id", help="Sessions with a trace of this user.")
@click.option(
    "--since",
    metavar="AGE",
    callback=read_age,
    help="Whose newest trace started within the last AGE: 15m, 2h, 7d.",
)
@click.option(
    "--limit",
    type=click.IntRange(1, MAX_LIMIT),
    default=DEFAULT_LIMIT,
    show_default=True,
    help="Sessions, or traces of the one, on one page.",
)
@click.option("--cursor", metavar="CURSOR", help="Go on where a page before ended.")
@service_options(timeout_s=READ_TIMEOUT_S)
def sessions(
    service: QueryService,
    as_json: bool,
    session_id: str | None,
    user_id: str | None,
    since: str | None,
    limit: int,
    cursor: str | None,
) -> None:
    """List sessions, the one with the newest trace first; or show the traces of one SESSION."""
    page: Parameters = [("limit", str(limit)), *([("cursor", cursor)] if cursor else [])]
    if session_id is not None:
        if user_id or since:
            raise click.UsageError("--user and --since are for the list of sessions.")
        _show(service, as_json, session_id, page)
        return
    filters = [(name, value) for name, value in (("user_id", user_id), ("start", since)) if value]
    body = service.get("/api/v1/sessions", filters + page)
    found = service.decode(body, SessionList)
    if as_json:
        print_json(body)
        return
    console = open_console()
    if not found.sessions:
        print_sentence(console, "No more sessions." if cursor else "No sessions.")
        return
    _print_sessions(console, found.sessions)
    _print_next(console, counted(len(found.sessions), "session"), [], found.next_cursor)


def _show(service: QueryService, as_json: bool, session_id: str, page: Parameters) -> None:
    body = service.get(f"/api/v1/sessions/{urllib.parse.quote(session_id, safe='')}", page)
    found = service.decode(body, SessionDetail)
    if as_json:
        print_json(body)
        return
    console = open_console()
    facts = [
        ("Session", Text(clean(found.session_id))),
        ("User", Text(clean(found.user_id or ""))),
        ("Start", Text(exact_local_time(found.start_time_unix_nano))),
        ("Duration", Text(human_duration(found.duration_ns))),
        ("Errors", Text(f"{found.error_count:,}", style=ERROR_STYLE if found.error_count else "")),
        ("Models", Text(clean(", ".join(found.models)), style=MODEL_STYLE)),
        ("Tokens", Text(describe_tokens(found))),
        ("Cost", Text(describe_cost(found), style=COST_STYLE)),
    ]
    print_facts(console, [(name, text) for name, text in facts if text.plain])
    console.print()
    print_trace_rows(console, found.traces)
    shown = f"{len(found.traces):,} of {counted(found.trace_count, 'trace')}"
    _print_next(console, shown, [session_id], found.next_cursor)


def _print_next(
    console: Console, shown: str, arguments: Sequence[str], next_cursor: str | None
) -> None:
    if next_cursor is None:
        print_sentence(console, shown)
        return
    command = shlex.join(["msgtrace", "sessions", *arguments, "--cursor", next_cursor])
    console.print(f"{shown}; next page: {clean(command, max_chars=8_000)}", soft_wrap=True)


def _print_sessions(console: Console, found: Sequence[SessionSummary]) -> None:
    if console.width < TABLE_MIN_WIDTH:
        for session in found:
            print_line(console, _figures_line(session))
            print_line(console, _names_line(session))
        return
    table = plain_table(
        "Newest trace",
        "Session",
        "User",
        "Workflow",
        ">Traces",
        ">Errors",
        ">Duration",
        "Models",
        ">Tokens in/out",
        ">Cost",
    )
    for session in found:
        table.add_row(*_cells(session))
    console.print(table)


def _cells(session: SessionSummary) -> list[Text]:
    return [
        Text(local_time(session.newest_start_time_unix_nano), style=QUIET_STYLE),
        Text(clean(session.session_id), style="bold"),
        Text(clean(session.user_id or "")),
        Text(clean(session.workflow_name or ""), style=WORKFLOW_STYLE),
        Text(f"{session.trace_count:,}"),
        _errors(session),
        Text(human_duration(session.duration_ns)),
        Text(
            clean(", ".join(session.models)), style=MODEL_STYLE, no_wrap=True, overflow="ellipsis"
        ),
        Text(human_tokens(session.input_tokens, session.output_tokens)),
        Text(human_cost(session.cost, session.estimated_cost), style=COST_STYLE),
    ]


def _errors(session: SessionSummary) -> Text:
    return Text(
        f"{session.error_count:,}", style=ERROR_STYLE if session.error_count else QUIET_STYLE
    )


def _figures_line(session: SessionSummary) -> Text:
    newest, name, *_ = _cells(session)
    line = Text.assemble(newest, "  ", name, f"  {counted(session.trace_count, 'trace')}")
    if session.error_count:
        line.append(f"  {counted(session.error_count, 'error')}", style=ERROR_STYLE)
    line.append(f"  {human_duration(session.duration_ns)}", style=QUIET_STYLE)
    return line


def _names_line(session: SessionSummary) -> Text:
    _, _, user, workflow, _, _, _, models, tokens, cost = _cells(session)
    tokens.append(" tokens" if tokens.plain else "")
    cells = [cell for cell in (tokens, cost, user, workflow, models) if cell.plain]
    return Text.assemble("  ", Text("  ").join(cells))
