"""What a spill keeps comes back: in order, within its bounds, to one collector at a time."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msgtrace.errors import Overloaded
from msgtrace.storage.file_lock import lock_file
from msgtrace.storage.spill import Spill
from msgtrace.storage.spill_files import folder_of, spill_files
from msgtrace.storage.spill_table import SpillContent, move_from, open_spill_file
from tests.spilled import (
    ENOUGH,
    drained,
    in_file,
    left_behind,
    names_in,
    numbered,
    payloads,
    recounted,
    refusal_to_open,
    spilled_request,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "spill"


@pytest.fixture
async def spill(folder: Path) -> AsyncIterator[Spill]:
    async with Spill.open(folder, ENOUGH) as opened:
        yield opened


async def test_a_request_comes_back_as_it_was(spill: Spill) -> None:
    await spill.append([spilled_request(b"\x00\xff", at_ns=2**62)])

    [found] = await spill.oldest(ENOUGH)

    assert (found.payload, found.encoding) == (b"\x00\xff", "protobuf")
    assert (found.span_count, found.received_at_ns) == (3, 2**62)


async def test_the_oldest_comes_first_and_stays_until_it_is_removed(spill: Spill) -> None:
    await spill.append(numbered(2))
    await spill.append(numbered(3, first=2))

    first = await spill.oldest(2)
    assert payloads(first) == [b"0", b"1"]
    assert await spill.oldest(2) == first
    await spill.remove(first)

    assert await drained(spill) == [b"2", b"3", b"4"]
    assert await spill.oldest(2) == []


async def test_requests_of_one_moment_keep_their_order(spill: Spill) -> None:
    for n in range(10):
        await spill.append([spilled_request(b"%d" % n)])

    assert await drained(spill, 3) == [b"%d" % n for n in range(10)]


async def test_a_group_holds_so_many_bytes_but_at_least_one_request(spill: Spill) -> None:
    await spill.append([spilled_request(b"x" * size) for size in (50, 60, 500, 10, 10)])

    groups = []
    while group := await spill.oldest(110):
        await spill.remove(group)
        groups.append([len(each) for each in payloads(group)])

    assert groups == [[50, 60], [500], [10, 10]]


async def test_a_group_of_tiny_requests_is_bounded_too(spill: Spill) -> None:
    await spill.append(numbered(300))

    assert [len(await spill.oldest(size)) for size in (ENOUGH, 0)] == [256, 1]


async def test_what_is_set_aside_holds_up_nobody_and_is_kept(folder: Path) -> None:
    async with Spill.open(folder, ENOUGH) as spill:
        await spill.append(numbered(4))
        [first, second] = await spill.oldest(2)
        await spill.set_aside(first, "the bytes do not decode")

        assert (await spill.oldest(1)) == [second]
        assert spill.content == SpillContent(
            requests=3, set_aside=1, payload_bytes=4, oldest_ns=second.received_at_ns
        )

    async with Spill.open(folder, ENOUGH) as spill:
        assert (spill.content.requests, spill.content.set_aside) == (3, 1)
        assert await drained(spill) == [b"1", b"2", b"3"]
        assert in_file(spill.path) == [first]
        with contextlib.closing(sqlite3.connect(spill.path)) as connection:
            reasons = connection.execute("SELECT set_aside FROM requests").fetchall()
    assert reasons == [("the bytes do not decode",)]


async def test_beyond_its_bytes_requests_are_refused_as_a_whole(folder: Path) -> None:
    async with Spill.open(folder, max_bytes=100) as spill:
        await spill.append([spilled_request(b"x" * 60)])
        with pytest.raises(Overloaded, match="60 bytes of at most 100"):
            await spill.append([spilled_request(b"x" * 40), spilled_request(b"x")])
        assert spill.content == recounted(spill.path)

        await spill.append([spilled_request(b"x" * 40)])
        await spill.remove(await spill.oldest(60))
        await spill.append([spilled_request(b"x" * 60)])

        assert spill.content.payload_bytes == 100


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.lists(st.binary(max_size=40), min_size=1, max_size=4)),
        st.tuples(st.just("remove"), st.integers(0, 100)),
        st.tuples(st.just("set aside"), st.none()),
        st.tuples(st.just("reopen"), st.none()),
    ),
    max_size=15,
)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(operations=OPERATIONS, times=st.lists(st.integers(0, 5), min_size=1))
def test_the_counters_are_a_recount_of_the_file(
    tmp_path_factory: pytest.TempPathFactory,
    operations: list[tuple[str, object]],
    times: list[int],
) -> None:
    folder = tmp_path_factory.mktemp("counted")
    asyncio.run(_operate(folder, operations, times))


async def _operate(folder: Path, operations: list[tuple[str, object]], times: list[int]) -> None:
    """`times` are those of the requests: a clock may step back."""
    moments = iter(times * 100)
    async with contextlib.AsyncExitStack() as stack:
        spill = await stack.enter_async_context(Spill.open(folder, 300))
        for name, argument in operations:
            match name, argument:
                case "append", list() as contents:
                    group = [spilled_request(each, next(moments)) for each in contents]
                    with contextlib.suppress(Overloaded):
                        await spill.append(group)
                case "remove", int() as max_bytes:
                    await spill.remove((await spill.oldest(max_bytes))[::2])
                case "set aside", _:
                    for each in (await spill.oldest(0))[:1]:
                        await spill.set_aside(each, "no")
                case "reopen", _:
                    await stack.aclose()
                    spill = await stack.enter_async_context(Spill.open(folder, 300))
            assert spill.content == recounted(spill.path)


async def test_a_caller_that_is_cancelled_is_counted_in_the_end(folder: Path) -> None:
    async with Spill.open(folder, ENOUGH) as spill:
        appending = asyncio.create_task(spill.append(numbered(3)))
        await asyncio.sleep(0)
        appending.cancel()
        await asyncio.gather(appending, return_exceptions=True)

    assert spill.content == recounted(spill.path)
    assert spill.content.requests == 3


async def test_everything_is_there_after_a_restart(folder: Path) -> None:
    await left_behind(folder, numbered(5))

    async with Spill.open(folder, ENOUGH) as spill:
        assert spill.content == SpillContent(requests=5, payload_bytes=5, oldest_ns=0)
        assert await drained(spill) == [b"0", b"1", b"2", b"3", b"4"]


async def test_collectors_that_share_a_folder_have_a_file_each(folder: Path) -> None:
    async with Spill.open(folder, ENOUGH) as one, Spill.open(folder, ENOUGH) as other:
        await one.append(numbered(1))
        await other.append(numbered(2))

        assert one.path != other.path
        assert [len(in_file(each.path)) for each in (one, other)] == [1, 2]


async def test_what_ended_collectors_left_is_taken_over_in_the_order_of_its_age(
    folder: Path,
) -> None:
    left = await left_behind(folder, numbered(2, first=4), numbered(2), numbered(2, first=2))

    async with Spill.open(folder, ENOUGH) as spill:
        assert spill_files(folder) == [spill.path] == left[:1]
        assert spill.content == SpillContent(requests=6, payload_bytes=6, oldest_ns=0)
        assert await drained(spill) == [b"%d" % n for n in range(6)]
    assert names_in(folder) == [spill.path.name]


async def test_what_was_set_aside_is_taken_over_as_such(folder: Path) -> None:
    async with Spill.open(folder, ENOUGH), Spill.open(folder, ENOUGH) as spill:
        await spill.append(numbered(2))
        await spill.set_aside((await spill.oldest(1))[0], "no")

    async with Spill.open(folder, ENOUGH) as spill:
        assert (spill.content.requests, spill.content.set_aside) == (1, 1)


async def test_a_file_that_somebody_uses_is_not_taken_over(folder: Path) -> None:
    async with Spill.open(folder, ENOUGH) as first:
        async with Spill.open(folder, ENOUGH) as second:
            await second.append(numbered(2))
            await first.append(numbered(1))
            async with Spill.open(folder, ENOUGH) as third:
                assert third.content.requests == 0
        async with Spill.open(folder, ENOUGH) as fourth:
            assert (fourth.path, fourth.content.requests) == (second.path, 2)


async def test_a_crash_while_taking_over_doubles_but_loses_nothing(folder: Path) -> None:
    own, left = await left_behind(folder, numbered(1), numbered(2, first=1))
    with contextlib.closing(open_spill_file(own)) as connection:
        assert move_from(connection, left) == 2

    async with Spill.open(folder, ENOUGH) as spill:
        assert await drained(spill) == [b"0", b"1", b"1", b"2", b"2"]


async def test_a_file_of_a_later_version_is_left_alone(folder: Path) -> None:
    own, left = await left_behind(folder, numbered(1), numbered(2))
    with contextlib.closing(sqlite3.connect(left)) as connection:
        connection.execute("PRAGMA user_version = 99")
    async with Spill.open(folder, ENOUGH) as spill:
        assert spill.content.requests == 1
    assert len(in_file(left)) == 2

    os.rename(left, own)
    assert "it has format 99" in await refusal_to_open(folder)


def test_a_folder_that_cannot_be_used_is_named_with_its_setting(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    assert f"cannot write in {file / 'spill'}" in asyncio.run(refusal_to_open(file / "spill"))

    (tmp_path / "taken" / "spill-0.db").mkdir(parents=True)
    assert "directory" in asyncio.run(refusal_to_open(tmp_path / "taken"))


async def test_more_collectors_than_files_are_told_to_take_another_folder(tmp_path: Path) -> None:
    with contextlib.ExitStack() as locks:
        for number in range(64):
            assert lock_file(tmp_path / f"spill-{number}.db", locks)

        assert f"{tmp_path} is used by 64 collectors" in await refusal_to_open(tmp_path)
    async with Spill.open(tmp_path, ENOUGH):
        pass


URL = "postgresql://app:secret@db.example:5432/traces?sslmode=require"


@pytest.mark.parametrize(
    "other",
    [
        URL.replace("traces", "staging"),
        URL.replace("db.example", "db2.example"),
        URL.replace("5432", "5433"),
        URL.replace("app:", "other:"),
    ],
)
def test_another_database_has_another_folder(other: str) -> None:
    assert folder_of("/spill", other) != folder_of("/spill", URL)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (URL, URL.replace("secret", "changed")),
        (URL, URL.replace("secret", "p@ss:w/rd")),
        (
            "postgresql://db.example/traces?user=app&password=secret",
            "postgresql://db.example/traces?user=app&password=changed",
        ),
    ],
)
def test_a_new_password_makes_no_new_folder(one: str, other: str) -> None:
    assert folder_of("/spill", one) == folder_of("/spill", other)


@pytest.mark.parametrize("name", ["traces", "../../etc", "a b\u2028c", "", "x" * 60])
def test_the_folder_of_a_database_is_one_below_the_spills(name: str) -> None:
    folder = folder_of("/spill", f"postgresql://db.example/{name}")

    assert folder.parent == Path("/spill")
    assert "secret" not in str(folder_of("/spill", URL))
