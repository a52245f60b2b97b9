"""`msgtrace-admin`: maintenance that talks to the database, not to the query service.

Path: command line → [cli.admin] → storage.factory.
"""

from __future__ import annotations

import asyncio
import logging

import click
import msgspec

from msgtrace.cli.database import database_options
from msgtrace.cli.dead_letters import dead_letters
from msgtrace.cli.doctor import doctor
from msgtrace.cli.group import CONTEXT_SETTINGS, CommandGroup, version_option
from msgtrace.cli.options import SettingsSource
from msgtrace.cli.partitions import partitions
from msgtrace.cli.purge import purge
from msgtrace.cli.rebuild import rebuild
from msgtrace.cli.render import print_json
from msgtrace.cli.service_options import json_option
from msgtrace.cli.spill import spill
from msgtrace.cli.status import status
from msgtrace.cli.text import clean
from msgtrace.cli.vacuum import vacuum
from msgtrace.storage.factory import migrate_database


@click.group("msgtrace-admin", cls=CommandGroup, context_settings=CONTEXT_SETTINGS)
@version_option
def main() -> None:
    """Look after the database of msgtrace."""
    # What these commands have to say they print; log lines would come between.
    logging.getLogger("msgtrace").addHandler(logging.NullHandler())


@main.command()
@database_options
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


for _command in (status, doctor, purge, partitions, vacuum, spill, dead_letters, rebuild):
    main.add_command(_command)
