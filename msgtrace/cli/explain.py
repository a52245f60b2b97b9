"""`msgtrace settings`: every setting, its value and where the value came from."""

from __future__ import annotations

import dataclasses

import click
import msgspec

from msgtrace.cli.options import SettingsSource, settings_options
from msgtrace.cli.render import open_console, print_json, print_settings
from msgtrace.cli.service_options import json_option
from msgtrace.cli.text import clean
from msgtrace.settings.sources import unknown_variables


@click.command()
@settings_options()
@json_option
def settings(source: SettingsSource, as_json: bool) -> None:
    """Show every setting, its value and its source.

    Flags win over the environment, the environment over the file, the file over the default.
    """
    rows = source.explain()
    if as_json:
        print_json(msgspec.json.encode([dataclasses.asdict(row) for row in rows]))
    else:
        print_settings(open_console(), rows)
    for name, meant in unknown_variables().items():
        hint = f"; did you mean {meant}?" if meant else ""
        click.echo(f"Warning: nothing reads {clean(name)}{hint}", err=True)
