"""`msgtrace-admin rebuild-summaries`: sum traces up anew from their stored spans.

Path: command line → [cli.rebuild] → storage.rebuild. Collectors go on meanwhile.
"""

from __future__ import annotations

import asyncio

import click

from msgtrace.cli.options import SettingsSource, settings_options
from msgtrace.cli.text import counted
from msgtrace.otlp.rules import read_rules
from msgtrace.settings.table import Settings
from msgtrace.storage.factory import open_storage
from msgtrace.storage.rebuild import rebuild_summaries


@click.command("rebuild-summaries")
@settings_options(
    only=("database_url", "database_password_file", "connect_timeout_s", "prices_file")
)
@click.option(
    "--all",
    "is_of_all",
    is_flag=True,
    help="Every trace, as after a change of prices; not only those that an older version of"
    " msgtrace has summed up.",
)
@click.option(
    "--restart",
    "restarts",
    is_flag=True,
    help="With --all: begin anew, do not go on where it was interrupted.",
)
def rebuild(source: SettingsSource, is_of_all: bool, restarts: bool) -> None:
    """Sum traces up anew: tokens, cost, models, sessions, and all else that lists show.

    With --all, the lists of services and operations are made anew as well.
    Collectors may go on. Interrupted at any moment, the same command goes on where it ended.
    """
    if restarts and not is_of_all:
        raise click.UsageError("--restart is for --all.")
    done = asyncio.run(_rebuild(source.read(), is_of_all=is_of_all, restarts=restarts))
    click.echo(f"Rebuilt {counted(done, 'trace')}." if done else "All traces are up to date.")


async def _rebuild(settings: Settings, *, is_of_all: bool, restarts: bool) -> int:
    """Return how many traces this run has rebuilt."""
    prices = read_rules(settings).prices
    async with open_storage(settings) as storage:
        rebuilding = rebuild_summaries(storage, prices, is_of_all=is_of_all, restarts=restarts)
        began = await anext(rebuilding)
        done = began.done
        if done:
            click.echo(f"Going on after {counted(done, 'trace')}.")
        with click.progressbar(length=began.total, label="Rebuilding") as bar:
            bar.update(done)
            async for progress in rebuilding:
                bar.update(progress.done - done)
                done = progress.done
        return done - began.done
