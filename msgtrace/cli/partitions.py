"""`msgtrace-admin partitions`: the days that PostgreSQL keeps apart."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import click
import msgspec
from rich.text import Text

from msgtrace.cli.database import database_options, with_storage
from msgtrace.cli.options import SettingsSource
from msgtrace.cli.render import open_console, plain_table, print_json
from msgtrace.cli.service_options import json_option
from msgtrace.cli.text import clean, counted, human_size
from msgtrace.model.maintenance import Partition
from msgtrace.model.units import rfc3339
from msgtrace.storage.protocol import Storage

MOST_AHEAD = 366

_DATE_CHARS = len("2026-03-01")


@click.command()
@click.option(
    "--ahead",
    type=click.IntRange(0, MOST_AHEAD),
    help="First make those of today and so many days after it.",
)
@database_options
@json_option
def partitions(source: SettingsSource, ahead: int | None, as_json: bool) -> None:
    """Show the partitions of PostgreSQL: their days, about how many spans, and their size.

    A running collector makes those of the next days by itself.
    """

    async def work(storage: Storage) -> tuple[list[str], list[Partition]]:
        found = await storage.maintenance.list_partitions()  # refused by a database without them
        if ahead is None:
            return [], found
        made = await storage.maintenance.make_partitions(ahead)
        return made, await storage.maintenance.list_partitions()

    made, found = with_storage(source, work)
    if as_json:
        rows = [dataclasses.asdict(each) for each in found]
        print_json(msgspec.json.encode({"made": made, "partitions": rows}))
        return
    for name in made:
        click.echo(f"made {clean(name)}")
    _print(found)


def _print(found: Sequence[Partition]) -> None:
    table = plain_table("Partition", "Day", ">Spans", ">Size")
    for each in found:
        day = "all others" if each.first_ns is None else rfc3339(each.first_ns)[:_DATE_CHARS]
        cells = [each.name, day, f"{each.rows:,}", human_size(each.bytes)]
        table.add_row(*(Text(clean(cell)) for cell in cells))
    open_console().print(table)
    spans, size = sum(each.rows for each in found), sum(each.bytes for each in found)
    click.echo(
        f"{counted(len(found), 'partition')}, about {counted(spans, 'span')}, {human_size(size)}"
    )
