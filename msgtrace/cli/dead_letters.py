"""`msgtrace-admin dead-letters`: requests of which the database refused spans for their data.

Path: command line → [cli.dead_letters] → pipeline.replay, storage.dead_letters. Nothing that was in
a span is ever printed; `export` writes the requests to files.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import click
import msgspec

from msgtrace.cli.clear import can_ask
from msgtrace.cli.database import DATABASE_FIELDS, database_options, with_storage
from msgtrace.cli.letter_views import letter_json, print_letter, print_letters, print_replayed
from msgtrace.cli.options import SettingsSource, settings_options
from msgtrace.cli.render import print_json
from msgtrace.cli.service_options import json_option
from msgtrace.cli.text import clean, counted, human_size
from msgtrace.model.dead_letter import (
    LETTER_ID_BYTES,
    DeadLetter,
    DeadLetterSummary,
    DeadLetterTotals,
    LetterId,
)
from msgtrace.model.span import DEFAULT_TENANT
from msgtrace.otlp.rules import RULE_SETTINGS, read_rules
from msgtrace.pipeline.replay import Replayed, replay_letter
from msgtrace.storage.protocol import DeadLetterStore, Storage

PAGE_LETTERS = 1_000

_SUFFIXES = {"protobuf": "binpb", "json": "json"}


class _LetterIdType(click.ParamType[LetterId]):
    name = "id"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> LetterId:
        try:
            letter_id = bytes.fromhex(value)
        except ValueError:
            letter_id = b""
        if len(letter_id) != LETTER_ID_BYTES:
            digits = 2 * LETTER_ID_BYTES
            self.fail(f"{value!r} is no id of {digits} hex digits; `list` shows them.", param, ctx)
        return LetterId(letter_id)


_replay_options = settings_options(only=(*DATABASE_FIELDS, *RULE_SETTINGS))
_ids_argument = click.argument("ids", metavar="[ID]...", type=_LetterIdType(), nargs=-1)
_all_option = click.option("--all", "is_all", is_flag=True, help="Every dead letter.")


@click.group("dead-letters")
def dead_letters() -> None:
    """Look after spans that the database refused for their data.

    A dead letter is the request that they came in; its other spans are stored.
    """


@dead_letters.command("list")
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    help="How many to show, the newest first.",
)
@database_options
@json_option
def list_letters(source: SettingsSource, limit: int, as_json: bool) -> None:
    """Show the dead letters, newest first."""

    async def work(storage: Storage) -> tuple[list[DeadLetterSummary], DeadLetterTotals]:
        return await _newest(storage.dead_letters, limit), await storage.dead_letters.sum()

    found, totals = with_storage(source, work)
    if as_json:
        rows = [letter_json(each) for each in found]
        print_json(msgspec.json.encode({"dead_letters": rows} | dataclasses.asdict(totals)))
    elif found:
        print_letters(found)
        shown = f"{len(found):,} of {counted(totals.letter_count, 'dead letter')}"
        click.echo(f"{shown}, {human_size(totals.kept_bytes)} in all")
    else:
        click.echo("No dead letters.")


@dead_letters.command()
@click.argument("letter_id", metavar="ID", type=_LetterIdType())
@database_options
@json_option
def show(source: SettingsSource, letter_id: LetterId, as_json: bool) -> None:
    """Show one dead letter: why, when, and the ids of the spans that were refused."""
    letter = with_storage(source, lambda storage: _get(storage.dead_letters, letter_id))
    if as_json:
        spans = [
            {"trace_id": trace_id.hex(), "span_id": span_id.hex()}
            for trace_id, span_id in letter.spans
        ]
        print_json(msgspec.json.encode(letter_json(letter.summary) | {"spans": spans}))
        return
    print_letter(letter)


@dead_letters.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@_ids_argument
@database_options
def export(source: SettingsSource, folder: Path, ids: Sequence[LetterId]) -> None:
    """Write the requests to FOLDER as they were sent, each to a file; without IDs, all of them.

    Named after the letter: .binpb for protobuf, .json for JSON. Only you can read them. Nothing is
    deleted.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    async def work(storage: Storage) -> int:
        written = 0
        async for letter in _chosen(storage.dead_letters, ids or None):
            await asyncio.to_thread(_write_file, folder, letter)
            written += 1
        return written

    written = with_storage(source, work)
    click.echo(f"Wrote {counted(written, 'request')} to {clean(str(folder))}.")


