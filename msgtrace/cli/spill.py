"""`msgtrace-admin spill`: requests that wait on local disk because the database was away.

Path: command line → [cli.spill] → storage.spill, pipeline.drain. A running collector drains its own
spill; these commands are for what a collector that is gone has left behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import msgspec
from rich.text import Text

from msgtrace.cli.options import SettingsSource, settings_options
from msgtrace.cli.render import open_console, plain_table, print_json
from msgtrace.cli.service_options import json_option
from msgtrace.cli.text import clean, counted, human_duration, human_size
from msgtrace.errors import StorageUnavailable
from msgtrace.model.units import NS_PER_S
from msgtrace.otlp.rules import RULE_SETTINGS, read_rules
from msgtrace.pipeline.batcher import HOLD_S, Batcher
from msgtrace.pipeline.dead_letters import DeadLetterKeeper
from msgtrace.pipeline.drain import GROUP_BYTES, drain_group
from msgtrace.settings.table import Settings
from msgtrace.storage.factory import open_storage
from msgtrace.storage.spill import Spill
from msgtrace.storage.spill_files import folder_of, is_in_use, spill_files, spill_folders
from msgtrace.storage.spill_table import open_for_reading, read_content, read_requests
from msgtrace.telemetry.collector_metrics import SpillMetrics

_SUFFIXES = {"protobuf": "binpb", "json": "json"}


class SpillRow(msgspec.Struct, frozen=True, kw_only=True):
    """One spill file. `oldest_age_s` is 0 if nothing waits."""

    file: str
    is_of_this_database: bool
    is_in_use: bool
    requests: int
    set_aside: int
    bytes: int
    oldest_age_s: float


@click.group()
def spill() -> None:
    """Look after requests that wait on local disk for the database."""


@spill.command("list")
@settings_options(only=("database_url", "database_password_file", "database_schema", "spill_dir"))
@json_option
def list_spills(source: SettingsSource, as_json: bool) -> None:
    """Show every spill file: of which database, whether in use, and what it holds."""
    settings = source.read()
    rows = spill_rows(settings)
    if as_json:
        print_json(msgspec.json.encode(rows))
    elif rows:
        _print(rows)
    else:
        click.echo(f"No spill in {clean(settings.spill_dir)}.")


@spill.command()
@settings_options(
    only=(
        "database_url",
        "database_password_file",
        "database_schema",
        "connect_timeout_s",
        "spill_dir",
        "max_dead_letter_bytes",
        *RULE_SETTINGS,
    )
)
@click.option(
    "--from",
    "folder",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder to drain; by default that of the database. `spill list` shows all.",
)
def drain(source: SettingsSource, folder: Path | None) -> None:
    """Store what ended collectors left behind in the database.

    Files that a collector has in use are left to it. Storing a request twice changes nothing. What
    the database refuses becomes a dead letter: `msgtrace-admin dead-letters list`.
    """
    settings = source.read()
    chosen = folder or folder_of(
        settings.spill_dir, settings.database_url, settings.database_schema
    )
    if not spill_files(chosen):
        click.echo(f"No spill in {clean(str(chosen))}.")
        return
    drained, set_aside = asyncio.run(_drain(settings, chosen))
    click.echo(f"Stored {counted(drained, 'request')}.")
    if set_aside:
        raise click.ClickException(
            f"{counted(set_aside, 'request')} cannot be stored;"
            " `msgtrace-admin spill export` writes them to files"
        )


@spill.command()
@settings_options(only=("spill_dir",))
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
def export(source: SettingsSource, folder: Path) -> None:
    """Write every request that waits to a file in FOLDER, as it came. Nothing is removed.

    An OTLP request a file: .binpb for protobuf, .json for JSON; any exporter's endpoint takes them.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    written = 0
    for spill_folder in spill_folders(source.read().spill_dir):
        for path in spill_files(spill_folder):
            written += _export_file(path, folder, f"{spill_folder.name}-{path.stem}")
    click.echo(f"Wrote {counted(written, 'request')} to {clean(str(folder))}.")


def spill_rows(settings: Settings) -> list[SpillRow]:
    """Every spill file below the settings' folder. Raises StorageUnavailable, OSError."""
    own = folder_of(settings.spill_dir, settings.database_url, settings.database_schema)
    now_ns = time.time_ns()
    rows = []
    for folder in spill_folders(settings.spill_dir):
        for path in spill_files(folder):
            with _reading(path) as connection:
                content = read_content(connection)
            rows.append(
                SpillRow(
                    file=str(path),
                    is_of_this_database=folder == own,
                    is_in_use=is_in_use(path),
                    requests=content.requests,
                    set_aside=content.set_aside,
                    bytes=content.payload_bytes,
                    oldest_age_s=round(content.age_s(now_ns), 1),
                )
            )
    return rows


def _print(rows: Sequence[SpillRow]) -> None:
    table = plain_table("File", "Database", "In use", ">Requests", ">Set aside", ">Size", ">Oldest")
    for row in rows:
        cells = [
            row.file,
            "this" if row.is_of_this_database else "another",
            "yes" if row.is_in_use else "no",
            f"{row.requests:,}",
            f"{row.set_aside:,}",
            human_size(row.bytes),
            human_duration(round(row.oldest_age_s * NS_PER_S)) if row.requests else "",
        ]
        table.add_row(*(Text(clean(cell)) for cell in cells))
    open_console().print(table)


async def _drain(settings: Settings, folder: Path) -> tuple[int, int]:
    """Return how many requests were stored, and how many could not be."""
    drained = 0
    rules = read_rules(settings)
    async with (
        open_storage(settings) as storage,
        Batcher(
            storage,
            max_batch_bytes=GROUP_BYTES,
            max_queued_bytes=sys.maxsize,
            hold_s=HOLD_S,
            keeper=DeadLetterKeeper(storage.dead_letters, max_bytes=settings.max_dead_letter_bytes),
        ) as batcher,
        Spill.open(folder, sys.maxsize) as left,
    ):
        with click.progressbar(length=left.content.requests, label="Draining") as progress:
            while left.content.requests:
                stored = await drain_group(left, batcher, SpillMetrics(), GROUP_BYTES, rules)
                drained += stored
                progress.update(stored)
        return drained, left.content.set_aside


def _export_file(path: Path, folder: Path, prefix: str) -> int:
    written = 0
    with _reading(path) as connection:
        for request in read_requests(connection):
            name = f"{prefix}-{request.id}.{_SUFFIXES.get(request.encoding, 'bin')}"
            handle = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(handle, "wb") as file:
                file.write(request.payload)
            written += 1
    return written


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
    try:
        with contextlib.closing(open_for_reading(path)) as connection:
            yield connection
    except sqlite3.Error as error:
        raise StorageUnavailable(f"{path} cannot be read: {error}") from error
