"""`msgtrace-admin purge`: delete what is older than an age, once and by hand.

Path: command line → [cli.purge] → maintenance.retention → storage. Without `--yes` nothing is
deleted. Interrupted, it leaves a consistent database, and the same command goes on.
"""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import click
import msgspec
from rich.text import Text

from msgtrace.cli.database import database_options, progress_bar, with_storage
from msgtrace.cli.options import SettingsSource
from msgtrace.cli.render import open_console, print_facts, print_json
from msgtrace.cli.service_options import json_option
from msgtrace.cli.text import clean, counted, human_size
from msgtrace.maintenance.retention import purge_all
from msgtrace.model.maintenance import Purged, PurgePlan
from msgtrace.model.units import parse_age_ns, parse_time_ns, rfc3339
from msgtrace.storage.protocol import Storage

SHOWN_PARTITIONS = 3


class EdgeType(click.ParamType[int]):
    """An age, or a time: what started before it is meant. Nanoseconds since the epoch."""

    name = "age"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """See click."""
        try:
            return time.time_ns() - parse_age_ns(value)
        except ValueError:
            pass
        try:
            if value.isdigit():  # nanoseconds, for parse_time_ns; more likely the unit is missing
                raise ValueError
            return parse_time_ns(value)
        except ValueError:
            self.fail(
                f"{value!r} is neither an age such as 36h, 30d or 8w"
                " nor a time such as 2026-03-01T00:00:00Z.",
                param,
                ctx,
            )


@click.command()
@click.argument("older_than", type=EdgeType())
@click.option("--yes", is_flag=True, help="Delete; without it only what would go is shown.")
@database_options
@json_option
def purge(source: SettingsSource, older_than: int, yes: bool, as_json: bool) -> None:
    """Delete spans that started more than OLDER_THAN ago: 36h, 30d, 8w, or before a time.

    A trace that has later spans too keeps these. PostgreSQL deletes whole days, so what is left may
    be a day older. Collectors may run meanwhile. Ctrl-C ends it between two small steps, and the
    same command goes on from there.
    """
    done = Purged()

    def add(step: Purged) -> None:
        nonlocal done
        done += step

    async def work(storage: Storage) -> PurgePlan:
        plan = await storage.maintenance.plan_purge(older_than)
        if yes:
            await _purge(storage, plan, add)
        return plan

    try:
        plan = with_storage(source, work)
    except KeyboardInterrupt:
        click.echo(f"\n{_done(done)} The same command goes on from here.", err=True)
        raise
    if as_json:
        print_json(msgspec.json.encode(_json(plan, done if yes else None)))
    elif yes:
        click.echo(_done(done))
    else:
        _show(plan)


async def _purge(storage: Storage, plan: PurgePlan, add: Any) -> None:
    async with storage.maintenance.purging() as purger:
        if purger is None:
            raise click.ClickException(
                "another process is purging this database now; try again in a moment"
            )
        with progress_bar("Purging", plan.traces) as show:
            reached = 0

            def step(purged: Purged) -> None:
                nonlocal reached
                reached += purged.traces + purged.shortened
                add(purged)
                show(reached)

            await purge_all(purger, plan.before_ns, step)
        await purger.give_back_space()


def _show(plan: PurgePlan) -> None:
    if not plan.traces and not plan.partitions:
        click.echo(f"Nothing started before {_utc(plan.before_ns)}.")
        return
    click.echo(f"Spans that started before {_utc(plan.before_ns)} would be deleted:")
    facts = [
        ("  Traces", f"{plan.traces:,}"),
        ("  Spans", f"about {plan.spans:,}"),
        ("  Space", f"about {human_size(plan.freed_bytes)}"),
    ]
    if plan.partitions:
        facts.append(("  Partitions", _partitions(plan)))
    print_facts(open_console(), [(name, Text(clean(value))) for name, value in facts])
    click.echo("Nothing was deleted; --yes deletes them.")


def _utc(time_ns: int) -> str:
    """To the second, e.g. 2026-03-01T12:00:00Z."""
    return f"{rfc3339(time_ns).partition('.')[0]}Z"


def _partitions(plan: PurgePlan) -> str:
    shown = ", ".join(plan.partitions[:SHOWN_PARTITIONS])
    more = len(plan.partitions) - SHOWN_PARTITIONS
    return f"{shown} and {more:,} more" if more > 0 else shown


def _done(purged: Purged) -> str:
    shortened = f", {counted(purged.shortened, 'trace')} shortened" if purged.shortened else ""
    return (
        f"Deleted {counted(purged.spans, 'span')} of {counted(purged.traces, 'trace')}{shortened}."
    )


def _json(plan: PurgePlan, done: Purged | None) -> dict[str, object]:
    deleted = None if done is None else dataclasses.asdict(done)
    return {"plan": dataclasses.asdict(plan), "deleted": deleted}