@dead_letters.command()
@_ids_argument
@_all_option
@_replay_options
@json_option
def replay(source: SettingsSource, ids: Sequence[LetterId], is_all: bool, as_json: bool) -> None:
    """Store the refused spans again, once the cause is mended.

    A letter whose spans are all stored is deleted. What is refused again is kept, with the new
    reason, and makes the exit code 1.
    """
    wanted = _require_choice(ids, is_all)
    rules = read_rules(source.read())

    async def work(storage: Storage) -> list[tuple[LetterId, Replayed]]:
        letters = _chosen(storage.dead_letters, wanted)
        return [
            (each.letter_id, await replay_letter(storage, each, rules)) async for each in letters
        ]

    outcomes = with_storage(source, work)
    if as_json:
        rows = [{"id": each.hex()} | dataclasses.asdict(said) for each, said in outcomes]
        print_json(msgspec.json.encode({"replayed": rows}))
    else:
        print_replayed(outcomes)
    if kept := sum(bool(said.refused_spans) for _, said in outcomes):
        raise click.ClickException(f"{counted(kept, 'dead letter')} refused again, and kept")


@dead_letters.command()
@_ids_argument
@_all_option
@click.option("--yes", is_flag=True, help="Delete without asking.")
@database_options
def delete(source: SettingsSource, ids: Sequence[LetterId], is_all: bool, yes: bool) -> None:
    """Give the refused spans up for good. `export` writes them to files first."""
    wanted = _require_choice(ids, is_all)

    async def work(storage: Storage) -> int | None:
        chosen = wanted or [each async for each in _all_ids(storage.dead_letters)]
        if not yes and chosen and not _is_agreed(len(chosen)):
            return None
        return sum([await storage.dead_letters.delete(DEFAULT_TENANT, each) for each in chosen])

    deleted = with_storage(source, work)
    if deleted is None:
        click.echo("Nothing deleted.", err=True)
        raise click.exceptions.Exit(1)
    click.echo(f"Deleted {counted(deleted, 'dead letter')}.")


def _require_choice(ids: Sequence[LetterId], is_all: bool) -> Sequence[LetterId] | None:
    """The chosen ids, None for all."""
    if bool(ids) == is_all:
        raise click.UsageError("Give the ids of dead letters, or --all.")
    return ids or None


def _is_agreed(count: int) -> bool:
    if not can_ask():
        raise click.ClickException("delete asks before it deletes; without a terminal give --yes")
    return click.confirm(f"Delete {counted(count, 'dead letter')} for good?", err=True)


async def _newest(store: DeadLetterStore, limit: int) -> list[DeadLetterSummary]:
    """Of any number, page by page."""
    found: list[DeadLetterSummary] = []
    while len(found) < limit:
        page = await store.list(
            DEFAULT_TENANT,
            limit=min(limit - len(found), PAGE_LETTERS),
            after=found[-1].place if found else None,
        )
        found += page
        if not page:
            break
    return found


async def _all_ids(store: DeadLetterStore) -> AsyncIterator[LetterId]:
    """Newest first. Letters may be deleted meanwhile; those kept meanwhile are left out."""
    after = None
    while page := await store.list(DEFAULT_TENANT, limit=PAGE_LETTERS, after=after):
        for summary in page:
            yield summary.letter_id
        after = page[-1].place


async def _chosen(
    store: DeadLetterStore, ids: Sequence[LetterId] | None
) -> AsyncIterator[DeadLetter]:
    """The letters with these ids, which must exist, or all that there are."""
    if ids is not None:
        for letter_id in ids:
            yield await _get(store, letter_id)
        return
    async for letter_id in _all_ids(store):
        letter = await store.get(DEFAULT_TENANT, letter_id)
        if letter is not None:  # else somebody has deleted it since
            yield letter


async def _get(store: DeadLetterStore, letter_id: LetterId) -> DeadLetter:
    letter = await store.get(DEFAULT_TENANT, letter_id)
    if letter is None:
        raise click.ClickException(f"no dead letter has the id {letter_id.hex()}")
    return letter


def _write_file(folder: Path, letter: DeadLetter) -> None:
    """Whole or not at all, and never through a link that somebody has put there."""
    path = folder / f"{letter.letter_id.hex()}.{_SUFFIXES.get(letter.encoding, 'bin')}"
    part = path.with_name(f"{path.name}.part")
    part.unlink(missing_ok=True)
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(letter.payload)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise click.ClickException(f"cannot write {path}: {error.strerror}") from error
