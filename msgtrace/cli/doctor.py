"""`msgtrace-admin doctor`: look at everything that may be wrong, and say what to do.

Path: command line → [cli.doctor] → cli.checks.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses

import click
import msgspec
from rich.console import Console
from rich.text import Text

from msgtrace.cli.checks import examine
from msgtrace.cli.options import SettingsSource, settings_options
from msgtrace.cli.render import ERROR_STYLE, QUIET_STYLE, open_console, print_json
from msgtrace.cli.service_options import json_option
from msgtrace.cli.text import clean, counted
from msgtrace.model.maintenance import Finding, Level
from msgtrace.settings.table import Settings

_STYLES = {Level.OK: "green", Level.WARNING: "yellow", Level.PROBLEM: ERROR_STYLE}
_LEVEL_CHARS = max(len(level.value) for level in Level)
_CHECK_CHARS = 18
_MAX_CHARS = 1_000


@click.command()
@settings_options(
    only=(
        "database_url",
        "database_password_file",
        "connect_timeout_s",
        "spill_dir",
        "max_spill_bytes",
        "max_dead_letter_bytes",
        "retention",
        "max_database_bytes",
        "retention_interval_s",
    )
)
@click.option(
    "--sample",
    type=click.IntRange(1, 100_000),
    default=200,
    show_default=True,
    help="How many summaries to compare with their spans.",
)
@json_option
def doctor(source: SettingsSource, sample: int, as_json: bool) -> None:
    """Look for what is wrong: settings, rights, clocks, indexes, partitions, summaries, room.

    Each finding says what to do. Changes nothing. Exit code 1 if there is a problem; warnings leave
    it 0.
    """
    settings = source.read()
    found = asyncio.run(_examine(settings, sample, shown=not as_json))
    problems, warnings = (
        sum(each.level is level for each in found) for level in (Level.PROBLEM, Level.WARNING)
    )
    if as_json:
        rows = [dataclasses.asdict(each) | {"level": each.level.value} for each in found]
        print_json(
            msgspec.json.encode({"problems": problems, "warnings": warnings, "findings": rows})
        )
    else:
        click.echo(f"{counted(problems, 'problem')}, {counted(warnings, 'warning')}.")
    if problems:
        raise click.exceptions.Exit(1)


async def _examine(settings: Settings, sampled_traces: int, *, shown: bool) -> list[Finding]:
    """All findings, each shown as it comes: some take a while."""
    found: list[Finding] = []
    console = open_console()
    async with contextlib.aclosing(examine(settings, sampled_traces)) as findings:
        async for finding in findings:
            found.append(finding)
            if shown:
                _print(console, finding)
    return found


def _print(console: Console, finding: Finding) -> None:
    line = Text.assemble(
        (finding.level.value.ljust(_LEVEL_CHARS), _STYLES[finding.level]),
        f"  {finding.check.ljust(_CHECK_CHARS)}  ",
        clean(finding.message, max_chars=_MAX_CHARS),
    )
    console.print(line, soft_wrap=True)
    if finding.cure:
        indent = " " * (_LEVEL_CHARS + _CHECK_CHARS + 4)
        console.print(Text(f"{indent}→ {clean(finding.cure, max_chars=_MAX_CHARS)}", QUIET_STYLE))
