"""`msgtrace-admin`: maintenance that talks to the database, not to the query service.

Path: command line → [cli.admin] → storage.factory.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging

import click
import msgspec
from rich.text import Text

from msgtrace.cli.dead_letters import dead_letters
from msgtrace.cli.group import CONTEXT_SETTINGS, CommandGroup, version_option
from msgtrace.cli.options import SettingsSource, settings_options
from msgtrace.cli.render import open_console, print_facts, print_json
from msgtrace.cli.service_options import json_option
from msgtrace.cli.spill import spill
from msgtrace.cli.text import clean, human_size
from msgtrace.settings import Settings
from msgtrace.storage.factory import migrate_database, open_storage
from msgtrace.storage.protocol import StorageStatus

_database_options = settings_options(
    only=("database_url", "database_password_file", "connect_timeout_s")
)


@click.group("msgtrace-admin", cls=CommandGroup, context_settings=CONTEXT_SETTINGS)
@version_option
def main() -> None:
    """Look after the database of msgtrace."""
    # What these commands have to say they print; log lines would come between.
    logging.getLogger("msgtrace").addHandler(logging.NullHandler())


@main.command()
@_database_options
@json_option
def migrate(source: SettingsSource, as_json: bool) -> None:
    """Bring the database schema up to this version of msgtrace."""
    applied = asyncio.run(migrate_database(source.read()))
    if as_json:
        print_json(msgspec.json.encode({"applied": applied}))
        return
    for name in applied:
        click.echo(f"applied {clean(name)}")
    if not applied:
        click.echo("The schema is up to date.")


@main.command()
@_database_options
@json_option
def status(source: SettingsSource, as_json: bool) -> None:
    """Show what the database is, its schema version and how much it holds.

    Changes nothing, and refuses a database whose migrations are pending.
    """
    found = asyncio.run(_get_status(dataclasses.replace(source.read(), auto_migrate=False)))
    if as_json:
        print_json(msgspec.json.encode(dataclasses.asdict(found)))
    else:
        print_facts(open_console(), _facts(found))


for _command in (spill, dead_letters):
    main.add_command(_command)


async def _get_status(settings: Settings) -> StorageStatus:
    async with open_storage(settings) as storage:
        return await storage.get_status()


def _facts(found: StorageStatus) -> list[tuple[str, Text]]:
    facts = [
        ("Backend", found.backend),
        ("Server", found.server_version),
        ("URL", found.url),
        ("Schema", f"version {found.schema_version}"),
        ("Size", human_size(found.database_bytes)),
        ("Traces", f"{found.trace_count:,}"),
        ("Spans", f"{found.span_count:,}"),
    ]
    return [(name, Text(clean(value))) for name, value in facts]
