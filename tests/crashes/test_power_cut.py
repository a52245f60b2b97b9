"""The SQLite files after a power cut or a kill at any moment: sound, and nothing acknowledged gone.

The real code writes real files while every operation on them is recorded; then the disk is put
together as it may be after each of many moments, and opened. CRASHES_LONG=10 looks at ten times as
many moments.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from msgtrace.errors import DatabaseUnusable
from msgtrace.model.span import DEFAULT_TENANT
from msgtrace.settings.table import Settings
from msgtrace.storage.factory import open_storage
from msgtrace.storage.protocol import Storage
from msgtrace.storage.spill import Spill
from msgtrace.storage.spill_table import open_spill_file
from msgtrace.storage.sqlite.backend import SqliteStorage
from msgtrace.storage.sqlite.connection import open_connection
from tests.batches import make_batch, span, trace_id_of
from tests.crashes.power_cut import FATES, moments
from tests.crashes.recorder import Recording, recorded
from tests.scratch import folder_in_memory
from tests.spilled import ENOUGH, in_file, payloads, spilled_request

LOOKED_AT = 80 * int(os.environ.get("CRASHES_LONG", "1"))
"""Moments of one recording."""


@pytest.fixture
def chance() -> random.Random:
    seed = int(os.environ.get("CRASHES_SEED", random.SystemRandom().randrange(2**32)))
    print(f"CRASHES_SEED={seed}")  # noqa: T201 - shown beside a failure
    return random.Random(seed)


@pytest.fixture
def scratch() -> Iterator[Path]:
    """What a sync is worth is known from the recording."""
    with folder_in_memory() as folder:
        yield folder


@pytest.fixture
def folder(scratch: Path) -> Path:
    folder = scratch / "disk"
    folder.mkdir()
    return folder


class Book:
    """What the code under test was given, and what it said is durable, as notes of a recording."""

    def __init__(self, recording: Recording) -> None:
        self._note = recording.note

    @contextlib.contextmanager
    def writing(self, *names: str) -> Iterator[None]:
        self._note(("begun", names))
        yield
        self._note(("stored", names))

    @contextlib.contextmanager
    def removing(self, *names: str) -> Iterator[None]:
        self._note(("removing", names))
        yield


def told(notes: Sequence[Any], kind: str) -> list[tuple[str, ...]]:
    return [names for each, names in notes if each == kind]


def require_truth(notes: Sequence[Any], found: Sequence[str]) -> None:
    """Everything acknowledged is found, nothing twice, and each commit as a whole or not at all."""
    removed = {name for names in told(notes, "removing") for name in names}
    assert len(set(found)) == len(found)
    for names in told(notes, "stored"):
        assert set(names) - removed <= set(found), f"acknowledged and gone: {names}"
    for names in told(notes, "begun"):
        left = set(names) - removed
        assert left <= set(found) or left.isdisjoint(found), f"half a commit: {names}"
    assert set(found) <= {name for names in told(notes, "begun") for name in names}


def check_moments(
    recording: Recording,
    check: Callable[[Path, Sequence[Any]], None],
    chance: random.Random,
    scratch: Path,
) -> None:
    """Open the disk as it may be after some moments; the last one is always among them."""
    count = len(recording.operations)
    chosen = {count, *chance.sample(range(1, count + 1), min(count, LOOKED_AT))}
    for moment, disk in moments(recording):
        for fate in FATES if moment.position in chosen else ():
            with tempfile.TemporaryDirectory(dir=scratch) as folder:
                disk.write_to(Path(folder), fate, chance)
                try:
                    check(Path(folder), moment.notes)
                except BaseException as error:
                    error.add_note(f"after operation {moment.position} of {count}, {fate} unsynced")
                    raise


def spans_in(path: Path) -> list[str]:
    """Their names. The file must be sound, and its summaries must agree with its spans."""
    if not path.exists():
        return []
    with contextlib.closing(open_connection(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        if not connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'traces'").fetchall():
            return []
        spans = connection.execute("SELECT trace_id, name FROM spans").fetchall()
        counts = dict(connection.execute("SELECT trace_id, span_count FROM traces").fetchall())
        assert counts == Counter(trace_id for trace_id, _ in spans)
        return [name for _, name in spans]


async def write_and_delete(path: Path, book: Book) -> None:
    """Two runs of a collector on one file, with resends, a deletion and many checkpoints."""
    for run in range(2):
        async with open_storage(Settings(database_url=f"sqlite:///{path}")) as storage:
            await set_checkpoints(storage)
            for number in range(40):
                names = [f"{run}.{number}.{place}" for place in range(1 + number % 4)]
                trace_id = trace_id_of(f"{run} {number % 7}")
                batch = make_batch(*(span(name, trace_id=trace_id) for name in names))
                with book.writing(*names):
                    await storage.write_spans([batch])
                if number % 9 == 0:
                    assert await storage.write_spans([batch]) == 0
                    await storage.check()
            trace_id = trace_id_of(f"{run} 3")
            gone = [f"{run}.{number}.{place}" for number in range(3, 40, 7) for place in range(4)]
            with book.removing(*gone):
                assert await storage.delete_trace(DEFAULT_TENANT, trace_id)


async def set_checkpoints(storage: Storage) -> None:
    """After few pages: a small file sees as many checkpoints as a large one."""
    assert isinstance(storage, SqliteStorage)
    await storage._writer.run(
        lambda connection: connection.execute("PRAGMA wal_autocheckpoint = 40").fetchall()
    )


def test_the_database_is_sound_and_complete_at_every_moment(
    folder: Path, scratch: Path, chance: random.Random
) -> None:
    with recorded(folder) as recording:
        asyncio.run(write_and_delete(folder / "msgtrace.db", Book(recording)))

    def check(left: Path, notes: Sequence[Any]) -> None:
        require_truth(notes, spans_in(left / "msgtrace.db"))

    check_moments(recording, check, chance, scratch)


async def spill_and_drain(folder: Path, book: Book) -> None:
    """Two collectors that spill side by side, then one that finds what the other left."""
    async with Spill.open(folder, ENOUGH) as own, Spill.open(folder, ENOUGH) as other:
        await append(own, book, range(30))
        await append(other, book, range(100, 130))
        await drain(own, book, most=10)
        [odd, *_] = await own.oldest(1)
        await own.set_aside(odd, "cannot be stored")
    async with Spill.open(folder, ENOUGH) as spill:
        await append(spill, book, range(200, 220))
        await drain(spill, book, most=1_000)
        await append(spill, book, range(300, 310))


async def append(spill: Spill, book: Book, numbers: range) -> None:
    for number in numbers:
        names = [f"{number}.{place}" for place in range(1 + number % 3)]
        padding = b" " * (number % 10 * 1_500)
        with book.writing(*names):
            await spill.append(
                [spilled_request(name.encode() + padding, at_ns=number) for name in names]
            )


async def drain(spill: Spill, book: Book, most: int) -> None:
    for _ in range(most):
        if not (group := await spill.oldest(20_000)):
            break
        with book.removing(*(each.payload.decode().strip() for each in group)):
            await spill.remove(group)


async def spilled_in(folder: Path) -> list[str]:
    """What the next collector finds, also what is set aside."""
    async with Spill.open(folder, ENOUGH) as spill:
        found = payloads(in_file(spill.path))
    return [payload.decode().strip() for payload in found]


def test_the_spill_is_sound_and_complete_at_every_moment(
    folder: Path, scratch: Path, chance: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    with recorded(folder) as recording:
        monkeypatch.setattr(os, "unlink", recorded_unlink(recording))
        asyncio.run(spill_and_drain(folder, Book(recording)))
        monkeypatch.undo()

    def check(left: Path, notes: Sequence[Any]) -> None:
        for path in left.glob("spill-?.db"):
            require_sound(path)
        # Twice if it was cut while one collector took over the other's: the database knows them.
        require_truth(notes, sorted(set(asyncio.run(spilled_in(left)))))
        assert not list(left.glob("*.damaged-*"))

    check_moments(recording, check, chance, scratch)


def recorded_unlink(recording: Recording) -> Callable[..., None]:
    unlink = os.unlink

    def record_and_unlink(path: Any, **options: Any) -> None:
        unlink(path, **options)
        recording.deleted(Path(path))

    return record_and_unlink


def require_sound(path: Path) -> None:
    with contextlib.closing(open_spill_file(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


@pytest.mark.parametrize("pragma", ["synchronous = NORMAL", "synchronous = OFF"])
def test_a_commit_that_is_not_synced_is_found_out(
    folder: Path, scratch: Path, chance: random.Random, pragma: str
) -> None:
    """The check itself: it must see what a laxer setting would lose."""

    async def write(path: Path, book: Book) -> None:
        async with open_storage(Settings(database_url=f"sqlite:///{path}")) as storage:
            assert isinstance(storage, SqliteStorage)
            await storage._writer.run(
                lambda connection: connection.execute(f"PRAGMA {pragma}").fetchall()
            )
            for number in range(20):
                with book.writing(f"{number}"):
                    await storage.write_spans([make_batch(span(f"{number}"))])

    with recorded(folder) as recording:
        asyncio.run(write(folder / "msgtrace.db", Book(recording)))

    def check(left: Path, notes: Sequence[Any]) -> None:
        require_truth(notes, spans_in(left / "msgtrace.db"))

    with pytest.raises((AssertionError, DatabaseUnusable)):
        check_moments(recording, check, chance, scratch)
