"""`msgtrace-admin vacuum`: make the space of deleted rows usable, and give it back."""

from __future__ import annotations

import contextlib

import click
import msgspec

from msgtrace.cli.database import database_options, progress_bar, with_storage
from msgtrace.cli.options import SettingsSource
from msgtrace.cli.render import print_json
from msgtrace.cli.service_options import json_option
from msgtrace.cli.text import human_size
from msgtrace.storage.protocol import Storage


@click.command()
@click.option(
    "--full",
    is_flag=True,
    help="Rewrite everything: gives all space back, locks writers out, needs as much room again.",
)
@database_options
@json_option
def vacuum(source: SettingsSource, full: bool, as_json: bool) -> None:
    """Make the space of deleted rows usable again, and give it back where that is possible.

    Collectors may run meanwhile, but not with --full: senders would be told to retry. Ctrl-C leaves
    everything as it was or as it has become until then.
    """

    async def work(storage: Storage) -> tuple[int, int]:
        before = (await storage.get_status()).database_bytes
        await _run(storage, full)
        return before, (await storage.get_status()).database_bytes

    before, after = with_storage(source, work)
    if as_json:
        print_json(msgspec.json.encode({"bytes_before": before, "bytes_after": after}))
    else:
        click.echo(f"The database takes {human_size(after)}; before, it took {human_size(before)}.")


async def _run(storage: Storage, full: bool) -> None:
    async with contextlib.aclosing(storage.maintenance.vacuum(full=full)) as steps:
        first = await anext(steps)
        with progress_bar("Vacuum", first.total) as show:
            async for step in steps:
                show(step.done)
