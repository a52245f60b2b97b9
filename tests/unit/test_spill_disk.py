"""What a spill keeps outlives damage and full disks, and takes no more disk than it needs."""

from __future__ import annotations

import contextlib
import resource
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from msgtrace.errors import SpillUnavailable
from msgtrace.model.units import MIB
from msgtrace.storage.spill import Spill
from msgtrace.storage.spill_table import open_spill_file
from tests.faults.stage import full, small_disk
from tests.spilled import (
    ENOUGH,
    drained,
    in_file,
    left_behind,
    numbered,
    payloads,
    recounted,
    refusal_to_open,
    spilled_request,
)

SMALL_DISK_MIB = 40


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "spill"


@pytest.fixture
async def spill(folder: Path) -> AsyncIterator[Spill]:
    async with Spill.open(folder, ENOUGH) as opened:
        yield opened


def overwrite(path: Path, start: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(start)
        file.write(content)


def content_of(path: Path) -> bytes:
    return path.read_bytes()


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o777


def put_aside(folder: Path) -> bytes:
    """All that was put aside."""
    return b"".join(path.read_bytes() for path in folder.glob("*.damaged-*"))


def copied_as_after_a_kill(path: Path, folder: Path) -> Path:
    folder.mkdir()
    for suffix in ("", "-wal"):
        name = path.name + suffix
        (folder / name).write_bytes(path.with_name(name).read_bytes())
    return folder / path.name


def damage_header(path: Path) -> None:
    overwrite(path, 0, b"\xde\xad" * 50)


def damage_table(path: Path) -> None:
    """Each page but the first."""
    overwrite(path, 4096, b"\xff" * (path.stat().st_size - 4096))


def cut(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


@pytest.mark.parametrize("damage", [damage_header, damage_table, cut])
async def test_a_damaged_file_is_kept_under_another_name_and_a_new_one_begun(
    folder: Path, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    [path] = await left_behind(folder, [spilled_request(b"x" * 10_000) for _ in range(5)])
    damage(path)
    damaged = content_of(path)

    async with Spill.open(folder, ENOUGH) as spill:
        assert (spill.path, spill.content.requests) == (path, 0)
        await spill.append(numbered(1))
        assert await drained(spill) == [b"0"]

    assert put_aside(folder) == damaged
    assert "spill_damaged" in caplog.text


async def test_of_a_damaged_file_also_the_write_ahead_log_is_kept(
    folder: Path, tmp_path: Path
) -> None:
    """Where the requests are that were acknowledged last."""
    async with Spill.open(folder, ENOUGH) as spill:
        await spill.append(numbered(1))
        with contextlib.closing(sqlite3.connect(spill.path)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        await spill.append([spilled_request(b"acknowledged last")])
        copied = copied_as_after_a_kill(spill.path, tmp_path / "killed")
    damage_header(copied)

    async with Spill.open(copied.parent, ENOUGH) as spill:
        assert spill.content.requests == 0

    assert b"acknowledged last" in put_aside(copied.parent)


async def test_a_damaged_file_that_was_left_behind_does_not_hold_up_a_start(folder: Path) -> None:
    own, left = await left_behind(folder, numbered(1), numbered(50))
    damage_table(left)

    async with Spill.open(folder, ENOUGH) as spill:
        assert (spill.path, spill.content.requests) == (own, 1)
    assert put_aside(folder)


async def test_nobody_else_may_read_a_spill(folder: Path) -> None:
    async with Spill.open(folder, ENOUGH) as spill:
        await spill.append(numbered(1))
        modes = [mode_of(spill.path.with_name(spill.path.name + end)) for end in ("", "-wal")]

    assert modes == [0o600, 0o600]
    assert mode_of(folder) == 0o700


def test_a_commit_is_on_disk_when_it_returns(folder: Path) -> None:
    with contextlib.closing(open_spill_file(folder / "spill-0.db")) as connection:
        [mode], [synchronous] = (
            connection.execute(f"PRAGMA {name}").fetchone()
            for name in ("journal_mode", "synchronous")
        )

    assert (mode, synchronous) == ("wal", 2)  # 2 is FULL


async def test_disk_is_given_back_when_nothing_waits_any_more(spill: Spill) -> None:
    await spill.append(
        [spilled_request(b"kept"), *(spilled_request(b"x" * MIB, at_ns=2) for _ in range(5))]
    )
    await spill.set_aside((await spill.oldest(1))[0], "no")
    assert disk_bytes(spill) > 5 * MIB

    await drained(spill)

    assert disk_bytes(spill) < MIB / 10
    assert payloads(in_file(spill.path)) == [b"kept"]


def disk_bytes(spill: Spill) -> int:
    return sum(
        path.stat().st_size for path in spill.path.parent.iterdir() if path.suffix != ".db-shm"
    )


@pytest.fixture
def disk() -> Iterator[Path]:
    with small_disk(SMALL_DISK_MIB) as mounted:
        if mounted is None:
            pytest.skip("no file system may be mounted here")
        yield mounted


async def test_a_full_disk_refuses_until_there_is_room(disk: Path) -> None:
    async with Spill.open(disk / "spill", ENOUGH) as spill:
        await spill.append(numbered(1))
        with full(disk), pytest.raises(SpillUnavailable, match="free on its disk"):
            await spill.append(numbered(1, first=1))
        await spill.append(numbered(1, first=2))

        assert await drained(spill) == [b"0", b"2"]


@pytest.mark.parametrize("size", [5_000, 2_000_000])
async def test_a_spill_that_has_filled_its_disk_can_be_drained(disk: Path, size: int) -> None:
    """Nothing but the drain may be needed to make room."""
    kept = 0
    async with Spill.open(disk / "spill", 10 * ENOUGH) as spill:
        with contextlib.suppress(SpillUnavailable):
            while True:
                await spill.append([spilled_request(b"x" * size, at_ns=kept)])
                kept += 1
        assert kept * size > 10 * MIB

        assert len(await drained(spill)) == kept
        await spill.append(numbered(1))


async def test_a_start_on_a_full_disk_says_so_and_costs_nothing(disk: Path) -> None:
    await left_behind(disk / "spill", numbered(3))

    with full(disk):
        assert "0 bytes are free on its disk" in await refusal_to_open(disk / "spill")

    async with Spill.open(disk / "spill", ENOUGH) as spill:
        assert await drained(spill) == [b"0", b"1", b"2"]


@contextlib.contextmanager
def files_no_larger_than(count: int) -> Iterator[None]:
    """What this process writes beyond it fails, as on a full disk."""
    _, hard = before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_a_file_that_cannot_grow_refuses_and_recovers(spill: Spill) -> None:
    await spill.append(numbered(1))
    with files_no_larger_than(50_000):
        for _ in range(2):
            with pytest.raises(SpillUnavailable, match="the spill cannot be used"):
                await spill.append([spilled_request(b"x" * 100_000)])
    assert spill.content == recounted(spill.path)

    await spill.append(numbered(1, first=2))

    assert await drained(spill) == [b"0", b"2"]
