"""What commands share that open the database: its flags, its schema, the progress of long work.

Path: command line → [cli.database] → storage.factory.
"""

from __future__ import annotations

import asyncio
import dataclasses
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import click

from msgtrace.cli.options import SettingsSource, settings_options
from msgtrace.storage.factory import open_storage
from msgtrace.storage.protocol import Storage

T = TypeVar("T")

DATABASE_FIELDS = ("database_url", "database_password_file", "database_schema", "connect_timeout_s")

database_options = settings_options(only=DATABASE_FIELDS)


def with_storage(source: SettingsSource, work: Callable[[Storage], Awaitable[T]]) -> T:
    """Do `work` on the database, which must have the schema of this program."""

    async def run() -> T:
        settings = dataclasses.replace(source.read(), auto_migrate=False)
        async with open_storage(settings) as storage:
            return await work(storage)

    return asyncio.run(run())


@contextmanager
def progress_bar(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, nothing elsewhere; yields what takes how far it is, of `total`."""
    done = 0
    with click.progressbar(
        length=max(total, 1), label=label, file=sys.stderr, hidden=not sys.stderr.isatty()
    ) as bar:

        def show(reached: int) -> None:
            nonlocal done
            step, done = min(reached, total) - done, min(reached, total)
            if step > 0:
                bar.update(step)

        yield show
